"""The report in a real browser: no error, no request, nothing cut or unreadable, and every figure answers."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from fullrank.report import build_diagnosis_page, build_report
from fullrank.tables.compare import compare_runs
from fullrank.tables.page import build_page
from tests.end_to_end.chromium import BINARY, Chromium
from tests.unit.report.run_folders import make_minimal, make_multichannel, make_run, make_single_step
from tests.unit.tables.test_compare import run_in
from tests.unit.tables.test_page import RESULTS, table_of

pytestmark = pytest.mark.skipif(BINARY is None, reason="needs Chromium")

KINDS = ["healthy", "dimensional", "complete", "minimal", "single step", "13 channels", "array"]
KINDS += ["table", "figure", "side by side"]

CHECKS = (Path(__file__).parent / "report_checks.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    made = {
        "healthy": make_run(root / "healthy"),
        "dimensional": make_run(root / "dimensional", "dimensional"),
        "complete": make_run(root / "complete", "complete"),
        "minimal": make_minimal(root / "minimal"),
        "single step": make_single_step(root / "single"),
        "13 channels": make_multichannel(root / "multichannel"),
    }
    found = {kind: build_report(folder) for kind, folder in made.items()}
    vectors = np.random.default_rng(0).standard_normal((300, 40))
    arrays = {"spectrum": np.linalg.svd(vectors, compute_uv=False), "std": vectors.std(0), "map_xy": vectors[:, :2]}
    result = {"name": "v.npy", "verdict": "healthy", "reason": "wide", "remedy": "", "measures": {"effective_rank": 38}}
    found["array"] = build_diagnosis_page(result, arrays, root / "array.html")
    for kind, name in (("table", "regularization"), ("figure", "collapse-std")):
        found[kind] = root / f"{kind}.html"
        found[kind].write_text(build_page(table_of(root / kind, name, RESULTS, seeds=2)), encoding="utf-8")
    scores = {"protocol": "linear", "data": "shapes[train]", "scores": {"top1": 51.25}}
    runs = [run_in(root / f"with-a-long-name-{number}", evaluations=[scores][number:]) for number in range(3)]
    found["side by side"] = root / "compare.html"
    found["side by side"].write_text(compare_runs(runs, None).page(), encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture(autouse=True)
def quiet(browser):
    """Nothing is logged and nothing is asked of the network, whatever a test does."""
    browser.problems.clear()
    browser.requests.clear()
    yield
    assert browser.problems == []
    assert [one[:80] for one in browser.requests if not one.startswith(("data:", "file:"))] == []


def readout(browser, key):
    return browser.evaluate(
        f"document.querySelector('[data-chart=\"{key}\"]').closest('figure').querySelector('.readout').textContent"
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_cut_or_unreadable(browser, pages, kind, width, dark):
    browser.open(pages[kind], width=width, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate(f"{{ {CHECKS} badLayout(); }}") == []
    assert browser.evaluate(f"{{ {CHECKS} lowContrast(); }}") == []
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(16, 20, 26)") == dark


def test_pointing_at_a_curve_reads_out_the_measured_value(browser, pages):
    browser.open(pages["healthy"], width=1440)
    at_rest = readout(browser, "loss")
    browser.point_at("[data-chart=loss]", 0.5, 0.4)
    shown = readout(browser, "loss")
    step = float(shown.split()[1].replace(",", ""))
    with (pages["healthy"].parent / "metrics.csv").open() as file:
        rows = [(float(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    near = [loss for at, loss in rows if abs(at - step) <= 40]
    assert abs(step - 3120) < 60
    value = float(shown.split()[2])
    assert min(near) - 0.01 <= value <= max(near) + 0.01
    assert "healthy run" in shown
    assert browser.evaluate("document.querySelectorAll('[data-chart=loss] .cursor-dot').length") == 2
    browser.point_at("h1", 0.5, 0.5)
    assert readout(browser, "loss") == at_rest


def test_two_branches_are_read_out_together(browser, pages):
    browser.open(pages["healthy"], width=390)
    browser.point_at("[data-chart=live-effective_rank]", 0.99, 0.5)
    words = readout(browser, "live-effective_rank")
    y, z = float(words.split("Y ")[1].split()[0]), float(words.split("Z ")[1].split()[0])
    assert 76 < y < 92
    assert 145 < z < 178
    assert browser.evaluate("document.documentElement.scrollWidth") == 390


def test_arrow_keys_move_along_a_curve(browser, pages):
    browser.open(pages["healthy"], width=1440)
    browser.evaluate("document.querySelector('[data-chart=spectrum-Y]').focus()")
    browser.press("ArrowLeft")
    assert readout(browser, "spectrum-Y").startswith("direction 128")
    for _ in range(3):
        browser.press("ArrowLeft")
    assert readout(browser, "spectrum-Y").startswith("direction 125")
    browser.press("Escape")
    assert readout(browser, "spectrum-Y") == "128 directions"


def test_every_control_is_reached_by_the_keyboard(browser, pages):
    browser.open(pages["healthy"], width=1440)
    reached = set()
    for _ in range(90):
        browser.press("Tab")
        reached.add(browser.evaluate("document.activeElement.className + '|' + document.activeElement.tagName"))
    for control in (
        "skip|A",
        "theme|BUTTON",
        "area|DIV",
        "square|DIV",
        "square map|DIV",
        "chip c0|BUTTON",
        "copy js|BUTTON",
        "|SUMMARY",
    ):
        assert control in reached, control


def test_heat_map_reads_out_the_stored_correlation(browser, pages):
    browser.open(pages["dimensional"], width=1440)
    browser.point_at("[data-heat-map=correlation-Z]", 0.301, 0.702)
    words = browser.evaluate(
        "document.querySelector('[data-heat-map=correlation-Z]').closest('figure').querySelector('.readout').textContent"
    )
    _, first, _, second, value = words.split()
    with np.load(pages["dimensional"].parent / "diagnostics.npz") as arrays:
        stored = float(arrays["Z_correlation"][int(first), int(second)])
    assert abs(stored - float(value.replace("−", "-"))) < 0.006


def test_map_shows_the_picture_that_is_pointed_at(browser, pages):
    browser.open(pages["healthy"], width=1440)
    with np.load(pages["healthy"].parent / "diagnostics.npz") as arrays:
        places, labels, thumbs, classes = (
            arrays[name] for name in ("map_xy", "map_label", "map_thumbs", "class_names")
        )
    middle = (places.max(0) + places.min(0)) / 2
    shares = 0.5 + 0.47 * (places - middle) / np.abs(places - middle).max() * [1, -1]
    for index in (3, 250, 699):
        browser.point_at("[data-map]", *shares[index])
        found = browser.evaluate(
            "(() => { const tip = document.querySelector('.tip'); const c = tip.querySelector('canvas');"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; const sum = [0, 0, 0];"
            "d.forEach((v, i) => { if (i % 4 < 3) sum[i % 4] += v; });"
            "return [tip.textContent, ...sum.map((v) => v / (c.width * c.height))]; })()"
        )
        assert found[0] == classes[labels[index]]
        np.testing.assert_allclose(found[1:], thumbs[index].mean(axis=(0, 1)), atol=3)


def test_map_shows_one_class_and_its_pictures(browser, pages):
    browser.open(pages["healthy"], width=390)
    browser.evaluate("document.querySelector('[data-class=\"2\"]').click()")
    for across in (0.1, 0.5, 0.9):
        browser.point_at("[data-map]", across, 0.5)
        assert browser.evaluate("document.querySelector('.tip').textContent") == "rings"
    assert browser.evaluate("[...document.querySelectorAll('.dots:not(.away)')].map((one) => one.dataset.label)") == [
        "2"
    ]
    browser.evaluate("document.querySelector('[data-draw=pictures]').click()")
    painted = (
        "{ const map = document.querySelector('.map canvas'), [width, height] = [map.width, map.height];"
        "const copy = Object.assign(document.createElement('canvas'), {width, height}).getContext('2d');"
        "copy.drawImage(map, 0, 0); const pixels = copy.getImageData(0, 0, width, height).data;"
        "pixels.filter((value, index) => index % 4 === 3 && value).length / (width * height); }"
    )
    one_class = browser.evaluate(painted)
    browser.evaluate("document.querySelector('[data-class=\"2\"]').click()")
    assert 0.005 < one_class < browser.evaluate(painted) < 0.9
    browser.point_at("[data-map]", 0.5, 0.5)
    box = browser.evaluate("document.querySelector('.tip').getBoundingClientRect().toJSON()")
    assert box["left"] >= 0
    assert box["right"] <= 390


def test_map_is_walked_with_the_arrow_keys(browser, pages):
    browser.open(pages["minimal"], width=1440)
    browser.evaluate("document.querySelector('[data-map]').focus()")
    across = "parseFloat(document.querySelector('.ring').style.left)"
    browser.press("ArrowRight")
    start = browser.evaluate(across)
    browser.press("ArrowRight")
    assert browser.evaluate(across) > start
    assert browser.evaluate("document.querySelector('.map-readout').textContent").startswith("picture ")


def test_theme_is_chosen_by_button_and_address(browser, pages):
    ground = "getComputedStyle(document.body).backgroundColor"
    browser.open(pages["single step"], width=1440)
    light = browser.evaluate(ground)
    browser.evaluate("document.querySelector('.theme').click()")
    dark = browser.evaluate(ground)
    assert light != dark
    browser.open(pages["single step"], width=1440)
    assert browser.evaluate(ground) == dark, "the choice is kept"
    browser.open(pages["single step"], width=1440, query="?theme=light")
    assert browser.evaluate(ground) == light
    browser.evaluate("localStorage.clear()")


def test_names_from_outside_run_nothing(browser, tmp_path):
    evil = "<img src=x onerror=window.ran=1></script><script>window.ran=2</script>"
    folder = make_run(tmp_path)
    content = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(content | {"name": evil, "warnings": [evil]}))
    with np.load(folder / "diagnostics.npz") as archive:
        arrays = dict(archive)
    np.savez(folder / "diagnostics.npz", **(arrays | {"map_name": np.array([evil] * 700)}))
    browser.open(build_report(folder), width=1440)
    browser.point_at("[data-map]", 0.5, 0.5)
    assert evil in browser.evaluate("document.querySelector('.tip').textContent")
    assert browser.evaluate("window.ran") is None


def test_page_reads_without_its_script(browser, pages):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.call("Page.navigate", url=pages["healthy"].as_uri())
        browser.wait_for("document.querySelectorAll('section').length === 14")
        assert browser.evaluate("[...document.querySelectorAll('.js')].every((one) => !one.offsetParent)")
        assert browser.evaluate("document.querySelector('[data-chart=loss] .line').getTotalLength()") > 100
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_page_prints_on_paper(browser, pages):
    browser.open(pages["healthy"], width=1440, dark=True)
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert browser.evaluate("getComputedStyle(document.querySelector('.contents')).display") == "none"
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
