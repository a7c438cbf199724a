"""Losses as pure functions: tensors in, a dictionary of named scalars out.

The entry `loss` is what is minimised; the others are the terms by their paper names, unweighted, each
differentiable on its own. Statistics are those of the global batch: in data-parallel training every process
passes its own rows, equally many, and the averaged gradient is that of one process with all the rows.
"""

from fullrank.losses.barlow_twins import barlow_twins
from fullrank.losses.cosine import byol, simsiam
from fullrank.losses.vicreg import variance_covariance, vicreg, vicreg_predicted
from fullrank.losses.vse import vse

__all__ = ["barlow_twins", "byol", "simsiam", "variance_covariance", "vicreg", "vicreg_predicted", "vse"]
