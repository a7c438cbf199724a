"""Folders and archives: what is found, which split and which labels; and what is refused."""

import io
import os
import pickle
import tarfile
import tempfile
import zipfile
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import tifffile

from fullrank.data import archive as archives
from fullrank.data import files as picture_sets
from fullrank.data import open_source
from fullrank.errors import InputError
from tests.unit.data.picture_files import encoded, noise, npy, write_archive, write_folder

PICTURES = [encoded(noise(i)) for i in range(6)]
TREE = {
    "train/cat/1.png": PICTURES[0],
    "train/cat/2.png": PICTURES[1],
    "train/dog/deep/3.png": PICTURES[2],
    "test/cat/4.png": PICTURES[3],
    "test/eel/5.png": PICTURES[4],
    "README.txt": b"not a picture",
    "test/cat/._4.png": b"what macOS leaves behind",
    "test/.cache/6.png": PICTURES[5],
    "__MACOSX/test/cat/1.png": b"",
}
KINDS = ["folder", ".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz"]


def hold(tmp_path, kind, files=TREE):
    """The files in a folder or an archive of a kind."""
    path = tmp_path / ("set" if kind == "folder" else f"set{kind}")
    return write_folder(path, files) if kind == "folder" else write_archive(path, files)


@pytest.mark.parametrize("kind", KINDS)
def test_every_holder_gives_the_same_set(tmp_path, kind):
    source = open_source(hold(tmp_path, kind), "test")
    assert source.names == ["test/cat/4.png", "test/eel/5.png"]
    assert source.classes == ["cat", "dog", "eel"]  # numbered as in train
    assert source.labels.tolist() == [0, 2]
    assert source.name == ("set/" if kind == "folder" else f"set{kind}") + "[test]"
    assert source.ignored == {".txt": 1}
    for index, number in enumerate((3, 4)):
        np.testing.assert_array_equal(source.read(index), noise(number))


def read_in_process(source, index):
    return source.read(index)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_sources_read_the_same_in_other_processes(tmp_path, kind, start):
    files = {f"{i}.png": encoded(noise(i, 100, 100)) for i in range(40)}
    source = open_source(hold(tmp_path, kind, files))
    order = [source.names.index(f"{i}.png") for i in range(40)]
    source.read(0)  # the parent has the file open
    if start == "spawn":  # what spawning does, without the cost of a new interpreter
        source = pickle.loads(pickle.dumps(source))
        read = [source.read(index) for index in order]
    else:
        with get_context("fork").Pool(2) as pool:
            read = pool.starmap(read_in_process, [(source, index) for index in order * 3], chunksize=1)
    for i, image in enumerate(read):
        np.testing.assert_array_equal(image, noise(i % 40, 100, 100))


def test_train_is_taken_where_splits_stand_side_by_side(tmp_path):
    source = open_source(hold(tmp_path, "folder"))
    assert source.name == "set/[train]"
    assert source.names == ["train/cat/1.png", "train/cat/2.png", "train/dog/deep/3.png"]
    assert source.labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("names", "split", "kept", "labels", "classes"),
    [
        (["a.png", "b.png"], None, 2, None, []),
        (["one/a.png", "one/b.png"], None, 2, None, []),
        (["cat/a.png", "dog/b.png", "dog/x/c.png"], None, 3, [0, 1, 1], ["cat", "dog"]),
        (["all/cat/a.png", "all/dog/b.png"], None, 2, [0, 1], ["cat", "dog"]),
        (["a.png", "dog/b.png"], None, 2, None, []),
        (["root/train/a/1.png", "root/train/b/2.png", "root/val/3.png"], None, 2, [0, 1], ["a", "b"]),
        (["root/train/a/1.png", "root/train/b/2.png", "root/val/3.png"], "val", 1, None, []),
        (["train/images/1.png", "test/images/2.png"], "test", 1, None, []),
        (["train/a/1.png", "train/b/2.png"], "train", 2, [0, 1], ["a", "b"]),
        (["train/1.png", "plane/2.png"], None, 2, [0, 1], ["plane", "train"]),
        (["red/a/1.png", "red/b/2.png", "blue/b/3.png"], "red", 2, [0, 1], ["a", "b"]),
    ],
)
def test_labels_are_the_folders_that_part_the_pictures(tmp_path, names, split, kept, labels, classes):
    source = open_source(write_folder(tmp_path, dict.fromkeys(names, PICTURES[0])), split)
    assert len(source) == kept
    assert (None if source.labels is None else source.labels.tolist()) == labels
    assert source.classes == classes


def test_include_chooses_by_path(tmp_path):
    path = hold(tmp_path, ".zip", {"images/a.png": PICTURES[0], "masks/a.png": PICTURES[1], "b.tif": PICTURES[2]})
    assert open_source(path, include="images/*").names == ["images/a.png"]
    assert open_source(path, include="*.tif").names == ["b.tif"]
    with pytest.raises(InputError, match=r"none of 3 pictures matches include '\*.jpg'"):
        open_source(path, include="*.jpg")


