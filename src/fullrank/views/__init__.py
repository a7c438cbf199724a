"""How one image becomes many: random views as data, made in batches on the device."""

from fullrank.views.augment import Augment
from fullrank.views.crop import RandomCrops
from fullrank.views.recipe import Recipe, View, byol_views, moco_v2_views, vicreg_paper_views, vicreg_views, vse_views

__all__ = [
    "Augment",
    "RandomCrops",
    "Recipe",
    "View",
    "byol_views",
    "moco_v2_views",
    "vicreg_paper_views",
    "vicreg_views",
    "vse_views",
]
