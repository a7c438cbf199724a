"""How one image becomes many: random views as data, made in batches on the device."""

from fullrank.views.augment import Augment
from fullrank.views.crop import RandomCrops
from fullrank.views.patches import cpcv2_views, obow_views
from fullrank.views.recipe import (
    Recipe,
    View,
    beit_views,
    byol_views,
    cmc_views,
    dino_views,
    ijepa_views,
    infomin_views,
    mae_views,
    moco_v1_views,
    moco_v2_views,
    msn_views,
    pirl_views,
    simclr_views,
    supervised_views,
    swav_large_views,
    swav_views,
    vicreg_paper_views,
    vicreg_views,
    vse_views,
)

__all__ = [
    "Augment",
    "RandomCrops",
    "Recipe",
    "View",
    "beit_views",
    "byol_views",
    "cmc_views",
    "cpcv2_views",
    "dino_views",
    "ijepa_views",
    "infomin_views",
    "mae_views",
    "moco_v1_views",
    "moco_v2_views",
    "msn_views",
    "obow_views",
    "pirl_views",
    "simclr_views",
    "supervised_views",
    "swav_large_views",
    "swav_views",
    "vicreg_paper_views",
    "vicreg_views",
    "vse_views",
]
