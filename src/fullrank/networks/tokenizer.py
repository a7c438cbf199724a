"""BEiT's tokenizers: pictures with pixels in [0, 1] -> a code for every patch, without gradient.

`PatchKMeans` needs no training and `DiscreteVAE` some; both keep all that they know in parameters and buffers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fullrank import distributed
from fullrank.errors import unknown
from fullrank.networks.masked import MaskedEncoder
from fullrank.networks.patches import patchify, standardise_patches

MARGIN = 0.1  # of pixel values at both ends, in front of DALL-E's autoencoder and ours
PATCHES_PER_CODE = 64  # that k-means looks at, at most about
ROUNDS = 20  # of k-means
FLAT = 1e-3  # added to a patch's variance: contrasts far below 0.03 of the full scale do not make a pattern
ROWS = 8192  # patches whose distances are computed at once
MOST_LEVELS = 3  # of the autoencoder: DALL-E's sees 8 x 8 pixels a code


def map_pixels(pixels: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """[0, 1] -> [0.1, 0.9]. Code: microsoft/unilm, beit/dall_e/utils.py."""
    return (1 - 2 * MARGIN) * pixels + MARGIN


def unmap_pixels(mapped: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The inverse of `map_pixels`, clipped to [0, 1]: reconstructions as pictures."""
    return ((mapped - MARGIN) / (1 - 2 * MARGIN)).clamp(0, 1)


