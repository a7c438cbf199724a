"""Every operation equals torchvision's at the same parameters, sample by sample; the draws are distributed as its."""

import pytest
import torch
from scipy.stats import chisquare, ks_2samp, kstest
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as torchvision

from fullrank.errors import InputError
from fullrank.views import (
    Augment,
    RandomCrops,
    View,
    moco_v1_views,
    moco_v2_views,
    resized_views,
    simclr_views,
    supervised_views,
    vicreg_paper_views,
    vicreg_views,
)
from fullrank.views.augment import draw
from fullrank.views.crop import draw_boxes

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NOTHING = {"flip": 0.0, "jitter_probability": 0.0, "grayscale": 0.0}
JITTER = {"flip": 0.0, "grayscale": 0.0, "jitter_probability": 1.0}
ONE_AT_A_TIME = {
    "crop": View(size=24, **NOTHING),
    "square": View(size=24, square=0.875, **NOTHING),
    "bilinear": View(size=24, interpolation="bilinear", **NOTHING),
    "enlarged": View(size=64, **NOTHING),
    "flip": View(size=24, **(NOTHING | {"flip": 0.5})),
    "brightness": View(size=24, jitter=(0.4, 0.0, 0.0, 0.0), **JITTER),
    "contrast": View(size=24, jitter=(0.0, 0.4, 0.0, 0.0), **JITTER),
    "saturation": View(size=24, jitter=(0.0, 0.0, 0.4, 0.0), **JITTER),
    "hue": View(size=24, jitter=(0.0, 0.0, 0.0, 0.5), **JITTER),
    "jitter": View(size=24, jitter=(0.8, 0.8, 0.8, 0.2), **JITTER),
    "grayscale": View(size=24, **(NOTHING | {"grayscale": 0.5})),
    "grayscale first": View(
        size=24, grayscale_first=True, jitter=(0.4, 0.4, 0.4, 0.4), **(JITTER | {"grayscale": 0.5})
    ),
    "blur": View(size=24, blur=0.5, **NOTHING),
    "solarize": View(size=24, solarize=0.5, **NOTHING),
    "everything": View(size=24, blur=0.5, solarize=0.2),
    "blur in tiles": View(size=96, blur=0.5, **NOTHING),
    "blur of a size that has no tiles": View(size=97, blur=0.5, **NOTHING),
    "everything, large": View(size=96, blur=1.0),
}


def smooth_pictures(n, channels, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 5, 6, generator=generator)
    fine = torch.rand(n, channels, height, width, generator=generator)
    images = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    return (0.85 * images + 0.15 * fine).clamp(0, 1)


def reference(image, view, box, draws, i):
    """One view of one picture by torchvision with the drawn parameters, and where solarize may go both ways."""
    mode = InterpolationMode(view.interpolation)
    x = torchvision.resized_crop(image, *box.tolist(), [view.size, view.size], mode, antialias=True).clamp(0, 1)
    if draws.flip[i]:
        x = torchvision.horizontal_flip(x)
    adjust = (
        torchvision.adjust_brightness,
        torchvision.adjust_contrast,
        torchvision.adjust_saturation,
        torchvision.adjust_hue,
    )
    if draws.grayscale[i] and view.grayscale_first:
        x = torchvision.rgb_to_grayscale(x, num_output_channels=3)
    for kind in draws.order[i].tolist():
        x = adjust[kind](x, float(draws.factors[i, kind]))
    if draws.grayscale[i] and not view.grayscale_first:
        x = torchvision.rgb_to_grayscale(x, num_output_channels=3)
    if draws.blur[i]:
        taps = min(view.blur_kernel, 2 * view.size - 1)
        x = torchvision.gaussian_blur(x, [taps, taps], [float(draws.sigma[i])] * 2)
    undecided = (x - view.solarize_threshold).abs() < 1e-4 if draws.solarize[i] else torch.zeros_like(x, dtype=bool)
    if draws.solarize[i]:
        x = torchvision.solarize(x, view.solarize_threshold)
    return torchvision.normalize(x, MEAN, STD), undecided


