import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from fullrank.errors import InputError
from fullrank.report import ReportData
from fullrank.report.content import MOST_MAP_POINTS, loss_terms, read_metrics
from fullrank.report.page import render
from fullrank.report.sections import reference_curve, usage
from tests.unit.report.run_folders import make_minimal, make_multichannel, make_run, make_single_step


def test_whole_run_is_read(tmp_path):
    data = ReportData.from_folder(make_run(tmp_path, "dimensional"))
    y, z = data.branches
    assert (y.name, y.verdict, z.name, z.verdict) == ("Y", "healthy", "Z", "dimensional collapse")
    assert z.remedy.startswith("Raise the covariance coefficient")
    assert z.remarks == ["A single direction holds 61 % of the variance."]
    assert np.isnan(z.measures["uniformity"])
    assert y.deviations.shape == (128,)
    assert z.spectrum.shape == (256,)
    assert z.correlation.shape == (128, 128)
    assert y.untrained_spectrum is not None
    assert z.untrained_spectrum is None
    assert data.metrics["loss"].shape == (312,)
    assert loss_terms(data.metrics) == ["invariance", "variance", "covariance"]
    assert data.views.shape == (6, 3, 32, 32, 3)
    assert data.neighbours.images.shape == (6, 8, 32, 32, 3)
    assert data.map.points.shape == (700, 2)
    assert data.classes[2] == "rings"
    assert data.configuration.startswith("method: vicreg")
    assert [one.name for one in data.factors][:2] == ["shape", "background texture"]


def test_missing_parts_are_absent(tmp_path):
    data = ReportData.from_folder(make_minimal(tmp_path / "minimal"))
    assert data.factors == []
    assert data.classes == []
    assert data.reference is None
    assert data.configuration == ""
    assert data.neighbours.labels is None
    assert data.map.labels is None
    stopped = ReportData.from_folder(make_single_step(tmp_path / "stopped"))
    assert stopped.branches == []
    assert stopped.map is None
    assert stopped.views is None


def test_one_file_is_enough(tmp_path):
    whole = make_run(tmp_path / "whole", pictures=False)
    for name in ("summary.json", "metrics.csv", "diagnostics.npz"):
        folder = tmp_path / name
        folder.mkdir()
        (whole / name).rename(folder / name)
        ReportData.from_folder(folder)


def test_folder_of_no_run_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(
        InputError, match=r"holds no summary\.json, metrics\.csv or diagnostics\.npz: give the folder of a run"
    ):
        ReportData.from_folder(tmp_path)


@pytest.mark.parametrize("name", ["summary.json", "diagnostics.npz", "reference.json", "backbone.safetensors"])
def test_damaged_file_is_named(tmp_path, name):
    folder = make_multichannel(tmp_path)
    (folder / name).write_bytes((folder / name).read_bytes()[:70])
    with pytest.raises(InputError, match=name):
        ReportData.from_folder(folder)


class Trap:
    def __reduce__(self):
        return exit, (3,)


def test_arrays_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "diagnostics.npz", Y_spectrum=np.array([Trap()], dtype=object))
    with pytest.raises(InputError, match=r"diagnostics.npz' is not an archive of plain arrays"):
        ReportData.from_folder(tmp_path)


def test_array_of_another_shape_is_named(tmp_path):
    np.savez(tmp_path / "diagnostics.npz", views=np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match=r"'views' has shape \(4, 8, 8, 3\), expected 5 axes"):
        ReportData.from_folder(tmp_path)


def test_empty_array_is_absent(tmp_path):
    np.savez(tmp_path / "diagnostics.npz", views=np.zeros((0, 3, 8, 8, 3), np.uint8), map_xy=np.zeros((0, 2)))
    data = ReportData.from_folder(tmp_path)
    assert data.views is None
    assert data.map is None


def test_metrics_keep_the_last_row_of_a_step_and_leave_holes(tmp_path):
    text = "step,loss,knn\n10,3.5,\n20,3.0,41\n30,nan,\n20,2.5,\nx,1,1\n40,inf,50\n50"
    (tmp_path / "metrics.csv").write_text(text)
    metrics = read_metrics(tmp_path / "metrics.csv")
    np.testing.assert_array_equal(metrics["step"], [10, 20, 30, 40, 50])
    np.testing.assert_array_equal(metrics["loss"], [3.5, 2.5, np.nan, np.inf, np.nan])
    np.testing.assert_array_equal(metrics["knn"], [np.nan, np.nan, np.nan, 50, np.nan])


