"""The multi-crop recipes: how many views, how large, and of what share of the picture."""

import pytest

from fullrank.views import dino_views, msn_views, swav_large_views, swav_views
from fullrank.views.recipe import local_size


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (swav_views, [(224, 2, (0.14, 1.0)), (96, 6, (0.05, 0.14))]),
        (swav_large_views, [(224, 2, (0.08, 1.0))]),
        (dino_views, [(224, 1, (0.4, 1.0)), (224, 1, (0.4, 1.0)), (96, 8, (0.05, 0.4))]),
        (msn_views, [(224, 2, (0.3, 1.0)), (96, 10, (0.05, 0.3))]),
    ],
)
def test_published_crops(recipe, expected):
    assert [(view.size, view.count, view.scale) for view in recipe(224)] == expected


def test_dinos_global_views_differ():
    first, second, local = dino_views(224)
    assert [(view.blur, view.solarize) for view in (first, second, local)] == [(1.0, 0.0), (0.1, 0.2), (0.5, 0.0)]


@pytest.mark.parametrize(
    ("size", "local", "patch"), [(224, 96, 16), (384, 176, 16), (128, 64, 16), (96, 48, 12), (64, 32, 8), (32, 16, 4)]
)
def test_patches_divide_small_views(size, local, patch):
    assert local_size(size) == local
    assert local % patch == 0
