"""`fullrank evaluate --protocol transfer`: one network on many data sets by several protocols, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fullrank.errors import InputError
from fullrank.evaluation.repeated import SPREAD
from fullrank.files import plain
from fullrank.runs.evaluate import (
    check_options,
    evaluate_model,
    functions_of,
    keep_result,
    open_asked,
    own_options,
    place_of,
)
from fullrank.terminal import log_console

PROTOCOLS = ("linear", "knn", "svm")
SAME = ("model", "backbone", "weights", "layer", "image_size", "date", "versions", "hardware")
"""What all results of a table have in common."""


def transferred(*, sets: Sequence[str] = (), protocols: Sequence[str] = PROTOCOLS) -> None:
    """The options of this protocol.

    Args:
        sets: data sets, as `data` takes them, --sets '[cifar10.tar.xz, caltech101.zip]'; else --data names the one.
        protocols: which results a set gets.
    """


def evaluate_transfer(given: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What `fullrank.evaluate` does with this protocol; `asked` are its arguments by name.

    A set that cannot be opened, and a protocol that a set cannot have, are rows that say so.
    """
    settings, console = SimpleNamespace(**asked), log_console()
    options = {"sets": (), "protocols": PROTOCOLS} | check_options(settings, [transferred])
    sets = list(options["sets"]) or [settings.data]
    if sets == [None]:
        raise InputError("transfer needs data sets: --sets '[cifar10.tar.xz, caltech101.zip]'")
    seeded = {name: "seed" in own_options(list(functions_of(name).values())) for name in options["protocols"]}
    if settings.seeds > 1 and not any(seeded.values()):
        raise InputError(f"{', '.join(seeded)}: the same numbers for every seed: leave out --seeds")
    model = open_asked(given, settings)
    rows, missing, common = [], {}, {}
    for data in sets:
        row: dict[str, Any] = {"data": str(data)}
        for protocol in options["protocols"]:
            console.print(f"transfer: {data}, {protocol}", markup=False)
            own = {} if seeded[protocol] else {"seeds": 1}
            try:
                result = evaluate_model(model, {**asked, **own, "data": data, "protocol": protocol, "options": {}})
            except InputError as error:
                missing[f"{data}, {protocol}"] = str(error)
                continue
            name, score = next(iter(result["scores"].items()))
            spread = result["scores"].get(f"{name}{SPREAD}")
            row |= {} if spread is None else {f"{protocol}{SPREAD}": spread}
            row |= {
                protocol: score,
                f"{protocol} score": name,
                "n_train": result["n_train"],
                "n_test": result["n_test"],
            }
            common = {name: result[name] for name in SAME}
        rows.append(row)
    if not common:
        raise InputError(f"none of {len(sets)} data sets could be used: {next(iter(missing.values()))}")
    names = ", ".join(Path(str(each)).name for each in sets)
    record = {"protocol": "transfer", "data": names, "rows": rows, "missing": missing, "seeds": settings.seeds} | common
    keep_result(model, record, place_of(model, settings, "-".join(Path(str(each)).name.split(".")[0] for each in sets)))
    return plain(record)