def test_stacks_count_as_their_pictures_and_keep_the_label(tmp_path):
    frames = np.stack([noise(i, channels=1, dtype=np.uint16)[:, :, 0] for i in range(3)])
    movie = io.BytesIO()
    tifffile.imwrite(movie, frames, photometric="minisblack")
    stack = np.stack([noise(i, 20, 16, channels=13, dtype=np.uint16) for i in range(2)])
    files = {"a/one.png": PICTURES[0], "b/movie.tif": movie.getvalue(), "c/stack.npy": npy(stack), "c/no.tif": b""}
    source = open_source(hold(tmp_path, ".zip", files))
    assert source.names == [
        *("a/one.png", "b/movie.tif#0", "b/movie.tif#1", "b/movie.tif#2"),
        *("c/no.tif", "c/stack.npy#0", "c/stack.npy#1"),
    ]
    assert source.labels.tolist() == [0, 1, 1, 1, 2, 2, 2]
    np.testing.assert_array_equal(source.read(2)[:, :, 0], frames[1])
    np.testing.assert_array_equal(source.read(6), stack[1])


def test_stacks_among_many_files_are_found_from_a_part_of_the_headers(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_sets, "HEADERS_READ", 3)
    stack = npy(np.stack([noise(i, channels=3) for i in range(2)]))
    source = open_source(write_folder(tmp_path, {f"{i}.npy": stack for i in range(8)}))
    assert len(source) == 16


def test_links_between_folders_are_followed_once(tmp_path):
    write_folder(tmp_path / "far", {"a.png": PICTURES[0]})
    root = write_folder(tmp_path / "set", {"b.png": PICTURES[1]})
    (root / "link").symlink_to(tmp_path / "far")
    (root / "loop").symlink_to(root)
    assert open_source(root).names == ["b.png", "link/a.png"]


def test_unknown_split_names_those_present(tmp_path):
    with pytest.raises(InputError, match=r"unknown split of set/ 'tset': did you mean 'test'\?"):
        open_source(hold(tmp_path, "folder"), "tset")
    flat = write_folder(tmp_path / "flat", {"a.png": PICTURES[0]})
    with pytest.raises(InputError, match="has no folder 'train': its pictures lie in one folder"):
        open_source(flat, "train")


@pytest.mark.parametrize("files", [{}, {"notes.txt": b"x", "table.csv": b"y"}])
@pytest.mark.parametrize("kind", ["folder", ".zip", ".tar.gz"])
def test_nothing_to_see(tmp_path, kind, files):
    path = hold(tmp_path, kind, files)
    path.mkdir(exist_ok=True) if kind == "folder" else None
    expected = r"2 files \(.txt, .csv\)" if files else "no files at all"
    with pytest.raises(InputError, match=rf"^no pictures in set.*: it holds {expected}"):
        open_source(path)


def test_missing_path_names_the_nearest(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match="did you mean 'photos'"):
        open_source(tmp_path / "phtos")
    with pytest.raises(InputError, match="did you mean 'digits'"):
        open_source("digit")
    with pytest.raises(InputError, match=r"data is a folder, .zip"):
        open_source("/nowhere/at/all")
    with pytest.raises(InputError, match="unknown kind of data 'torchvison': did you mean 'torchvision'"):
        open_source("torchvison:CIFAR10")
    (tmp_path / "picture.jpg").write_bytes(PICTURES[0])
    with pytest.raises(InputError, match=r"picture.jpg' is a file of an unknown kind"):
        open_source(tmp_path / "picture.jpg")


@pytest.fixture
def nobody():
    """Let code run as a user without rights, when the tests run as one with all of them."""
    open_source(np.zeros((1, 8, 8)))  # what is imported only when needed is imported now
    if os.geteuid() == 0:
        os.seteuid(65534)
        yield
        os.seteuid(0)
    else:
        yield


@pytest.fixture
def closed_folder():
    """A folder that the world may enter, holding one that nobody may."""
    with tempfile.TemporaryDirectory() as folder:
        root = write_folder(Path(folder), {"open/a.png": PICTURES[0], "closed/sub/b.png": PICTURES[0]})
        root.chmod(0o755)
        (root / "closed").chmod(0o000)
        yield root
        (root / "closed").chmod(0o755)


def test_unreadable_folder(closed_folder, nobody):
    for inside in ("", "closed"):
        with pytest.raises(InputError, match=r"^cannot read the folder '.*closed': Permission denied"):
            open_source(closed_folder / inside)
    with pytest.raises(InputError, match=r"^cannot read '.*sub': Permission denied"):
        open_source(closed_folder / "closed/sub")