def test_empty_metrics_are_no_metrics(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss\n")
    assert read_metrics(tmp_path / "metrics.csv") == {}


def test_large_map_is_thinned_and_cleared_of_holes(tmp_path):
    points = np.random.default_rng(0).standard_normal((4321, 2))
    points[::7, 1] = np.nan
    labels = np.arange(4321)
    names = np.array([f"{index}.png" for index in range(4321)])
    np.savez(tmp_path / "diagnostics.npz", map_xy=points, map_label=labels, map_name=names)
    found = ReportData.from_folder(tmp_path).map
    assert 0.5 * MOST_MAP_POINTS < len(found.points) <= MOST_MAP_POINTS
    np.testing.assert_array_equal(found.points, points[found.labels])
    assert list(found.names) == [f"{label}.png" for label in found.labels]
    assert np.isfinite(found.points).all()


def test_map_whose_labels_do_not_fit_is_refused(tmp_path):
    np.savez(tmp_path / "diagnostics.npz", map_xy=np.zeros((9, 2)), map_label=np.zeros(8, int))
    with pytest.raises(InputError, match=r"'map_xy' has 9 samples, its labels or pictures \[8\]"):
        ReportData.from_folder(tmp_path)


def test_the_spectrum_ends_where_the_mean_was_taken_out(tmp_path):
    result = {"name": "a.npy", "verdict": "healthy", "measures": {"possible_rank": 2}}
    data = ReportData.from_diagnosis(result, {"spectrum": np.array([3.0, 2.0, 1e-9])})
    np.testing.assert_array_equal(data.branches[0].spectrum, [3.0, 2.0])


@pytest.mark.parametrize(("steps", "drawn"), [(312, True), (200, True), (155, False)])
def test_a_healthy_run_is_drawn_behind_one_of_its_length(steps, drawn, tmp_path):
    folder = make_run(tmp_path)
    (folder / "reference.json").write_text(
        json.dumps(json.loads((folder / "reference.json").read_text()) | {"steps": 312})
    )
    data = ReportData.from_folder(folder)
    shorter = dataclasses.replace(data, summary={**data.summary, "steps": steps})
    assert (reference_curve(shorter, "loss") is not None) == drawn


def test_weights_say_how_timm_builds_them(tmp_path):
    assert ReportData.from_folder(make_multichannel(tmp_path)).creation == {"num_classes": 0, "in_chans": 13}


@pytest.mark.parametrize(
    "record", [{"creation": None}, {"creation": None, "as_trained": False}, {"creation": {}, "as_trained": False}]
)
def test_backbones_that_timm_builds_otherwise_are_opened_by_the_library(record, tmp_path):
    folder = make_run(tmp_path)
    record = {"architecture": "test_resnet", **record}
    save_file({}, folder / "backbone.safetensors", metadata={"fullrank": json.dumps(record)})
    data = ReportData.from_folder(folder)
    assert data.creation is None
    assert "load_run('shapes-healthy')" in usage(data)
    assert "(images - mean) / std" in usage(data)
    page = render(data)
    assert "create_model" not in page
    assert "timm opens" not in page


def test_flat_and_nested_diagnosis_read_the_same():
    verdict = {"verdict": "healthy", "reason": "wide", "remedy": "", "measures": {"effective_rank": 3.0}}
    spectrum = np.array([3.0, 2.0, 1.0])
    flat = ReportData.from_diagnosis({"name": "a.npy", **verdict}, {"spectrum": spectrum})
    nested = ReportData.from_diagnosis(
        {"name": "a.npy", "verdict": {"vectors": verdict}}, {"vectors_spectrum": spectrum}
    )
    assert flat.name == nested.name == "a.npy"
    for data in (flat, nested):
        (one,) = data.branches
        assert (one.verdict, one.reason, one.measures) == ("healthy", "wide", {"effective_rank": 3.0})
        np.testing.assert_array_equal(one.spectrum, spectrum)


def test_diagnosis_keeps_the_names_of_arrays():
    verdicts = {name: {"verdict": "healthy", "measures": {}} for name in ("layer 3", "Z")}
    data = ReportData.from_diagnosis({"verdict": verdicts}, {"layer 3_std": np.ones(4)})
    assert [one.name for one in data.branches] == ["Z", "layer 3"]
    assert data.branches[1].deviations.shape == (4,)


def test_summary_of_another_type_is_refused(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps([1, 2]))
    with pytest.raises(InputError, match="holds a list, expected a JSON object"):
        ReportData.from_folder(tmp_path)
