"""Every protocol of `fullrank evaluate` on real pictures, with the networks that it is shown on trained here.

    python benchmarks/evaluations.py cifar10 --data cifar10.tar.xz
    python benchmarks/evaluations.py photographs --data flickr8k_train.zip --sets caltech101.zip coco.zip
    python benchmarks/evaluations.py detection --data nuclei.zip --images nuclei.zip --size 96
    python benchmarks/evaluations.py retrieval --data flickr8k_train.zip --test flickr8k_devtest.zip

`cifar10`: kNN, linear probe and fine-tuning on 1 % and 10 % of the labels, of the untrained network, VICReg's and a
supervised one. `photographs`: VICReg on photographs without labels, then linear probe and SVM on other sets, of the
trained and the untrained network, and beside them scikit-learn's logistic regression and SVM on the same features.
`detection`: a detector on a network that VICReg trained on pictures of the same kind without their labels, and one from
scratch, trained alike. `retrieval`: VICReg, Barlow Twins and VSE++ with a text branch, for the same number of steps
with the same networks.

Writes benchmarks/results/evaluate-NAME-cpu.json, with n, spread over seeds or samples, date, versions and hardware.
Networks lie in --runs and are not trained again while they are there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import fullrank
from fullrank.evaluation.average_precision import average_precision
from fullrank.evaluation.protocol import as_targets
from fullrank.evaluation.svm import VISSL_COSTS, unit_features
from fullrank.machine import hardware, versions
from fullrank.runs.evaluate import features_of, open_asked, open_parts
from fullrank.runs.folder import CHECKPOINT, Run

QUIET = {"logger": "none", "report": False}
KEPT = ("scores", "details", "n_train", "n_test", "classes", "settings", "seconds", "notes")


def trained(options: argparse.Namespace, name: str, **settings: Any) -> Run:
    """The run of that name, trained where it is not there."""
    folder = Path(options.runs) / name
    if folder.is_dir() and Run(folder).summary.get("finished"):
        return Run(folder)
    going_on = (folder / CHECKPOINT).is_file()
    return fullrank.train(
        output=str(folder), seed=options.seed, resume=going_on, overwrite=not going_on, **QUIET, **settings
    )


def untrained(options: argparse.Namespace, name: str, **settings: Any) -> Run:
    """The first weights of the same run: one step at a learning rate of 0."""
    settings = {key: value for key, value in settings.items() if key not in ("epochs", "steps", "learning_rate")}
    return trained(options, f"{name}-untrained", steps=1, learning_rate=0.0, **settings)


def facts(run: Run) -> dict[str, Any]:
    """What a run was, for the record."""
    summary = run.summary
    return {name: summary.get(name) for name in ("steps", "epochs", "seconds", "images_per_second", "verdict", "knn")}


def judged(run: Run, protocol: str, **options: Any) -> dict[str, Any]:
    """A result, without what all have in common."""
    found = run.evaluate(protocol, **options)
    print(f"{run.folder.name}  {protocol}  {found['scores']}", flush=True)
    return {name: found[name] for name in KEPT}


def cifar10(options: argparse.Namespace) -> dict[str, Any]:
    """Untrained below VICReg below supervised; on 1 % of the labels VICReg above a network from scratch."""
    return {
        name: {
            "run": facts(run),
            "knn": judged(run, "knn", k=[20, 200]),
            "linear": judged(run, "linear"),
            **{
                f"finetune {percent} %": judged(
                    run, "finetune", percent=percent, epochs=epochs, seeds=options.seeds, **TUNED
                )
                for percent, epochs in ((1, 20), (10, 10))  # the supervised network has seen all labels before
            },
        }
        for name, run in cifar10_networks(options).items()
    }


def cifar10_networks(options: argparse.Namespace) -> dict[str, Run]:
    """The same network untrained, after VICReg, and after supervised training of as many epochs."""
    same = {"data": options.data, "backbone": "test_resnet", "stem_stride": 2, "batch_size": 256}
    same |= {"optimizer": "adamw", "learning_rate": 0.003, "weight_decay": 1e-4}
    vicreg = same | {"method": "vicreg", "expander": "512-512-512", "epochs": options.epochs or 20}
    supervised = same | {"method": "supervised", "epochs": options.epochs or 20}
    return {
        "untrained": untrained(options, "cifar10-vicreg", **vicreg),
        "vicreg": trained(options, "cifar10-vicreg", **vicreg),
        "supervised": trained(options, "cifar10-supervised", **supervised),
    }


# The published rates are for ResNet-50. For a network of 0.5 M parameters these were the better of two pairs, with
# 4,000 labels, judged on 2,000 other training pictures (54.0 %, 49.7 % with 0.03 and 0.1) for VICReg's network.
TUNED: dict[str, Any] = {"batch_size": 64, "learning_rate": 0.1, "head_learning_rate": 1.0}


def photographs(options: argparse.Namespace) -> dict[str, Any]:
    """A network that saw photographs, on other sets, by two protocols, beside scikit-learn."""
    run, plain = photograph_networks(options)
    record: dict[str, Any] = {"run": facts(run)}
    for data in options.sets:
        record[Path(data).name] = {
            name: {protocol: judged(each, protocol, data=data) for protocol in ("linear", "svm")}
            for name, each in (("untrained", plain), ("vicreg", run))
        } | {"scikit-learn": beside_scikit_learn(run, data)}
    return record


def photograph_networks(options: argparse.Namespace) -> tuple[Run, Run]:
    """VICReg's network on photographs at 64 px, and the same untrained."""
    settings = {"data": options.data, "method": "vicreg", "backbone": options.backbone, "image_size": 64}
    settings |= {"batch_size": 128, "stem_stride": 4, "expander": "512-512-512", "optimizer": "adamw"}
    settings |= {"learning_rate": 0.003}
    settings |= {"weight_decay": 1e-4, "epochs": options.epochs or 20}
    return trained(options, "photographs", **settings), untrained(options, "photographs", **settings)


