"""Operations of RandAugment against Pillow's, which the authors' codes call, and how they are drawn."""

import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from scipy.stats import kstest
from torchvision.transforms.functional import pil_to_tensor, rgb_to_grayscale, to_pil_image

from fullrank.errors import InputError
from fullrank.views import Augment, View
from fullrank.views.augment import draw
from fullrank.views.crop import draw_boxes
from fullrank.views.rand_augment import (
    ARGUMENTS,
    MOVING,
    NOTHING,
    OPERATIONS,
    Chain,
    Operations,
    apply,
    draw_operations,
    draw_photometric,
)

FILL = (124, 116, 104)
N, SIDE = 6, 24


def pictures(side=SIDE):
    """(n, 3, side, side) bytes with structure, different ranges in each."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(N, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    return (40 + 180 * smooth + 20 * torch.rand(N, 3, side, side, generator=generator)).byte()


def pillow(name, picture, a, cubic):
    """The operation as datasets/RandAugment.py of PyContrast calls it."""
    kwargs = {"resample": Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR, "fillcolor": FILL}
    w, h = picture.size
    moves = {
        "ShearX": (1, a, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, a, 1, 0),
        "TranslateXRel": (1, 0, a * w, 0, 1, 0),
        "TranslateYRel": (1, 0, 0, 0, 1, a * h),
    }
    if name in moves:
        return picture.transform(picture.size, Image.Transform.AFFINE, moves[name], **kwargs)
    if name == "Rotate":
        return picture.rotate(a, **kwargs)
    if name == "SolarizeAdd":
        return picture.point([min(255, i + int(a)) if i < 128 else i for i in range(256)] * 3)
    plain = {"AutoContrast": ImageOps.autocontrast, "Equalize": ImageOps.equalize, "Invert": ImageOps.invert}
    if name in plain:
        return plain[name](picture)
    if name == "PosterizeTpu":  # by hand: recent versions of Pillow refuse to keep 0 bits
        return picture.point(lambda value: value & ~(2 ** (8 - int(a)) - 1))
    if name == "Solarize":
        return ImageOps.solarize(picture, int(a))
    return getattr(ImageEnhance, name)(picture).enhance(a)


@pytest.mark.parametrize("cubic", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_equals_pillow_sample_by_sample(name, cubic):
    images = pictures()
    arguments = ARGUMENTS[name](torch.tensor([0.7, 3.1, 5.5, 8.2, 9.6, 10.0], dtype=torch.float64))
    if name in MOVING:
        arguments *= torch.tensor([1, -1, 1, -1, -1, 1])
    fill = torch.tensor(FILL) / 255
    made = apply(name, images / 255, arguments.float(), torch.full((N,), cubic), fill)
    for image, a, ours in zip(images, arguments.tolist(), made, strict=True):
        theirs = pil_to_tensor(pillow(name, to_pil_image(image), a, cubic))
        difference = (ours * 255 - theirs).abs().amax(0)
        # Pillow rounds the result down to bytes, and what it is mixed with to the nearest one before; a place within
        # rounding of the border may count as inside or outside.
        assert difference.quantile(0.99) <= 1.51, (name, a)
        assert (difference > 2).float().mean() < 0.005, (name, a)


def test_samples_are_moved_by_four_or_sixteen_neighbours_each():
    images, a = pictures() / 255, torch.full((N,), 0.21)
    mixed = torch.tensor([True, False] * (N // 2))
    both = [apply("ShearX", images, a, torch.full((N,), cubic), torch.zeros(3)) for cubic in (True, False)]
    made = apply("ShearX", images, a, mixed, torch.zeros(3))
    assert torch.equal(made, torch.where(mixed.view(-1, 1, 1, 1), *both))
    assert not torch.equal(*both)


@pytest.mark.parametrize("channels", [1, 2, 13])
@pytest.mark.parametrize("name", OPERATIONS)
def test_any_number_of_channels(name, channels):
    images = torch.rand(3, channels, 9, 9)
    made = apply(
        name, images, ARGUMENTS[name](torch.tensor([9.0] * 3)), torch.tensor([True] * 3), torch.zeros(channels)
    )
    assert made.shape == images.shape
    assert ((made >= 0) & (made <= 1)).all()
    assert torch.equal(made, images) == (name == "Color")


def test_each_sample_gets_its_own_operations_in_order():
    images = pictures() / 255
    invert, solarize, add = (OPERATIONS.index(name) for name in ("Invert", "Solarize", "SolarizeAdd"))
    kind = torch.tensor(
        [[add, NOTHING], [NOTHING, add], [add, solarize], [solarize, invert], [invert, solarize], [NOTHING, NOTHING]]
    )
    arguments = torch.arange(2.0 * N).view(N, 2) * 10
    chain = Chain(kind, arguments, torch.zeros(N, 2, dtype=torch.bool))
    made = Operations(chain, torch.zeros(3))(images.clone(), slice(0, N))
    halves = [Operations(chain, torch.zeros(3))(images[part].clone(), part) for part in (slice(0, 3), slice(3, N))]
    torch.testing.assert_close(torch.cat(halves), made)
    for i in range(N):
        expected = images[i : i + 1]
        for number, a in zip(kind[i].tolist(), arguments[i], strict=True):
            if number != NOTHING:
                expected = apply(OPERATIONS[number], expected, a.view(1), torch.tensor([False]), torch.zeros(3))
        torch.testing.assert_close(made[i], expected[0])


def test_operations_are_drawn_with_replacement_at_half_of_the_chances():
    torch.manual_seed(0)
    chain = draw_operations(2, 20_000)
    assert float((chain.kind == NOTHING).float().mean()) == pytest.approx(0.5, abs=0.01)
    counts = chain.kind[chain.kind != NOTHING].bincount(minlength=len(OPERATIONS))
    assert ((counts / counts.sum() - 1 / len(OPERATIONS)).abs() < 0.006).all()
    both = (chain.kind != NOTHING).all(1)
    same = (chain.kind[both, 0] == chain.kind[both, 1]).float().mean()
    assert float(same) == pytest.approx(1 / len(OPERATIONS), abs=0.01)
    assert float(chain.cubic.float().mean()) == pytest.approx(0.5, abs=0.01)


def test_levels_are_normal_and_clipped_and_moves_go_both_ways():
    torch.manual_seed(0)
    chain = draw_operations(2, 20_000)
    levels = chain.argument[chain.kind == OPERATIONS.index("Rotate")] / 3
    assert float((levels < 0).float().mean()) == pytest.approx(0.5, abs=0.04)
    levels = levels.abs()
    assert levels.max() == 10
    assert float((levels == 10).float().mean()) == pytest.approx(0.5, abs=0.04)
    below = (10 - levels[levels < 10]) / 0.5
    assert kstest(below.numpy(), "halfnorm").pvalue > 1e-3


def test_the_bundle_is_drawn_as_a_whole():
    torch.manual_seed(0)
    chain = draw_photometric(0.66, 10_000)
    applied = chain.kind != NOTHING
    assert torch.equal(applied, applied[:, :1].expand(-1, 4))
    assert float(applied.float().mean()) == pytest.approx(0.66, abs=0.02)
    bits, sharpness, threshold, _ = chain.argument.T
    assert bits.unique().tolist() == [4, 5, 6, 7, 8]
    assert kstest(sharpness.numpy(), "uniform", args=(0.1, 1.8)).pvalue > 1e-3
    assert (threshold.min(), threshold.max()) == (0, 256)


def test_grayscale_comes_after_the_operations():
    view = View(SIDE, (1.0, 1.0), (1.0, 1.0), flip=0.0, jitter_probability=0.0, grayscale=1.0, rand_augment=3)
    mean = torch.tensor([0.3, 0.5, 0.7])
    torch.manual_seed(0)
    made = Augment((view,), mean.tolist(), (1.0,) * 3)(pictures())[0] + mean.view(3, 1, 1)
    torch.manual_seed(0)
    draw_boxes(view, N, SIDE, SIDE)
    drawn = draw(view, N).operations
    changed = Operations(Chain(drawn.kind[:, :-1], drawn.argument[:, :-1], drawn.cubic[:, :-1]), mean)(
        pictures() / 255, slice(0, N)
    )
    torch.testing.assert_close(made, rgb_to_grayscale(changed, 3), rtol=0, atol=1e-5)


def test_operations_of_a_view_change_it():
    plain = {"flip": 0.0, "jitter_probability": 0.0, "grayscale": 0.0}
    for options in ({"rand_augment": 2}, {"photometric": 1.0}):
        torch.manual_seed(0)
        made = Augment((View(SIDE, (1.0, 1.0), (1.0, 1.0), **plain, **options),), (0.0,) * 3, (1.0,) * 3)(pictures())[0]
        assert 1 <= int((made - pictures() / 255).abs().amax((1, 2, 3)).gt(0.01).sum()) <= N
    with pytest.raises(InputError, match="photometric"):
        View(rand_augment=1, photometric=0.5)
