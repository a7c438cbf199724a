"""Small networks, data and batches for any registered method: what the contract is checked on."""

import inspect

import timm
import torch
from torch import nn

from fullrank import methods
from fullrank.methods import Batch, DataFacts
from fullrank.networks import Switches, create_text_encoder
from fullrank.runs.settings import method_options, switch_names

N, CHANNELS, SIZE = 8, 3, 16
FACTS = DataFacts(samples=32, classes=4, image_size=SIZE, channels=CHANNELS, vocabulary=30)
# Small values of options by the names that methods share; an option of another name keeps its default.
SMALL = {
    "expander": "24-24-16",
    "projector": "24-24-16",
    "predictor": "20-16",
    "queue": 24,
    "words": 24,
    "negatives": 12,
    "prototypes": 20,
}

# Options that bring other state or other statistics: these too must survive saving and several processes.
VARIANTS = [
    ("swav", {"queue": 13, "queue_from_epoch": 0}),
    ("dino", {"batch_norm": True, "norm_last_layer": False, "freeze_epochs": 0.0}),
    ("msn", {"sinkhorn": False, "smoothing": 0.1, "entropy": 0.5, "patch_drop": 0.0}),
]


class TinyBackbone(nn.Module):
    """A convolution, a norm, a pool: enough to carry gradients and statistics."""

    num_features = 12

    def __init__(self, channels=CHANNELS):
        super().__init__()
        self.convolution = nn.Conv2d(channels, 12, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(12)

    def forward(self, images):
        return self.forward_intermediates(images)[-1].mean((2, 3))

    def forward_intermediates(self, images, indices=2, intermediates_only=True):
        before = self.convolution(images)
        return [before, self.norm(before).relu()][-indices:]


def backbone(kind, channels=CHANNELS):
    """A tiny network of the kind that the method needs."""
    if kind.default_backbone is None:
        return TinyBackbone(channels)
    small = {"img_size": SIZE, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 0}
    return timm.create_model(kind.default_backbone, in_chans=channels, **small, **kind.backbone_options)


def build(name, seed=0, *, text=False, **options):
    """The method on tiny networks, the second one for captions where the method or `text` says so."""
    torch.manual_seed(seed)
    kind = methods.get(name)
    given = (
        method_options(name) | {key: value for key, value in SMALL.items() if method_options(name).get(key)} | options
    )
    accepted = inspect.signature(kind.__init__).parameters
    if "switches" in accepted:
        given["switches"] = Switches(**{key: given.pop(key) for key in switch_names()})
    if "facts" in accepted:
        given["facts"] = FACTS
    channels = kind.branch_channels or (CHANNELS, CHANNELS)
    if kind.branch_channels:
        given["second"] = backbone(kind, channels[1])
    if kind.second_is_text or text:
        given["second"] = create_text_encoder("gru:embedding=8,width=10", FACTS.vocabulary)
    return kind(backbone(kind, channels[0]), **given)


def batch(name, n=N, seed=1, dtype=torch.float32, *, text=False):
    """Noisy views of random images, of the shapes that the method's recipe makes, with labels.

    Where the second view is text, one view of each and a caption of one to five words.
    """
    generator = torch.Generator().manual_seed(seed)
    views = []
    shared = torch.randn(n, CHANNELS, SIZE, SIZE, generator=generator)
    for view in methods.get(name).views(SIZE):
        for _ in range(view.count):
            size = view.shape(CHANNELS)
            common = nn.functional.interpolate(shared, size[-2:]).view(n, *[1] * (len(size) - 3), *size[-3:])
            views.append((common + 0.3 * torch.randn(n, *size, generator=generator)).to(dtype))
    if text or methods.get(name).second_is_text:
        words = torch.randint(1, FACTS.vocabulary, (n, 5), generator=generator)
        length = torch.randint(1, 6, (n, 1), generator=generator)
        views = [views[0], words * (torch.arange(5) < length)]
    labels = torch.randint(FACTS.classes, (n,), generator=generator)
    return Batch(views, torch.randperm(FACTS.samples, generator=generator)[:n], labels)


def run(method, given, seed=3):
    """One forward pass; what a method draws itself is fixed."""
    torch.manual_seed(seed)
    return method(given)