class PatchKMeans(nn.Module):
    """The nearest of so many centres of patches, each patch without its mean and contrast.

    The centres are those of k-means (k-means++, then 20 rounds) on the first batch that it sees, the same whether one
    process has the batch or several share it; they stay as they are from there on.
    """

    centres: Tensor
    fitted: Tensor

    def __init__(self, codes: int, *, patch: tuple[int, int], grid: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.patch, self.grid = patch, grid
        self.register_buffer("centres", torch.zeros(codes, math.prod(patch) * channels))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self._is_fitted = False  # what the buffer says, once it says so: a look at it may wait for the device

    @torch.no_grad()
    def forward(self, pixels: Float[Tensor, "n c h w"]) -> Int[Tensor, "n y x"]:
        """Codes of the patches; the first call makes the codes."""
        patches = standardise_patches(patchify(pixels, self.patch), FLAT)
        self._is_fitted = self._is_fitted or bool(self.fitted)
        if not self._is_fitted:
            self.centres.copy_(k_means(self._sample(patches), len(self.centres)))
            self.fitted.fill_(True)
        return nearest(patches.flatten(0, 1), self.centres).view(len(pixels), *self.grid)

    def _sample(self, patches: Float[Tensor, "n t p"]) -> Float[Tensor, "s p"]:
        """Some patches of every picture of all processes, equally many of each."""
        n, count = patches.shape[:2]
        each = min(count, math.ceil(PATCHES_PER_CODE * len(self.centres) / (n * distributed.world_size())))
        chosen = distributed.draw_rows(n, lambda rows: torch.rand(rows, count)).argsort(1)[:, :each]
        places = chosen.to(patches.device).unsqueeze(2).expand(-1, -1, patches.shape[2])
        return distributed.gather_rows(patches.gather(1, places)).flatten(0, 1)


def k_means(rows: Float[Tensor, "s p"], codes: int) -> Float[Tensor, "k p"]:
    """Centres by k-means from the start of k-means++; draws come from torch's default CPU generator.

    With fewer different rows than codes, some centres are the same and only the first of them is used.
    """
    centres = spread_rows(rows, torch.rand(codes, dtype=torch.float64).to(rows.device))
    for _ in range(ROUNDS):
        code = nearest(rows, centres)
        count = code.bincount(minlength=codes).unsqueeze(1)
        means = torch.zeros_like(centres).index_add_(0, code, rows) / count.clamp_min(1)
        centres = torch.where(count > 0, means, centres)
    return centres


def spread_rows(rows: Float[Tensor, "s p"], draws: Float[Tensor, " k"]) -> Float[Tensor, "k p"]:
    """k-means++: rows drawn one by one, each with a probability proportional to its squared distance to those before.

    `draws` in [0, 1) choose along the cumulative probability; the first one chooses among all rows alike.
    """
    distance = torch.ones(len(rows), dtype=torch.float64, device=rows.device)
    chosen: list[Tensor] = []
    for draw in draws:
        total = distance.cumsum(0)
        place = torch.searchsorted(total, draw * total[-1], right=True).clamp_max(len(rows) - 1)
        chosen.append(rows[place])
        latest = (rows - chosen[-1]).square().sum(1).double()
        distance = latest if len(chosen) == 1 else torch.minimum(distance, latest)
    return torch.stack(chosen)


def nearest(rows: Float[Tensor, "s p"], centres: Float[Tensor, "k p"]) -> Int[Tensor, " s"]:
    """The number of the nearest centre of every row, the first where several are."""
    with torch.autocast(rows.device.type, enabled=False):
        centres = centres.to(rows.dtype)
        half = centres.square().sum(1) / 2
        return torch.cat([(half - part @ centres.T).argmin(1) for part in rows.split(ROWS)])


class ResidualBlock(nn.Module):
    """Three convolutions beside an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, maps: Float[Tensor, "n w y x"]) -> Float[Tensor, "n w y x"]:
        """The sum of both."""
        return self.net(maps) + maps


class DiscreteVAE(nn.Module):
    """A convolutional autoencoder through one of so many codes a place: argmax at last, Gumbel-softmax in training.

    Each level halves the sides with a 4 x 4 convolution and a residual block; the decoder mirrors the encoder.
    Code: microsoft/unilm, beit/modeling_discrete_vae.py `DiscreteVAE`, whose parameters have these names.

    Args:
        codes: how many there are.
        grid: rows and columns of codes; pictures are resized to `2**levels` pixels a code.
        levels: halvings.
        width: channels inside.
        code_width: of the vector that stands for a code.
        channels: of the pictures.
        temperature: of the Gumbel-softmax.
        straight_through: whether the decoder gets the drawn code alone, with the gradient of the soft one.
    """

    def __init__(
        self,
        codes: int,
        *,
        grid: tuple[int, int],
        levels: int,
        width: int = 64,
        code_width: int = 512,
        channels: int = 3,
        temperature: float = 0.9,
        straight_through: bool = False,
    ) -> None:
        super().__init__()
        self.size = (grid[0] * 2**levels, grid[1] * 2**levels)
        self.temperature, self.straight_through = temperature, straight_through
        down, up = [channels, *[width] * (levels - 1)], [code_width, *[width] * (levels - 1)]
        self.encoder, self.decoder = nn.Sequential(), nn.Sequential()
        for inside, outside in zip(down, up, strict=True):
            self.encoder.append(nn.Sequential(nn.Conv2d(inside, width, 4, stride=2, padding=1), nn.ReLU()))
            self.encoder.append(ResidualBlock(width))
            self.decoder.append(nn.Sequential(nn.ConvTranspose2d(outside, width, 4, stride=2, padding=1), nn.ReLU()))
            self.decoder.append(ResidualBlock(width))
        self.encoder.append(nn.Conv2d(width, codes, 1))
        self.decoder.append(nn.Conv2d(width, channels, 1))
        self.codebook = nn.Embedding(codes, code_width)

    @torch.no_grad()
    def forward(self, pixels: Float[Tensor, "n c h w"]) -> Int[Tensor, "n y x"]:
        """The most likely code at every place."""
        with torch.autocast(pixels.device.type, enabled=False):
            return self.encoder(self.prepare(pixels)).argmax(1)

    def prepare(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c a b"]:
        """Pixels as the autoencoder sees them: resized, between 0.1 and 0.9."""
        if pixels.shape[-2:] != self.size:
            pixels = nn.functional.interpolate(pixels, self.size, mode="bicubic", antialias=True).clamp(0, 1)
        return map_pixels(pixels)

    def reconstruct(
        self, images: Float[Tensor, "n c a b"], exponential: Float[Tensor, "n k y x"] | None = None
    ) -> tuple[Float[Tensor, "n c a b"], Float[Tensor, "n k y x"]]:
        """Prepared images through codes drawn at random, and the logits; `exponential` draws make the noise."""
        logits = self.encoder(images)
        noise = -(draw_exponential(logits) if exponential is None else exponential).log()
        choice = ((logits + noise) / self.temperature).softmax(1)
        if self.straight_through:
            drawn = nn.functional.one_hot(choice.argmax(1), choice.shape[1]).movedim(-1, 1).to(choice.dtype)
            choice = drawn - choice.detach() + choice
        vectors = torch.einsum("nkyx,kd->ndyx", choice, self.codebook.weight)
        return self.decoder(vectors), logits


def draw_exponential(like: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Draws of the exponential distribution on the device, each row from a seed of its own (`draw_seeds`)."""
    draws = torch.empty_like(like, dtype=torch.float32)
    for row, seed in zip(draws, distributed.draw_seeds(len(like)), strict=True):
        row.exponential_(generator=torch.Generator(like.device).manual_seed(seed))
    return draws.to(like.dtype)


class Tokenizer(nn.Module):
    """Views -> codes of their patches, by the tokenizer of a name; it sees pixels as they were before standardisation.

    Args:
        kind: kmeans or dvae.
        codes: how many there are.
        encoder: for whose patches.
        mean: of the pixels, which was subtracted from the views.
        std: of the pixels, which views were divided by.

    Raises:
        InputError: another name.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, kind: str, codes: int, encoder: MaskedEncoder, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.model: nn.Module
        if kind == "kmeans":
            self.model = PatchKMeans(codes, patch=encoder.patch, grid=encoder.grid, channels=encoder.channels)
        elif kind == "dvae":
            levels = max(1, min(MOST_LEVELS, int(math.log2(min(encoder.patch)))))
            self.model = DiscreteVAE(codes, grid=encoder.grid, levels=levels, channels=encoder.channels)
        else:
            raise unknown("tokenizer", kind, ("kmeans", "dvae"))
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, views: Float[Tensor, "n c h w"]) -> Int[Tensor, "n t"]:
        """The code of every patch."""
        return self.model(views * self.std + self.mean).flatten(1)

    @property
    def is_trained(self) -> bool:
        """Whether it has parameters to be trained."""
        return isinstance(self.model, DiscreteVAE)

    def reconstruct(self, views: Float[Tensor, "n c h w"]) -> tuple[Tensor, Tensor, Tensor]:
        """What the autoencoder is trained on: prepared pictures, their reconstructions, logits of the codes."""
        images = self.model.prepare(views * self.std + self.mean)  # type: ignore[operator]
        return images, *self.model.reconstruct(images)  # type: ignore[operator]