def beside_scikit_learn(run: Run, data: str) -> dict[str, Any]:
    """The same features by scikit-learn: its SVM by the same protocol, and its logistic regression for several C."""
    asked = dict.fromkeys(("annotations", "label_column", "split", "include", "test_split", "backbone"))
    asked |= {"image_size": None, "pretrained": True, "layer": None, "pooling": "auto", "precision": "32"}
    settings = SimpleNamespace(data=data, seed=0, device="cpu", cache=True, **asked)
    model = open_asked(run, settings)
    parts = open_parts(model, settings)
    (train, learnt), (test, known) = [
        (values.numpy(), part.answers(kept))
        for part, (values, kept) in zip(parts, features_of(model, parts, settings), strict=True)
    ]
    scaler = StandardScaler().fit(train)
    scaled = scaler.transform(train), scaler.transform(test)
    if learnt.ndim == 1:
        linear = {f"C={c:g}": 100 * float(logistic(c, scaled[0], learnt).score(scaled[1], known)) for c in PENALTIES}
        learnt, known = (as_targets(labels, len(parts[0].source.classes)).numpy() for labels in (learnt, known))
    else:
        kept = columns(learnt, known, fewest=1)
        linear = {
            f"C={c:g}": mean_precision(
                [logistic(c, scaled[0], learnt[:, k] == 1).decision_function(scaled[1]) for k in kept], known[:, kept]
            )
            for c in PENALTIES
        }
    kept, decisions = columns(learnt, known, fewest=3), []
    for column in kept:
        svm = LinearSVC(class_weight={True: 2.0, False: 1.0}, dual=False, max_iter=2000)
        search = GridSearchCV(svm, {"C": VISSL_COSTS}, scoring="average_precision", cv=StratifiedKFold(3))
        search.fit(unit_features(train), learnt[:, column] == 1)
        decisions.append(search.decision_function(unit_features(test)))
    return {"linear": linear, "svm map": mean_precision(decisions, known[:, kept])}


PENALTIES = (0.001, 0.01, 0.1, 1.0)


