"""How one image becomes many: random views as data, made in batches on the device."""

from fullrank.views.augment import Augment
from fullrank.views.crop import RandomCrops
from fullrank.views.recipe import (
    Recipe,
    View,
    byol_views,
    cmc_views,
    infomin_views,
    moco_v1_views,
    moco_v2_views,
    pirl_views,
    simclr_views,
    supervised_views,
    vicreg_paper_views,
    vicreg_views,
)

__all__ = [
    "Augment",
    "RandomCrops",
    "Recipe",
    "View",
    "byol_views",
    "cmc_views",
    "infomin_views",
    "moco_v1_views",
    "moco_v2_views",
    "pirl_views",
    "simclr_views",
    "supervised_views",
    "vicreg_paper_views",
    "vicreg_views",
]