@pytest.mark.parametrize("kind", [".zip", ".tar", ".tar.xz"])
@pytest.mark.parametrize("name", ["../escape.png", "/etc/a.png", "a/../../b.png", "C:/a.png", "..\\b.png"])
def test_unsafe_names_are_refused(tmp_path, kind, name):
    path = hold(tmp_path, kind, {"good.png": PICTURES[0], name: PICTURES[1]})
    with pytest.raises(InputError, match="holds the unsafe name"):
        open_source(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
@pytest.mark.parametrize("mode", ["", ":gz"])
def test_links_and_devices_in_tars_are_refused(tmp_path, kind, mode):
    path = tmp_path / ("set.tar.gz" if mode else "set.tar")
    with tarfile.open(path, f"w{mode}") as archive:
        member = tarfile.TarInfo("innocent.png")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(InputError, match=r"'innocent.png', which is a link or a device"):
        open_source(path)


def test_links_in_zips_are_refused(tmp_path):
    link = zipfile.ZipInfo("innocent.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match=r"'innocent.png', which is a link"):
        open_source(tmp_path / "set.zip")


def test_names_with_a_leading_dot_and_backslashes(tmp_path):
    tar = hold(tmp_path, ".tar", {"./cat/a.png": PICTURES[0], "./dog/b.png": PICTURES[1]})
    assert open_source(tar).classes == ["cat", "dog"]
    windows = hold(tmp_path, ".zip", {"cat\\a.png": PICTURES[0], "dog\\b.png": PICTURES[1]})
    assert open_source(windows).names == ["cat/a.png", "dog/b.png"]
    np.testing.assert_array_equal(open_source(windows).read(1), noise(1))


@pytest.mark.parametrize("kind", [".zip", ".tar", ".tar.gz", ".tar.xz"])
def test_damaged_archives(tmp_path, kind):
    path = hold(tmp_path, kind, {f"{i}.png": encoded(noise(i, 60, 60)) for i in range(4)})
    whole = path.read_bytes()
    path.write_bytes(b"this is no archive" * 100)
    with pytest.raises(InputError, match="is damaged or not a"):
        open_source(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is damaged"):
        open_source(path)


def test_a_zip_member_that_is_damaged_is_one_unreadable_picture(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.png", PICTURES[0])
        archive.writestr("b.png", PICTURES[1])
    path.write_bytes(path.read_bytes().replace(PICTURES[1], PICTURES[1][:-20] + bytes(20)))
    source = open_source(path)
    np.testing.assert_array_equal(source.read(0), noise(0))
    with pytest.raises(InputError, match=r"cannot read 'b.png': Bad CRC-32"):
        source.read(1)


def test_a_zip_member_that_grows_beyond_its_declared_size(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.npy", npy(np.zeros((3000, 3000), np.uint8)))
    size = (9_000_128).to_bytes(4, "little")
    assert path.read_bytes().count(size) == 2
    path.write_bytes(path.read_bytes().replace(size, (50_000).to_bytes(4, "little")))
    with pytest.raises(InputError, match=r"cannot read 'bomb.npy': (Bad CRC-32|.*truncated)"):
        open_source(path).read(0)


@pytest.mark.parametrize("kind", [".zip", ".tar", ".tar.gz"])
def test_huge_members_are_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 1 << 20)
    path = hold(tmp_path, kind, {"big.bmp": bytes(2 << 20)})
    with pytest.raises(InputError, match=r"'big.bmp' of .*: a decompression bomb"):
        open_source(path)


@pytest.mark.parametrize("kind", [".tar.gz", ".tar.xz"])
def test_a_stream_that_grows_without_end_is_stopped(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 1 << 20)
    path = hold(tmp_path, kind, {"a.png": PICTURES[0], "padding.bin": bytes(24 << 20)})
    monkeypatch.setattr(archives, "MAX_RATIO", 5)
    with pytest.raises(InputError, match="grows more than 5 times when unpacked"):
        open_source(path)


def test_a_compressed_tar_beyond_the_free_memory_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "available_memory", lambda: 1000)
    path = hold(tmp_path, ".tar.gz")
    with pytest.raises(InputError, match=r"half of the free memory; unpack it, or repack it as .zip"):
        open_source(path)


def test_an_encrypted_zip(tmp_path):
    path = hold(tmp_path, ".zip", {"a.png": PICTURES[0]})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"set.zip is encrypted"):
        open_source(path)


def test_another_split_of_a_compressed_tar_needs_no_second_pass(tmp_path):
    path = hold(tmp_path, ".tar.xz")
    train = open_source(path, "train")
    whole = path.read_bytes()
    stamp = path.stat()
    path.write_bytes(bytes(len(whole)))  # unreadable now, yet of the same size and time
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    np.testing.assert_array_equal(open_source(path, "test").read(0), noise(3))
    os.utime(path)
    with pytest.raises(InputError, match="damaged"):
        open_source(path, "test")
    assert len(train) == 3


def test_a_source_is_given_back_and_takes_no_split():
    source = open_source(np.zeros((3, 8, 8), np.uint8))
    assert open_source(source) is source
    with pytest.raises(InputError, match="choose among files"):
        open_source(source, "train")
    with pytest.raises(InputError, match="include chooses files"):
        open_source("digits", include="*.png")