def logistic(c: float, features: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    return LogisticRegression(C=c, max_iter=2000).fit(features, labels)


def columns(learnt: np.ndarray, known: np.ndarray, *, fewest: int) -> np.ndarray:
    """The classes that the protocols keep."""
    return np.flatnonzero(((learnt == 1).sum(0) >= fewest) & ((learnt != 1).sum(0) >= fewest) & (known == 1).any(0))


def mean_precision(decisions: list[np.ndarray], known: np.ndarray) -> float:
    """VOC's average precision by area, the mean over classes, percent."""
    return 100 * float(np.mean([average_precision(*each) for each in zip(decisions, known.T, strict=True)]))


def detection(options: argparse.Namespace) -> dict[str, Any]:
    """Average precision of a detector on VICReg's network, and on random weights, after the same steps."""
    settings = {"data": options.images, "method": "vicreg", "backbone": "test_resnet", "image_size": options.size}
    settings |= {"batch_size": 128, "expander": "512-512-512", "optimizer": "adamw", "learning_rate": 0.003}
    settings |= {"weight_decay": 1e-4, "epochs": options.epochs or 20, "stem_stride": 4}  # a detector's maps
    run = (
        Run(options.network)
        if options.network
        else trained(options, f"detection-{Path(options.images).stem}", **settings)
    )
    asked = {"steps": options.steps or 300, "batch_size": options.batch_size, "learning_rate": 0.16}
    asked |= {"regions": options.regions, "proposals": 200, "detector": options.detector}
    results = [
        judged(run, "detection", data=options.data, variants=["finetuned", "scratch"], seed=seed, **asked)
        for seed in range(options.seeds)
    ]
    return {"run": facts(run), "seeds": results} | {
        variant: {
            score: spread([each["details"][variant][score] for each in results])
            for score in results[0]["details"][variant]
        }
        for variant in ("finetuned", "scratch")
    }


def spread(values: list[float]) -> dict[str, Any]:
    """Mean, lowest and highest, n."""
    return {"mean": float(np.mean(values)), "lowest": min(values), "highest": max(values), "n": len(values)}


def retrieval(options: argparse.Namespace) -> dict[str, Any]:
    """Recalls of three losses with the same networks, steps and batches."""
    same = {
        "data": options.data,
        "backbone": options.backbone,
        "image_size": options.size,
        "backbone2": "gru:width=512",
    }
    same |= {"batch_size": 128, "stem_stride": 4, "optimizer": "adamw", "learning_rate": 0.001, "weight_decay": 1e-4}
    same |= {"steps": options.steps or 1500}  # an epoch would be every caption of every picture
    own: dict[str, dict[str, Any]] = {
        "vicreg": {"expander": "1024-1024-1024"},
        "barlowtwins": {"projector": "1024-1024-1024"},
        "vse": {"max_violation": False},
    }
    record: dict[str, Any] = {}
    for method in options.only or own:
        run = trained(options, f"retrieval-{method}", method=method, **same, **own[method])
        found = judged(run, "retrieval", data=options.test, test_split="test")
        record[method] = {"run": facts(run), "test": found}
    n = next(iter(record.values()))["test"]["n_test"]
    return record | {"chance R@1, percent": 100 / n, "standard error of R@1 of 5 %": 100 * math.sqrt(0.05 * 0.95 / n)}


PROOFS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "cifar10": cifar10,
    "photographs": photographs,
    "detection": detection,
    "retrieval": retrieval,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proof", choices=PROOFS)
    parser.add_argument("--data", required=True)
    parser.add_argument("--sets", nargs="*", default=[], help="labelled sets, of photographs")
    parser.add_argument("--images", help="unlabelled pictures, of detection")
    parser.add_argument("--network", help="a run to take in place of pre-training, of detection")
    parser.add_argument("--detector", default="fpn", choices=("fpn", "c4"))
    parser.add_argument("--regions", type=int, default=64, help="of a picture that the heads learn from, of detection")
    parser.add_argument("--test", help="pictures and captions to judge on, of retrieval")
    parser.add_argument("--only", nargs="*", help="some methods, of retrieval")
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--size", type=int, default=64, help="of pictures in pre-training, pixels a side")
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch_size", type=int, default=4, help="of detection")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of pre-training")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--name", help="of the record; the proof's when left out")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    record = {
        "date": datetime.date.today().isoformat(),
        "settings": {
            name: Path(value).name if name in ("images", "network", "test") and value else value
            for name, value in vars(options).items()
            if name not in ("runs", "data", "sets")
        },
        "data": Path(options.data).name,
        "versions": versions(),
        "hardware": hardware(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "results": PROOFS[options.proof](options),
    }
    path = Path(__file__).parent / "results" / f"evaluate-{options.name or options.proof}-cpu.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
