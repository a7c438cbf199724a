"""Views that are cut into pieces: where the squares are, what is drawn for each, for any placement and process."""

import dataclasses

import pytest
import torch

from fullrank.errors import InputError
from fullrank.views import Augment, RandomCrops, View
from fullrank.views.crop import draw_boxes, stack_crops
from fullrank.views.puzzle import draw_corners

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
PLAIN = {"flip": 0.0, "jitter_probability": 0.0, "grayscale": 0.0}
PIRL = View(255, grid=3, piece=64, shift=20, **PLAIN)
OBOW = View(256, grid=3, piece=96, shift=24, pieces=5, apart=False, **PLAIN)
SMALL = View(24, grid=3, piece=6, shift=2, **PLAIN)


def pictures(n, side=40):
    return torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize(("view", "step"), [(PIRL, 85), (OBOW, 68), (dataclasses.replace(PIRL, shift=21), 85)])
def test_corners_are_places_of_the_grid_moved_a_little(view, step):
    torch.manual_seed(0)
    corners = draw_corners(view, 2000)
    places, moved = corners // step, corners % step
    assert moved.unique().tolist() == list(range(view.shift + 1))
    assert places.unique().tolist() == [0, 1, 2]
    number = 3 * places[..., 0] + places[..., 1]
    assert all(len(set(each)) == (view.pieces or 9) for each in number.tolist())
    counts = torch.stack([(number == cell).sum(0) for cell in range(9)]) / 2000  # of each cell at each position
    assert ((counts - 1 / 9).abs() < 0.04).all()
    assert corners.max() == 2 * step + view.shift


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("view", [SMALL, dataclasses.replace(SMALL, grid=2, piece=14, pieces=3)])
def test_pieces_are_squares_of_the_crop(view, apart):
    images, view = pictures(5), dataclasses.replace(view, apart=apart)
    torch.manual_seed(3)
    pieces = Augment((view,), MEAN, STD)(images)[0]
    assert pieces.shape == (5, *view.shape(3))
    torch.manual_seed(3)
    whole = Augment((View(24, **PLAIN),), MEAN, STD)(images)[0]
    torch.manual_seed(3)
    draw_boxes(view, 5, 40, 40)
    for sample, corners in enumerate(draw_corners(view, 5).tolist()):
        for piece, (row, column) in zip(pieces[sample], corners, strict=True):
            expected = whole[sample, :, row : row + view.piece, column : column + view.piece]
            torch.testing.assert_close(piece, expected, rtol=0, atol=1e-5)


def test_each_piece_has_draws_of_its_own_or_the_view_has():
    shares = {}
    for apart in (True, False):
        view = dataclasses.replace(SMALL, grayscale=0.5, apart=apart)
        torch.manual_seed(0)
        pieces = Augment((view,), (0.0,) * 3, (1.0,) * 3)(pictures(64))[0]
        grey = (pieces[:, :, 0] - pieces[:, :, 1]).abs().amax((2, 3)) < 1e-4  # (n, 9)
        shares[apart] = grey.float().mean(1)
    assert set(shares[False].tolist()) == {0.0, 1.0}
    assert ((shares[True] > 0) & (shares[True] < 1)).float().mean() > 0.9


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("in_workers", [True, False])
def test_processes_draw_together_what_one_draws(in_workers, apart):
    view = dataclasses.replace(SMALL, flip=0.5, jitter_probability=0.8, grayscale=0.2, blur=0.5, apart=apart)
    crops = RandomCrops((view,))
    images = pictures(6)
    if in_workers:
        images = stack_crops([crops(image)[0] for image in images])
        assert images.shape == (6, 3, 24, 24)

    def views(images, share):
        augment = Augment((view,), MEAN, STD)
        augment.share = share
        torch.manual_seed(1)
        return augment.finish([images])[0] if in_workers else augment(images)[0]

    whole = views(images, (0, 1))
    assert whole.shape == (6, 9, 3, 6, 6)
    parts = [views(images[3 * rank : 3 * rank + 3], (rank, 2)) for rank in range(2)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-5)


def test_a_puzzle_beside_a_picture():
    recipe = (View(size=32), SMALL)
    image, puzzle = Augment(recipe, MEAN, STD)(pictures(4))
    assert image.shape == (4, 3, 32, 32)
    assert puzzle.shape == (4, 9, 3, 6, 6)


def test_pieces_that_do_not_fit_are_an_error():
    with pytest.raises(InputError, match=r"piece.*1 \.\. 20 pixels"):
        View(24, grid=3, piece=21, shift=4)
    with pytest.raises(InputError, match="piece"):
        View(24, grid=3)
    with pytest.raises(InputError, match="shift"):
        View(24, grid=3, piece=4, shift=-1)
    with pytest.raises(InputError, match="pieces"):
        View(24, grid=3, piece=4, pieces=10)
