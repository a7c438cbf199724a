"""Losses as pure functions: tensors in, a dictionary of named scalars out.

The entry `loss` is what is minimised; the others are the terms by their paper names, unweighted, each
differentiable on its own. Statistics are those of the global batch: in data-parallel training every process
passes its own rows, equally many, and the averaged gradient is that of one process with all the rows.
"""

from fullrank.losses.barlow_twins import barlow_twins
from fullrank.losses.contrastive import directclr, info_nce, nnclr, nt_xent, nt_xent_predicted
from fullrank.losses.cosine import byol, simsiam
from fullrank.losses.cpc import cpc
from fullrank.losses.masked import beit, dvae, ijepa, mae
from fullrank.losses.msn import msn, msn_targets
from fullrank.losses.nce import nce, nce_log_partition
from fullrank.losses.obow import obow
from fullrank.losses.sinkhorn import sinkhorn
from fullrank.losses.swapped import dino, dino_center, swav, swav_codes
from fullrank.losses.vicreg import variance_covariance, vicreg, vicreg_predicted
from fullrank.losses.vse import vse

__all__ = [
    "barlow_twins",
    "beit",
    "byol",
    "cpc",
    "dino",
    "dino_center",
    "directclr",
    "dvae",
    "ijepa",
    "info_nce",
    "mae",
    "msn",
    "msn_targets",
    "nce",
    "nce_log_partition",
    "nnclr",
    "nt_xent",
    "nt_xent_predicted",
    "obow",
    "simsiam",
    "sinkhorn",
    "swav",
    "swav_codes",
    "variance_covariance",
    "vicreg",
    "vicreg_predicted",
    "vse",
]
