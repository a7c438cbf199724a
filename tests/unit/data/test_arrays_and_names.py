"""Arrays from Python and files, scikit-learn's digits, torchvision's sets."""

import struct

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from fullrank.data import UnreadableImage, arrays, open_source
from fullrank.data.arrays import Arrays
from fullrank.errors import InputError
from tests.unit.data.picture_files import encoded, noise, write_folder

STACK = np.stack([noise(i, 20, 16) for i in range(5)])


class Trap:
    """Unpickling this would be noticed."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize(
    "given",
    [
        STACK,
        STACK.transpose(0, 3, 1, 2),
        STACK.astype(">u2").astype(np.uint8),
        torch.from_numpy(STACK),
        torch.from_numpy(STACK).permute(0, 3, 1, 2),
    ],
)
def test_either_order_of_channels_gives_the_same_pictures(given):
    source = open_source(given)
    assert len(source) == 5
    assert source.names == ["0", "1", "2", "3", "4"]
    for index in range(5):
        np.testing.assert_array_equal(source.read(index), STACK[index])


def test_grey_arrays_and_patches_with_more_bands_than_pixels():
    np.testing.assert_array_equal(open_source(STACK[..., 0]).read(3), STACK[3, :, :, :1])
    patches = np.random.default_rng(0).integers(0, 4000, (4, 9, 9, 103)).astype(">u2")
    read = open_source(patches).read(2)
    assert read.dtype == np.uint16
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, patches[2])
    np.testing.assert_array_equal(open_source(patches.transpose(0, 3, 1, 2)).read(2), patches[2])


def test_npy_and_npz_files(tmp_path):
    np.save(tmp_path / "a.npy", STACK)
    np.savez(tmp_path / "b.npz", images=STACK.astype(np.float64), labels=[3, 3, 0, 1, 3])
    np.savez_compressed(tmp_path / "c.npz", x=STACK, y=np.array(["cat", "eel", "cat", "dog", "eel"]))
    np.savez(tmp_path / "d.npz", STACK)
    for name in ("a.npy", "b.npz", "c.npz", "d.npz"):
        source = open_source(tmp_path / name)
        assert source.name == name
        np.testing.assert_array_equal(source.read(4), STACK[4])
    numbered, named = open_source(tmp_path / "b.npz"), open_source(tmp_path / "c.npz")
    assert numbered.labels.tolist() == [3, 3, 0, 1, 3]
    assert numbered.classes == ["0", "1", "2", "3"]
    assert named.labels.tolist() == [0, 2, 0, 1, 2]
    assert named.classes == ["cat", "dog", "eel"]


def test_a_npy_file_is_mapped_and_not_loaded(tmp_path):
    np.save(tmp_path / "a.npy", STACK)
    source = open_source(tmp_path / "a.npy")
    changed = np.load(tmp_path / "a.npy", mmap_mode="r+")
    changed[2] = 7
    changed.flush()
    assert (source.read(2) == 7).all()


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_pickled_objects_are_refused_and_not_executed(tmp_path, name):
    objects = np.empty((2, 4, 4), dtype=object)
    objects[:] = Trap()
    save = np.save if name.endswith("npy") else lambda path, images: np.savez(path, images=images)
    save(tmp_path / name, objects)
    with pytest.raises(InputError, match=rf"^cannot read {name}: it holds pickled objects; save one numeric array"):
        open_source(tmp_path / name)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"images": STACK, "labels": np.arange(4)}, "4 labels for 5 pictures; give one label"),
        ({"images": STACK, "labels": np.zeros((5, 2))}, r"labels have the shape \(5, 2\)"),
        ({"pixels": STACK}, "holds pixels; one of images, x, arr_0 is needed"),
        ({"x": np.zeros((5, 7))}, "vectors, not pictures"),
        ({"x": np.zeros((5, 3, 3, 3, 3))}, "is needed"),
        ({"x": np.zeros((0, 3, 3))}, "is needed"),
        ({"x": np.array(["a", "b"])}, "values; pictures are integers or floats"),
    ],
)
def test_arrays_that_are_no_data_set(tmp_path, contents, message):
    np.savez(tmp_path / "a.npz", **contents)
    with pytest.raises(InputError, match=message):
        open_source(tmp_path / "a.npz")


def test_a_damaged_array_file_and_one_beyond_memory(tmp_path, monkeypatch):
    (tmp_path / "a.npy").write_bytes(b"nothing")
    (tmp_path / "a.npz").write_bytes(b"PK nothing")
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match=rf"^cannot read {name}: "):
            open_source(tmp_path / name)
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((100, 100, 100), np.uint8))
    monkeypatch.setattr(arrays, "available_memory", lambda: 10_000)
    with pytest.raises(InputError, match=r"over half of the free memory; save it as .npy"):
        open_source(tmp_path / "bomb.npz")
    with pytest.raises(InputError, match="has no split 'train'"):
        open_source(tmp_path / "bomb.npz", "train")


def test_labels_that_are_no_counting_numbers_are_numbered_in_order():
    source = Arrays(STACK, [100, -1, 100, 7, 7], name="mine")
    assert source.labels.tolist() == [2, 0, 2, 1, 1]
    assert source.classes == ["-1", "7", "100"]


def test_complex_values_are_refused():
    with pytest.raises(InputError, match="complex128 values"):
        open_source(np.zeros((2, 4, 4), complex))


def test_digits_and_their_parts():
    digits = load_digits()
    train, test = open_source("digits"), open_source("digits", "test")
    assert (train.name, test.name) == ("digits[train]", "digits[test]")
    assert len(train) + len(test) == 1797
    assert train.labels.tolist() + test.labels.tolist() == digits.target.tolist()
    read = np.stack([s.read(i)[:, :, 0] for s in (train, test) for i in range(len(s))])
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(np.round(read / (255 / 16)), digits.images)
    assert read.max() == 255
    with pytest.raises(InputError, match=r"unknown split of digits 'tset': did you mean 'test'\?"):
        open_source("digits", "tset")


def write_mnist(root, train):
    """The files of MNIST as torchvision keeps them, with three pictures."""
    folder = root / "MNIST/raw"
    folder.mkdir(parents=True, exist_ok=True)
    images = np.stack([noise(i + 10 * train, 28, 28, 1)[:, :, 0] for i in range(3)])
    for start in ("train", "t10k"):
        part = images if (start == "train") == train else images[:1]
        (folder / f"{start}-images-idx3-ubyte").write_bytes(
            struct.pack(">iiii", 0x803, len(part), 28, 28) + part.tobytes()
        )
        (folder / f"{start}-labels-idx1-ubyte").write_bytes(
            struct.pack(">ii", 0x801, len(part)) + bytes([5, 0, 9][: len(part)])
        )
    return images


@pytest.mark.parametrize("split", [None, "train", "test"])
def test_torchvision_set_with_a_train_switch(tmp_path, split):
    images = write_mnist(tmp_path, train=split != "test")
    source = open_source(f"torchvision:MNIST@{tmp_path}", split)
    assert source.labels.tolist() == [5, 0, 9]
    assert source.classes[9] == "9 - nine"
    for index in range(3):
        np.testing.assert_array_equal(source.read(index)[:, :, 0], images[index])


@pytest.mark.parametrize("split", ["train", "test"])
def test_torchvision_set_with_named_splits(tmp_path, split):
    names = {f"country211/{s}/{c}/1.png": encoded(noise(len(s + c))) for s in ("train", "test") for c in ("AT", "DEU")}
    write_folder(tmp_path, names)
    source = open_source(f"torchvision:Country211@{tmp_path}", split)
    assert source.name == f"torchvision:Country211[{split}]"
    assert source.classes == ["AT", "DEU"]
    assert source.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(source.read(1), noise(len(split + "DEU")))


def test_torchvision_mistakes(tmp_path):
    with pytest.raises(InputError, match=r"unknown torchvision data set 'CIFER10': did you mean 'CIFAR10'\?"):
        open_source("torchvision:CIFER10")
    with pytest.raises(InputError, match="unknown split of torchvision:MNIST 'val'"):
        open_source(f"torchvision:MNIST@{tmp_path}", "val")
    with pytest.raises(InputError, match="torchvision:ImageFolder has no splits"):
        open_source(f"torchvision:ImageFolder@{tmp_path}", "val")
    with pytest.raises(InputError, match="needs more than a root and a split"):
        open_source(f"torchvision:CocoCaptions@{tmp_path}")
    with pytest.raises(InputError, match="cannot be opened: Couldn't find any class folder"):
        open_source(f"torchvision:ImageFolder@{tmp_path}")


def test_a_broken_picture_of_a_torchvision_set(tmp_path):
    write_folder(tmp_path, {"cat/a.png": encoded(noise(0)), "dog/b.png": b"broken"})
    source = open_source(f"torchvision:ImageFolder@{tmp_path}")
    np.testing.assert_array_equal(source.read(0), noise(0))
    with pytest.raises(UnreadableImage, match="cannot read '1': this is not an image"):
        source.read(1)
