"""BEiT: l = mean over hidden patches i of -log softmax(w(f(x with mask tokens)_i))[c_i], c = tokenizer(x).

Bao, Dong, Piao, Wei: "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022, https://arxiv.org/abs/2106.08254; the
authors' code is microsoft/unilm, beit.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fullrank import losses
from fullrank.distributed import draw_seeds
from fullrank.methods.method import Batch, DataFacts, Method, Optimization, Step, register
from fullrank.networks import ReplacingEncoder, Tokenizer
from fullrank.networks.masked import draw_beit, draw_weights
from fullrank.schedules import Progress, Schedule
from fullrank.views import beit_views
from fullrank.views.masks import Draws, region

CLIP = 3.0  # of the norm of all gradients together


@register("beit")
class BEiT(Method):
    """One view; from the patches around it a transformer tells the visual tokens of a hidden region.

    Y is the norm of the mean of the patch tokens, as in the authors' fine-tuning; there is no projector, so Z is Y.

    The published tokens are those of DALL-E's autoencoder, trained on 250 million pictures. Here the tokenizer learns
    from the data at hand: `kmeans` takes the patches of the first batch and is then fixed; `dvae` is trained alone, at
    the highest learning rate, for a share of the run, and the rest waits for it. The code's drop path of 0.1 is
    `--backbone_options.drop_path_rate 0.1`.

    Args:
        backbone: timm's BEiT; its weights are drawn anew.
        mask_ratio: share of the patches that is hidden at most: 75 of 196.
        smallest_block: share of the patches in the smallest block of the hidden region: 16 of 196.
        tokenizer: kmeans, centres of patches without their mean and contrast, or dvae, a discrete autoencoder.
        codes: how many visual tokens there are; 8192 in DALL-E's autoencoder.
        tokenizer_share: share of the run in which a dvae is trained before the rest.
        facts: mean and std of the pixels, which the tokenizer sees as they were.
    """

    network: ReplacingEncoder
    tokenizer: Tokenizer
    family = "masked image modelling"
    paper = "Bao et al., ICLR 2022, arXiv:2106.08254"
    views = staticmethod(beit_views)
    published = Optimization(
        "adamw",
        learning_rate=1.875e-4,
        weight_decay=0.05,
        batch_size=2048,
        epochs=800,
        schedule=Schedule(warmup_epochs=10, end_factor=1 / 150, reaches_peak=True),
        no_decay=("*.cls_token", "*.pos_embed", "tokenizer.*"),
        constant_rate=("tokenizer.*",),
    )
    default_backbone = "beit_base_patch16_224"
    backbone_options = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}  # noqa: RUF012
    no_accumulation = "its loss is the mean over all hidden patches, and every picture hides another number"
    one_network = "it looks at one view"

    def __init__(
        self,
        backbone: nn.Module,
        *,
        mask_ratio: float = 0.383,
        smallest_block: float = 0.082,
        tokenizer: Literal["kmeans", "dvae"] = "kmeans",
        codes: int = 512,
        tokenizer_share: float = 0.1,
        facts: DataFacts = DataFacts(),  # noqa: B008 - frozen
    ) -> None:
        network = ReplacingEncoder(backbone)
        super().__init__(network)
        self.head = nn.Linear(network.width, codes)
        draw_weights(self.head, draw_beit)
        self.tokenizer = Tokenizer(tokenizer, codes, network, facts.mean, facts.std)
        self.tokenizer_share = tokenizer_share
        patches = math.prod(network.grid)
        self.hidden = {"goal": max(1, round(mask_ratio * patches)), "smallest": max(1, round(smallest_block * patches))}

    def forward(self, batch: Batch) -> Step:
        """Hide a region and tell its tokens; train the tokenizer while it is its turn."""
        images = batch.only_view
        codes, hidden = self.tokenizer(images), self.draw_masks(len(images)).to(images.device)
        tokens = self.network(images, hidden)
        logits = self.head(self.network.backbone.fc_norm(tokens[:, 1:][hidden]))
        of_tokenizer = self.tokenizer_terms(images, batch.progress)
        terms = of_tokenizer | losses.beit(logits, codes[hidden])
        representation = self.network.pool(tokens)
        return Step(terms.pop("loss") + of_tokenizer["loss"], terms, [representation], [representation])

    def tokenizer_terms(self, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """The autoencoder's loss while it is trained; later 0 of all its parameters, which every process waits for."""
        if self.trains_tokenizer(progress):
            return losses.dvae(*self.tokenizer.reconstruct(images))
        parameters = self.tokenizer.parameters()
        return {"loss": 0 * sum((parameter.sum() for parameter in parameters), start=images.new_zeros(()))}

    def draw_masks(self, pictures: int) -> Tensor:
        """The hidden region of each picture of this process, (n, patches)."""
        draws = [Draws(torch.Generator().manual_seed(seed)) for seed in draw_seeds(pictures)]
        regions = [region(self.network.grid, **self.hidden, draws=each) for each in draws]
        return torch.from_numpy(np.stack(regions)).flatten(1)

    def trains_tokenizer(self, progress: Progress) -> bool:
        """Whether this step is one of the tokenizer's."""
        return self.tokenizer.is_trained and progress.share < self.tokenizer_share

    def before_step(self, progress: Progress) -> None:
        """Drop the gradients of what is not trained now, then clip the norm of all others together."""
        for waiting in [self.network, self.head] if self.trains_tokenizer(progress) else [self.tokenizer]:
            waiting.zero_grad()
        nn.utils.clip_grad_norm_(self.parameters(), CLIP)

    def compilable(self) -> list[nn.Module]:
        """The encoder."""
        return [self.network]