@pytest.mark.parametrize("name", ONE_AT_A_TIME)
def test_equals_torchvision_sample_by_sample(name):
    view = ONE_AT_A_TIME[name]
    images = smooth_pictures(24, 3, 40, 52)
    torch.manual_seed(7)
    made = Augment((view,), MEAN, STD)(images)[0]
    torch.manual_seed(7)
    boxes = draw_boxes(view, len(images), 40, 52)
    draws = draw(view, len(images))
    for i, image in enumerate(images):
        expected, undecided = reference(image, view, boxes[i], draws, i)
        # 1e-5 on pictures in [0, 1] is 1e-5 / std after normalisation.
        torch.testing.assert_close(made[i][~undecided], expected[~undecided], rtol=0, atol=1e-5 / min(STD))
        assert undecided.float().mean() < 0.01


def test_the_reference_tells_samples_apart():
    view = ONE_AT_A_TIME["jitter"]
    torch.manual_seed(7)
    draws = draw(view, 24)
    assert len({tuple(order) for order in draws.order.tolist()}) > 8
    assert len(draws.factors[:, 0].unique()) == 24


@pytest.mark.parametrize("height_width", [(32, 32), (40, 52), (30, 200), (200, 24)])
def test_crops_are_distributed_as_torchvisions(height_width):
    height, width = height_width
    torch.manual_seed(0)
    view = View(size=8)
    ours = draw_boxes(view, 4000, height, width).double()
    image = torch.zeros(1, height, width)
    theirs = torch.tensor(
        [RandomResizedCrop.get_params(image, list(view.scale), list(view.ratio)) for _ in range(4000)],
        dtype=torch.double,
    )
    for measure in (
        lambda box: box[:, 2] * box[:, 3],
        lambda box: (box[:, 3] / box[:, 2]).log(),
        lambda box: box[:, 0],
        lambda box: box[:, 1],
    ):
        assert ks_2samp(measure(ours), measure(theirs)).pvalue > 1e-3
    assert (ours[:, 0] + ours[:, 2]).max() <= height
    assert (ours[:, 1] + ours[:, 3]).max() <= width


def test_jitter_factors_are_uniform_over_their_ranges():
    torch.manual_seed(0)
    draws = draw(View(jitter=(0.4, 0.3, 0.2, 0.1), jitter_probability=1.0), 4000)
    for kind, (low, high) in enumerate([(0.6, 1.4), (0.7, 1.3), (0.8, 1.2), (-0.1, 0.1)]):
        assert kstest(draws.factors[:, kind].numpy(), "uniform", args=(low, high - low)).pvalue > 1e-3


def test_orders_of_the_jitter_are_equally_likely():
    torch.manual_seed(0)
    draws = draw(View(jitter_probability=1.0), 4800)
    _, counts = torch.unique(draws.order, dim=0, return_counts=True)
    assert len(counts) == 24
    assert ((counts - 200).abs() < 70).all()


def test_probabilities_are_those_of_the_view():
    torch.manual_seed(0)
    draws = draw(View(flip=0.3, grayscale=0.2, blur=0.1, solarize=0.6, blur_sigma=(0.1, 2.0)), 5000)
    for name, probability in [("flip", 0.3), ("grayscale", 0.2), ("blur", 0.1), ("solarize", 0.6)]:
        drawn = torch.as_tensor(getattr(draws, name)).float().mean()
        assert float(drawn) == pytest.approx(probability, abs=0.03)
    assert kstest(draws.sigma.numpy(), "uniform", args=(0.1, 1.9)).pvalue > 1e-3


@pytest.mark.parametrize("channels", [1, 2, 13])
def test_any_number_of_channels(channels):
    images = smooth_pictures(6, channels, 30, 30)
    augment = Augment(vicreg_views(20), (0.5,) * channels, (0.25,) * channels)
    first, second = augment(images)
    assert first.shape == second.shape == (6, channels, 20, 20)
    assert torch.isfinite(first).all()
    with pytest.raises(InputError, match="channels"):
        augment(images.repeat(1, 2, 1, 1))


def test_bytes_and_floats_give_the_same_views():
    pixels = (smooth_pictures(6, 3, 32, 32) * 255).round().byte()
    augment = Augment(vicreg_views(32), MEAN, STD)
    torch.manual_seed(1)
    from_bytes = augment(pixels)
    torch.manual_seed(1)
    from_floats = augment(pixels.float() / 255)
    for one, other in zip(from_bytes, from_floats, strict=True):
        assert (one - other).abs().gt(1e-4).float().mean() < 1e-3  # solarize may decide otherwise at its threshold


