"""From tables to runs at the scale of other data."""

import pytest

from fullrank.errors import InputError
from fullrank.runs.build import text_encoder_of
from fullrank.runs.settings import resolve
from fullrank.tables import names, open_table
from fullrank.tables.expand import Judging, expand
from fullrank.training.prepare import view_recipe
from fullrank.views import View

SHAPES = {"data": "shapes"}  # its recipe: widths of 512, batches of 128, test_resnet


def jobs_of(name, base=None, size=32, downstream=None):
    return expand(open_table(name), base or SHAPES, size, Judging(downstream or {}))[0]


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("base", [SHAPES, {"data": "digits"}, {"data": "photos/", "backbone": "resnet50"}])
def test_every_cell_has_one_run_that_can_be_resolved(name, base):
    table, jobs = open_table(name), jobs_of(name, base, 224 if "backbone" in base else 32)
    assert len({job.name for job in jobs}) == len(jobs)
    filled = sorted(place for job in jobs for place in job.cells)
    possible = [divmod(n, len(table.columns)) for n, cell in enumerate(table.cells()) if cell.published != "x"]
    assert filled == possible
    for job in jobs:
        settings = resolve({**base, **job.settings})
        assert settings.data == base["data"]
        for view in settings.views or []:
            View.from_dict(view)


def test_cells_of_the_same_settings_share_a_run():
    [vicreg] = [job for job in jobs_of("imagenet") if job.name == "vicreg"]
    assert len(vicreg.cells) == 6  # top-1 and top-5 of three evaluations
    assert [each.get("percent") for each in vicreg.judged] == [None, 1, 10]


def test_widths_are_in_proportion_to_the_recipe_s():
    widths = [resolve({**SHAPES, **job.settings}).expander for job in jobs_of("expander")]
    assert widths == [f"{d}-{d}-{d}" for d in (16, 32, 64, 128, 256, 512, 1024)]
    wide = {"data": "photos/"}  # the default recipe: 2048
    assert [job.settings["expander"].split("-")[0] for job in jobs_of("expander", wide)][-1] == "4096"


def test_batches_are_in_proportion_to_the_recipe_s():
    assert [job.settings["batch_size"] for job in jobs_of("batch-size")] == [8, 16, 32, 64, 128, 256]
    larger = [job.settings["batch_size"] for job in jobs_of("batch-size", SHAPES | {"batch_size": 256})]
    assert larger == [16, 32, 64, 128, 256, 512]


def test_the_predictor_is_a_quarter_as_wide_inside():
    predictors = {job.settings["predictor"] for job in jobs_of("regularization") if "predictor" in job.settings}
    assert predictors == {"", "128-512"}


def test_another_network_beside_the_first():
    seconds = {
        job.settings.get("backbone2") for job in jobs_of("weight-sharing", {"data": "x", "backbone": "resnet50"})
    }
    assert seconds == {None, "resnet101", "vit_small_patch16_224"}
    with pytest.raises(InputError, match=r"no larger network .* beside resnet152: take --backbone resnet50"):
        jobs_of("weight-sharing", {"data": "x", "backbone": "resnet152"})


def views_of(jobs, name):
    [job] = [job for job in jobs if job.name == name]
    return [(view["size"], view["count"], view["jitter"]) for view in job.settings["views"]]


def test_views_with_and_without_small_ones():
    own = [0.6, 0.6, 0.6, 0.5]  # the colours of the recipe
    jobs = jobs_of("cost")
    assert views_of(jobs, "swav") == [(32, 1, own), (32, 1, own)]
    assert views_of(jobs, "swav-multi-crop") == [(32, 1, own), (32, 1, own), (16, 6, own)]
    published = jobs_of("cost", {"data": "photos/"}, 224)
    assert [(size, count) for size, count, _ in views_of(published, "swav")] == [(224, 2)]
    assert [(size, count) for size, count, _ in views_of(published, "swav-multi-crop")] == [(224, 2), (96, 6)]


def test_columns_on_other_data_sets():
    table = open_table("downstream")
    judging = Judging({"VOC07": "voc.tar", "COCO": "coco/"}, detection_steps=500)
    jobs, notes = expand(table, SHAPES, 32, judging)
    assert jobs[0].judged == (
        {"protocol": "svm", "data": "voc.tar"},
        {"protocol": "detection", "detector": "fpn", "data": "coco/", "steps": 500},
    )
    assert notes == [
        "Left empty for want of data: --downstream.Places205 DATA --downstream.iNat18 DATA --downstream.VOC07+12 DATA.",
        "What evaluations on other data sets take is in none of the times.",
    ]
    jobs, notes = expand(table, SHAPES, 32, Judging())
    assert jobs[0].judged == ({"protocol": "linear"}, {"protocol": "svm"})
    assert notes[0] == "Judged on the labels of the training data for want of others: Places205, VOC07, iNat18."
    with pytest.raises(InputError, match="unknown data set of downstream 'VOC': did you mean 'VOC07'"):
        expand(table, SHAPES, 32, Judging({"VOC": "voc.tar"}))


def test_without_labels_there_are_verdicts_alone():
    jobs, notes = expand(open_table("imagenet"), SHAPES, 32, Judging(known="nothing"))
    assert {job.judged for job in jobs} == {()}
    assert "supervised" not in {job.name for job in jobs}
    assert len(jobs) == 14
    assert notes == [
        "The data has no labels: there is no accuracy, and the verdict alone decides.",
        "Supervised is left out: it takes one label a picture.",
    ]
    jobs, notes = expand(open_table("multimodal"), SHAPES, 32, Judging(known="nothing"))
    assert jobs[0].judged == ({"protocol": "retrieval"},)  # which needs captions alone


def test_of_several_labels_a_picture_the_mean_average_precision_is_taken():
    jobs, notes = expand(open_table("coefficients"), SHAPES, 32, Judging(known="several"))
    assert jobs[0].judged == ({"protocol": "linear"},)
    assert notes == ["Pictures have several labels: mean average precision stands in place of top-1."]


@pytest.mark.parametrize("base", [SHAPES, {"data": "photos/", "recipe": "vse-coco"}])
def test_the_losses_on_captions_are_compared_under_the_same_conditions(base):
    size = 32 if base is SHAPES else 224
    contrastive, *others = (resolve({**base, **job.settings}) for job in jobs_of("multimodal", base, size))
    views = [view.to_dict() for view in view_recipe(contrastive, size)]
    assert [other.method for other in others] == ["barlowtwins", "vicreg"]
    for other in others:
        assert [view.to_dict() for view in view_recipe(other, size)] == views
        assert text_encoder_of(other) == text_encoder_of(contrastive)
        assert (other.epochs, other.batch_size) == (contrastive.epochs, contrastive.batch_size)


def test_all_tables_have_multi_crop_where_the_slide_says_so():
    for name in ("imagenet", "downstream", "cost"):
        assert views_of(jobs_of(name), "swav-multi-crop")[-1][:2] == (16, 6)


def test_a_table_of_widths_needs_widths():
    with pytest.raises(InputError, match=r"expander is none: what this table compares is in proportion to its widths"):
        jobs_of("expander", SHAPES | {"expander": "none"})
