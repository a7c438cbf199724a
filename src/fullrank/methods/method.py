"""What a method is: a network around a loss, with its views and its published recipe as data.

Only this contract is known to the trainer; a new method is one file beside this one and one `@register` line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from jaxtyping import Int
from torch import Tensor, nn

from fullrank.errors import InputError
from fullrank.networks import Branch, MultiCrop, Puzzle, Siamese, Switches
from fullrank.registry import Registry
from fullrank.schedules import Progress, Schedule
from fullrank.views import Recipe

METHODS: Registry[type[Method]] = Registry("method")
Lever = Literal["variance", "covariance"]
FAMILIES = (
    "deep metric learning",
    "self-distillation",
    "canonical correlation",
    "masked image modelling",
    "image and text",
    "reference",
)
register = METHODS.register


@dataclass(frozen=True)
class DataFacts:
    """What a method may need to know of the data before it builds its network.

    Attributes:
        samples: size of the set: memory banks have one row a sample.
        classes: number of labels; 0 where there are none.
        image_size: pixels a side that the network sees.
        channels: of the images.
        mean: of each channel, for pixels in [0, 1]: what was subtracted from the views.
        std: of each channel: what the views were divided by.
        vocabulary: number of word pieces of the captions; 0 where there are none.
    """

    samples: int = 1
    classes: int = 0
    image_size: int = 224
    channels: int = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    vocabulary: int = 0


@dataclass
class Batch:
    """V views of the same B samples, view v in `views[v]`, and what else is known of the samples.

    A view is (B, C, S, S) images; (B, 9, C, S, S) where it is a puzzle of nine patches; or (B, L) whole numbers, a
    caption as word pieces padded with 0.
    """

    views: list[Tensor]
    index: Int[Tensor, " b"]  # positions of the samples in the set
    labels: Int[Tensor, " b"] | None = None
    progress: Progress = field(default_factory=Progress)

    @property
    def only_view(self) -> Tensor:
        """The view, for methods that look at one. Raises `InputError` where there are more."""
        if len(self.views) != 1:
            raise InputError(f"{len(self.views)} views: this method looks at one, so give its view recipe one view")
        return self.views[0]


@dataclass
class Step:
    """What one forward pass gives: the scalar to differentiate, its named terms, and what to watch for collapse."""

    loss: Tensor
    terms: Mapping[str, Tensor]  # unweighted, by their names in the paper
    representations: list[Tensor]  # Y, one (B, y) a view
    embeddings: list[Tensor]  # Z, one (B, z) a view, with their gradient: a regulariser may be added to them


@dataclass(frozen=True)
class Optimization:
    """Optimiser and schedule as published.

    Attributes:
        optimizer: lars, larc, sgd, adam or adamw.
        learning_rate: the highest, per 256 samples of the global batch.
        weight_decay: at the first step.
        batch_size: of the published run, over all devices.
        epochs: of the published run.
        schedule: of the learning rate, as a factor of the highest.
        bias_learning_rate: for one-dimensional parameters, where it differs.
        weight_decay_end: where the weight decay goes over the run along a cosine, where it changes.
        decays_1d: whether biases and norms decay too.
        no_decay: patterns of names of further parameters without decay, such as "*.pos_embed".
        constant_rate: patterns of names of parameters whose learning rate stays the highest.
        options: further arguments of the optimiser, such as betas.
    """

    optimizer: str
    learning_rate: float
    weight_decay: float
    batch_size: int
    epochs: int
    schedule: Schedule = Schedule()  # noqa: RUF009 - frozen
    bias_learning_rate: float | None = None
    weight_decay_end: float | None = None
    decays_1d: bool = False
    no_decay: tuple[str, ...] = ()
    constant_rate: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


class Method(nn.Module):
    """A network around a loss. Subclasses set the class attributes, build a network and write `forward`.

    Keyword-only arguments of `__init__` are options of `fullrank train`, but for those that the library fills in where
    a method has them: `facts` (`DataFacts`), and `second`, the backbone of a branch of its own or None. `switches`
    stands for the options of `Switches`, whose published values are the class attribute.
    """

    family: ClassVar[str]  # one of `FAMILIES`: where it stands in the tree that `fullrank methods` prints
    paper: ClassVar[str]
    views: ClassVar[Callable[[int], Recipe]]  # image size -> the published view recipe
    published: ClassVar[Optimization]
    default_backbone: ClassVar[str | None] = None  # where the method needs another kind than any timm model
    backbone_options: ClassVar[Mapping[str, Any]] = {}  # with which timm has to build the backbone
    # Channels that two networks of its own take, where the method splits images; the second is then always given.
    branch_channels: ClassVar[tuple[int, int] | None] = None
    switches: ClassVar[Switches] = Switches()
    # The standard deviation that the loss asks of every dimension of Z, where its scale means something.
    target_std: ClassVar[float | None] = None
    # Whether the second view is always a caption; `second` is then a text encoder.
    second_is_text: ClassVar[bool] = False
    # Where the number of views is free, as in multi-crop: the fewest. Else it takes those of its published recipe.
    fewest_views: ClassVar[int | None] = None
    # Whether it remembers every sample by its position in the set, which a stream does not tell.
    remembers_samples: ClassVar[bool] = False
    # Whether the loss sees the directions of Z alone and not its lengths: then its scale says nothing, and added terms
    # of variance and covariance are those of the directions.
    on_sphere: ClassVar[bool] = False
    # Options of the method's own that do the work of VICReg's "variance" (embeddings stay apart) or "covariance" term
    # (dimensions stay different): what a collapse warning speaks of. Those of `Switches` are known.
    levers: ClassVar[Mapping[str, Lever]] = {}
    # Why several small passes are not one step of this method: empty where they are.
    no_accumulation: ClassVar[str] = "its loss compares the samples of a batch with each other"
    # Why the views cannot go through two different networks: empty where they can.
    one_network: ClassVar[str] = "its two sides are one network by definition"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network  # a module with `backbone` and `embed(images)`, such as `Branch`

    @classmethod
    def check_views(cls, recipe: Recipe) -> None:
        """Raises `InputError` for a recipe of more or fewer views than the method takes, or of other puzzles."""
        given, published = (
            ["puzzle" if view.grid > 1 else "image" for view in views for _ in range(view.count)]
            for views in (recipe, cls.views(224))
        )
        few = cls.fewest_views
        if given == published or (few is not None and len(given) >= few):
            return
        number = f"{len(published)} {'view' if len(published) == 1 else 'views'}"
        wanted = f"{number} ({', '.join(published)})" if few is None else f"{few} views or more"
        raise InputError(f"{cls.__name__} takes {wanted}; this view recipe makes {len(given)} ({', '.join(given)})")

    @property
    def kept(self) -> Any:
        """The network that is kept and judged after training: the one that learns, or a teacher that averages it."""
        return self.network

    @property
    def backbone(self) -> nn.Module:
        """The backbone of the network that is kept."""
        return self.kept.backbone

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Representation Y and embedding Z of a batch of images, for evaluation and diagnosis."""
        return self.kept.embed(images)

    def embed_captions(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Representation and embedding of captions (n, l), where the second network is a text encoder."""
        assert isinstance(self.network, Siamese)
        assert self.network.second is not None
        return self.network.second.embed(tokens)

    def forward(self, batch: Batch) -> Step:
        """One training pass over a batch of views."""
        raise NotImplementedError

    def before_step(self, progress: Progress) -> None:
        """Called between the gradients and the optimiser: clipping, freezing."""

    def after_step(self, progress: Progress) -> None:
        """Called after every optimiser step, with its progress: momentum encoders follow their networks."""
        if isinstance(self.network, Siamese):
            self.network.after_step(progress)

    def compilable(self) -> list[nn.Module]:
        """The parts that torch.compile takes: without state of their own, fed with batches of one size."""
        parts = [module for module in self.modules() if isinstance(module, Branch | MultiCrop | Puzzle)]
        return [part for part in parts if getattr(part.backbone, "compiles", True)]