def test_crops_of_a_worker_and_their_finish():
    recipe = (View(size=24, blur=0.5), View(size=16, count=3))
    image = (smooth_pictures(1, 3, 50, 40)[0] * 255).byte()
    crops = RandomCrops(recipe)(image)
    assert [tuple(crop.shape) for crop in crops] == [(3, 24, 24)] + [(3, 16, 16)] * 3
    assert all(crop.dtype == torch.uint8 for crop in crops)
    augment = Augment(recipe, MEAN, STD)
    views = augment.finish([torch.stack([crop] * 5) for crop in crops])
    assert [tuple(view.shape) for view in views] == [(5, 3, 24, 24)] + [(5, 3, 16, 16)] * 3
    with pytest.raises(InputError, match="4 views"):
        augment.finish(views[:2])


def test_published_recipes():
    first, second = vicreg_views(224)
    assert (first.blur, second.blur, first.solarize, second.solarize) == (1.0, 0.1, 0.0, 0.2)
    assert all(view.scale == (0.08, 1.0) and view.interpolation == "bicubic" for view in (first, second))
    assert all((view.blur, view.solarize) == (0.5, 0.1) for view in vicreg_paper_views(224))


def test_published_recipes_of_contrastive_methods():
    for view in simclr_views(224):
        assert (view.jitter, view.jitter_probability, view.blur) == ((0.8, 0.8, 0.8, 0.2), 0.8, 0.5)
        assert (view.scale, view.blur_kernel, view.solarize) == ((0.08, 1.0), 23, 0.0)
    # As the code: a tenth of the side, made odd.
    sides = {size: 2 * int((size // 10) / 2) + 1 for size in (10, 32, 59, 60, 96, 100, 224, 384)}
    assert {size: simclr_views(size)[0].blur_kernel for size in sides} == sides
    for view in moco_v1_views(224):
        assert view.grayscale_first
        assert (view.jitter, view.jitter_probability, view.blur) == ((0.4, 0.4, 0.4, 0.4), 1.0, 0.0)
    for view in moco_v2_views(224):
        assert not view.grayscale_first
        assert (view.jitter, view.jitter_probability, view.blur) == ((0.4, 0.4, 0.4, 0.1), 0.8, 0.5)
    for view in (*moco_v1_views(224), *moco_v2_views(224)):
        assert (view.scale, view.interpolation, view.grayscale) == ((0.2, 1.0), "bilinear", 0.2)
    (view,) = supervised_views(224)
    assert (view.scale, view.flip, view.jitter_probability, view.grayscale) == ((0.08, 1.0), 0.5, 0.0, 0.0)


def test_square_crops_are_torchvision_s_of_the_resized_picture():
    """Resize(256) and RandomCrop(224) of 300 x 400, at a quarter of the size: where they lie, and what is seen."""
    (view,) = resized_views(56)
    image = torch.rand(3, 75, 100)
    boxes = draw_boxes(view, 4000, 75, 100)
    side = round(75 * 224 / 256)
    assert boxes[:, 2:].unique().tolist() == [side]
    for place, room in ((0, 75 - side), (1, 100 - side)):
        counts = boxes[:, place].bincount(minlength=room + 1).double()
        assert len(counts) == room + 1
        assert chisquare(counts.numpy()).pvalue > 1e-4
    torch.manual_seed(3)
    (crop,) = RandomCrops((view,))(image)
    torch.manual_seed(3)
    top, left, *_ = draw_boxes(view, 1, 75, 100)[0].tolist()
    wanted = torchvision.resized_crop(image, top, left, side, side, [56, 56], antialias=True)
    torch.testing.assert_close(crop, wanted)
    with pytest.raises(InputError, match="square"):
        View(square=1.5)


def test_a_view_is_data():
    view = View(size=96, scale=(0.05, 0.14), count=6)
    assert View.from_dict(view.to_dict()) == view
    with pytest.raises(InputError, match="did you mean 'scale'"):
        View.from_dict({"scael": (0.1, 1.0)})
    with pytest.raises(InputError, match="blur"):
        View(blur=1.5)
