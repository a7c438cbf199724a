"""What views a method takes, and what a backbone can take of them: one line for what it cannot."""

import dataclasses
import re

import pytest

import fullrank
from fullrank import methods
from fullrank.errors import InputError

SMALL = {"data": "shapes:N=96,size=32", "batch_size": 32, "steps": 1, "report": False, "logger": "none"}
IMAGE = {"scale": [0.3, 1.0]}
OTHER_CHOICES = [{"method": "dino", "backbone": "test_vit"}, {"method": "dino", "weight_decay": 0.0}]
COUNTED = [name for name in methods.names() if methods.get(name).fewest_views is None]
FREE = [name for name in methods.names() if methods.get(name).fewest_views is not None]


def times(recipe, count):
    return (*recipe[:-1], dataclasses.replace(recipe[-1], count=count))


@pytest.mark.parametrize("name", methods.names())
def test_published_views_are_taken(name):
    kind = methods.get(name)
    kind.check_views(kind.views(64))


@pytest.mark.parametrize("name", COUNTED)
def test_more_or_fewer_views_than_published_are_refused(name):
    kind = methods.get(name)
    published = kind.views(64)
    for recipe in (times(published, published[-1].count + 1), published[:-1]):
        with pytest.raises(InputError, match=f"{kind.__name__} takes {sum(view.count for view in published)} view"):
            kind.check_views(recipe)


@pytest.mark.parametrize("name", FREE)
def test_multi_crop_has_a_fewest_number_of_views(name):
    kind = methods.get(name)
    first = kind.views(64)[:1]
    kind.check_views(times(first, 2))
    kind.check_views(times(first, 12))
    with pytest.raises(InputError, match="takes 2 views or more; this view recipe makes 1"):
        kind.check_views(times(first, 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "byol", "views": [IMAGE]}, "BYOL takes 2 views (image, image); this view recipe makes 1 (image)"),
        ({"method": "pirl", "views": [IMAGE, IMAGE]}, "PIRL takes 2 views (image, puzzle)"),
        ({"method": "vse", "views": [IMAGE, IMAGE]}, "takes 1 view (image)"),
        ({"method": "vicreg", "backbone2": "gru", "views": [IMAGE] * 3}, "VICReg takes 2 views"),
        ({"method": "simclr", "views": [IMAGE, {**IMAGE, "size": 16}]}, "views of [32, 16] px share one pass"),
        ({"method": "infomin", "backbone": "test_vit"}, "cannot take views of 10 x 10 px"),
        ({"method": "cpcv2", "backbone": "convnext_atto"}, "cannot take views of 16 x 16 px"),
        ({"method": "mae", "backbone": "test_resnet"}, "mae needs a vision transformer"),
        ({"method": "beit", "backbone": "test_vit"}, "beit needs a network such as beit_base_patch16_224"),
        ({"method": "obow", "levels": 9}, "levels is 9: give 1 to 5"),
        ({"method": "moco", "queue": 0}, "a queue of 0 embeddings"),
        ({"method": "moco", "queue": -5}, "a queue of -5 embeddings"),
        ({"method": "vse", "views": [{**IMAGE, "count": 2}]}, "takes 1 view (image)"),
        ({"method": "mae", "mask_ratio": 1.0}, "mask_ratio 1.0 of"),
        ({"method": "msn", "patch_drop": 1.0}, "patch_drop 1.0 leaves none of"),
        ({"method": "swav", "assigned": ()}, "assigned is []: give the numbers"),
        ({"method": "swav", "assigned": (0, 2)}, "assigned is [0, 2], and the 2 views count from 0"),
        ({"method": "msn", "patch_drop": 0.99}, "patch_drop 0.99 leaves none of"),
    ],
)
def test_one_line_for_what_cannot_be(tmp_path, options, words):
    with pytest.raises(InputError, match=re.escape(words)):
        fullrank.train(**SMALL, **options, output=str(tmp_path / "run"))


@pytest.mark.parametrize(
    "options", [{"method": "dino", "backbone": "test_vit"}, {"method": "dino", "weight_decay": 0.0}]
)
def test_other_choices_train(tmp_path, options):
    assert fullrank.train(**SMALL, **options, output=str(tmp_path / "run")).summary["finished"]
