import base64
import hashlib
import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from fullrank.errors import InputError
from fullrank.report import build_diagnosis_page, build_report
from fullrank.report.page import CONTENTS, resource, safe_json
from tests.unit.report.run_folders import make_minimal, make_multichannel, make_run, make_single_step

EVIL = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
VOID = {"meta", "link", "img", "input", "br"}
MAKERS = {
    "healthy": make_run,
    "dimensional": lambda folder: make_run(folder, "dimensional"),
    "complete": lambda folder: make_run(folder, "complete"),
    "minimal": make_minimal,
    "single step": make_single_step,
    "13 channels": make_multichannel,
}


class Page(HTMLParser):
    """Elements with their attributes, visible text, and whether every element is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.scripts, self.errors = [], []
        self.feed(text)
        self.errors += [f"<{name}> is never closed" for name in self.open]

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        if not self.open or self.open.pop() != name:
            self.errors.append(f"</{name}> at {self.getpos()} closes another element")

    def handle_data(self, text):
        if self.open and self.open[-1] == "script":
            self.scripts.append(text)
        elif self.open and self.open[-1] != "style":
            self.texts.append(" ".join(text.split()))

    def all(self, name):
        return [attributes for kind, attributes in self.elements if kind == name]

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


def page(folder):
    return Page(build_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """The report of every kind of run, built once."""
    return {kind: build_report(make(tmp_path_factory.mktemp("runs") / "run")) for kind, make in MAKERS.items()}


@pytest.fixture(scope="module")
def pages(paths):
    return {kind: Page(path.read_text(encoding="utf-8")) for kind, path in paths.items()}


@pytest.mark.parametrize("kind", MAKERS)
def test_page_is_sound_and_stands_alone(paths, pages, kind):
    assert paths[kind].name == "report.html"
    assert paths[kind].stat().st_size < 5_000_000
    assert list(paths[kind].parent.glob(".report*")) == []
    found = pages[kind]
    assert found.errors == []
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(link["href"].removeprefix("#") in ids for link in found.all("a"))
    assert all("alt" in image for image in found.all("img"))
    sources = [attributes[key] for _, attributes in found.elements for key in ("src", "href") if key in attributes]
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "://" not in resource("style.css")
    assert "url(" not in resource("style.css")
    assert len(found.all("h1")) == 1


def test_worst_pictures_leave_the_page_small(tmp_path):
    random = np.random.default_rng(0)

    def noise(*shape):
        return random.integers(0, 256, (*shape, 3), dtype=np.uint8)

    folder = make_run(tmp_path, pictures=False)
    with np.load(folder / "diagnostics.npz") as archive:
        arrays = dict(archive)
    arrays |= {"views": noise(8, 12, 150, 150), "neighbours_query": noise(9, 150, 150)}
    arrays |= {"neighbours": noise(9, 12, 150, 150), "map_xy": random.standard_normal((1500, 2))}
    arrays["map_thumbs"] = noise(1500, 32, 32)
    np.savez(folder / "diagnostics.npz", **arrays)
    assert build_report(folder).stat().st_size < 5_000_000


def test_parts_stand_in_order_and_have_a_sentence_each(paths, pages):
    text = paths["dimensional"].read_text(encoding="utf-8")
    sections = re.findall(r'<section id="(\w+)">(.*?)</section>', text, re.DOTALL)
    assert [name for name, _ in sections] == [name for name, *_ in CONTENTS]
    order = (
        "gain losses live spectra correlations deviations views neighbours map factors warnings evaluations settings"
    )
    assert re.sub(r"measures |usage", "", " ".join(name for name, _ in sections)).strip() == order
    assert [name for name, body in sections if 'class="how"' not in body] == ["warnings"]
    listed = [link["href"] for link in pages["dimensional"].all("a")][1:]  # after the link that skips the contents
    assert [link for link in listed if link != "#verdict"][: len(sections)] == [f"#{name}" for name, _ in sections]


@pytest.mark.parametrize(
    ("kind", "absent"),
    [
        ("minimal", {"gain", "factors", "warnings", "evaluations"}),
        (
            "single step",
            {"gain", "factors", "spectra", "correlations", "deviations", "measures", "map", "views", "usage"},
        ),
        ("healthy", {"warnings"}),
    ],
)
def test_missing_parts_leave_no_hole(pages, kind, absent):
    found = pages[kind]
    ids = {attributes["id"] for name, attributes in found.elements if name == "section"}
    assert not ids & absent
    assert {"losses", "live"} <= ids
    assert {link["href"] for link in found.all("a")} <= {f"#{name}" for name in ids | {"verdict"}}


def test_verdict_stands_in_words_shape_and_colour(pages):
    found = pages["dimensional"]
    assert "Dimensional collapse" in found.text
    assert "Raise the covariance coefficient (it is 0) to 1" in found.text
    assert "A single direction holds 61 % of the variance." in found.text
    panels = [attributes["class"] for attributes in found.all("article")]
    assert panels == ["panel healthy", "panel dimensional-collapse"]
    complete = pages["complete"]
    assert [attributes["class"] for attributes in complete.all("article")] == ["panel complete-collapse"] * 2
    # the spectrum of what noise is left must not read as a high rank
    assert "effective rank 96" not in complete.text
    assert "effective rank 52" in found.text


def test_numbers_reach_the_page(pages):
    text = pages["healthy"].text
    for words in (
        "72.7%",
        "40.2%",
        "31.8%",
        "16.7%",
        "its 20 nearest",
        "4 min 31 s, 2,948 images/s",
        "Invariance × 25",
    ):
        assert words in text, words
    for words in ("broken.png: truncated", "32 × 32", "rare 0: 1, rare 1: 1, and 2 more", "An unknown measure"):
        assert words in text, words
    for words in ("shape accuracy 91.0%", "untrained 48.0%", "hue R² 0.35", "untrained 0.77", "rotation R² -0.03"):
        assert words in text, words
    assert (
        "knn, shapes[test] top-1 top-5 72.7 97.0 5,000 learnt from, 2,000 judged 2 settings k=10 72.7 k=20 71.7" in text
    )
    assert "2 classes disk 91.5 ring 12.2" in text
    assert "The test samples come from the training set." in text
    assert "neighbours here carry the label of their query" in text
    assert "test_resnet, 40 epochs" in text


def test_code_that_opens_the_weights(pages):
    code = pages["13 channels"].text.split("import timm")[1]
    assert (
        "timm.create_model( 'test_resnet', num_classes=0, in_chans=13, checkpoint_path=\"backbone.safetensors\"" in code
    )
    assert "The first three of 13 channels are shown" in pages["13 channels"].text


def test_unfinished_run_says_so(pages):
    text = pages["single step"].text
    assert "This run has not finished" in text
    assert "healthy run" in text or "pale line" not in text


def test_names_from_outside_stay_text(tmp_path):
    folder = make_run(tmp_path, "dimensional")
    content = json.loads((folder / "summary.json").read_text())
    content |= {"name": EVIL, "data": EVIL, "backbone": EVIL, "warnings": [EVIL], "versions": {EVIL: EVIL}}
    content["verdict"]["Y"]["reason"] = EVIL
    content["verdict"][EVIL] = content["verdict"]["Y"]
    content["verdict"]["Y"]["measures"][EVIL] = 1.0
    content["factors"][0]["name"] = EVIL
    content["evaluations"][0] |= {"data": EVIL, "notes": [EVIL], "by_class": {EVIL: 1.0}}
    content["evaluations"][0]["details"][EVIL] = {"top1": 1}
    (folder / "summary.json").write_text(json.dumps(content))
    (folder / "config.yaml").write_text(EVIL)
    with np.load(folder / "diagnostics.npz") as archive:
        arrays = dict(archive)
    arrays["class_names"] = np.array([EVIL] * 6)
    arrays["map_name"] = np.array([EVIL] * len(arrays["map_xy"]))
    arrays[f"{EVIL}_std"] = arrays["Y_std"]
    np.savez(folder / "diagnostics.npz", **arrays)
    metrics = (folder / "metrics.csv").read_text()
    (folder / "metrics.csv").write_text(metrics.replace("variance", "<script>alert(3)</script>", 1))
    found = page(folder)
    assert found.errors == []
    assert len(found.scripts) == 2
    assert all("onerror" not in image for image in found.all("img"))
    assert found.text.count("alert(1)") > 8
    figures = json.loads(found.scripts[0])
    assert figures["map"]["names"][0] == EVIL
    assert figures["map"]["classes"]["0"] == EVIL
    assert f"std-{EVIL}" in figures["charts"]


def test_json_of_the_figures_is_strict_and_inert():
    text = safe_json({"a": [1.0, float("nan"), float("inf")], "b": "</script>&<!--", 3: (1, None)})
    assert not set("<>&") & set(text)

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(text, parse_constant=refuse) == {"a": [1.0, None, None], "b": "</script>&<!--", "3": [1, None]}


def test_diverged_run_is_shown(tmp_path):
    folder = make_run(tmp_path, pictures=False)
    lines = (folder / "metrics.csv").read_text().splitlines()
    cells = lines[-1].split(",")
    (folder / "metrics.csv").write_text("\n".join([*lines[:-1], ",".join([*cells[:2], "nan", "inf", *cells[4:]])]))
    with np.load(folder / "diagnostics.npz") as archive:
        arrays = dict(archive)
    arrays["Z_spectrum"][:] = np.nan
    arrays["Z_correlation"][:5] = np.nan
    np.savez(folder / "diagnostics.npz", **arrays)
    content = json.loads((folder / "summary.json").read_text())
    content["knn"]["trained"] = float("nan")
    content["factors"][0]["score"] = None
    (folder / "summary.json").write_text(json.dumps(content))
    found = page(folder)
    assert "NaN" not in found.scripts[0]
    assert {"spectrum-Y"} == {key for key in json.loads(found.scripts[0])["charts"] if key.startswith("spectrum")}


def test_only_the_own_script_may_run(pages):
    found = pages["healthy"]
    (policy,) = [one["content"] for one in found.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(found.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_old_page_stays_when_the_new_one_cannot_be_made(tmp_path):
    folder = make_run(tmp_path, pictures=False)
    before = build_report(folder).read_bytes()
    (folder / "summary.json").write_text("{")
    with pytest.raises(InputError, match=r"summary\.json"):
        build_report(folder)
    assert (folder / "report.html").read_bytes() == before


def test_diagnosis_of_an_array(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((200, 24))
    result = {
        "name": "vectors.npy",
        "verdict": "healthy",
        "reason": "21 of 24 directions carry information.",
        "remedy": "Nothing.",
        "measures": {"effective_rank": 21.3, "rankme": None, "d": 24, "n": 200},
    }
    arrays = {
        "spectrum": np.linalg.svd(vectors - vectors.mean(0), compute_uv=False),
        "std": vectors.std(axis=0),
        "correlation": np.corrcoef(vectors.T),
        "map_xy": vectors[:, :2],
    }
    out = build_diagnosis_page(result, arrays, tmp_path / "page.html")
    found = Page(out.read_text(encoding="utf-8"))
    assert found.errors == []
    ids = [attributes["id"] for name, attributes in found.elements if name == "section"]
    assert ids == ["spectra", "correlations", "deviations", "measures", "map"]
    assert "21 of 24 directions carry information." in found.text
    assert "Every dot is a vector" in found.text
    with pytest.raises(InputError, match="cannot write"):
        build_diagnosis_page(result, {}, tmp_path / "missing" / "page.html")


def linear(colour):
    values = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def oklab(rgb):
    """Björn Ottosson, A perceptual color space for image processing (2020)."""
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return to_lab @ np.cbrt(to_cones @ rgb)


# Machado, Oliveira, Fernandes, A physiologically-based model for simulation of color vision deficiency (2009).
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def palette():
    found = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", resource("style.css"))
    return {name: colours for name, *colours in found}


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
def test_branches_differ_for_every_eye(theme, vision):
    seen = {name: oklab(np.clip(VISION[vision] @ linear(palette()[name][theme]), 0, 1)) for name in ("Y", "Z", "page")}
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 0.15, (one, other)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_dots_of_every_class_stand_out_from_the_ground(theme):
    colours = palette()
    ground = linear(colours["raised"][theme]) @ [0.2126, 0.7152, 0.0722]
    for name in [f"c{index}" for index in range(10)]:
        light = linear(colours[name][theme]) @ [0.2126, 0.7152, 0.0722]
        assert (max(light, ground) + 0.05) / (min(light, ground) + 0.05) >= 3, name
