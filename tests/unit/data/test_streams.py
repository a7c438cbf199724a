"""Streams: every sample once over all ranks and workers, in an order that depends on the epoch."""

import gc
import importlib.util
import io
import sys
import tarfile
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fullrank.data import open_pictures, open_source
from fullrank.data.arrays import Arrays
from fullrank.data.check import check_source
from fullrank.data.loading import DecodedStream, choose_placement
from fullrank.data.statistics import measure_pixels
from fullrank.data.streams import Encoded, Stream
from fullrank.errors import InputError
from fullrank.evaluation import splits
from tests.unit.data.picture_files import encoded, noise, write_folder

# Both libraries leave files for the garbage collector to close.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # on one core
]
SAMPLES = 12


@pytest.fixture(autouse=True, scope="module")
def closed_files():
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    if importlib.util.find_spec("datasets"):
        import datasets

        datasets.disable_progress_bars()
        monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)


def numbered(value):
    """A picture whose first pixel tells which one it is."""
    image = noise(value, 8, 8)
    image[0, 0] = 10 * value
    return encoded(image)


def shards(folder, count, broken=()):
    """12 samples in some tar files, with labels and a file that is no picture."""
    pytest.importorskip("webdataset")
    folder.mkdir(exist_ok=True)
    for shard in range(count):
        with tarfile.open(folder / f"s-{shard:03d}.tar", "w") as archive:
            for i in range(shard, SAMPLES, count):
                parts = {"json": b"{}", "png": b"broken" if i in broken else numbered(i), "cls": str(i % 3).encode()}
                for ending, content in parts.items():
                    member = tarfile.TarInfo(f"{i:03d}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return f"{folder}/s-{{000..{count - 1:03d}}}.tar"


def parquet(folder, count):
    """12 samples in some parquet files, as the hub keeps them."""
    pytest.importorskip("datasets")
    import pyarrow
    import pyarrow.parquet
    from datasets import ClassLabel, Features, Image

    features = Features({"idx": Image(), "img": Image(), "label": ClassLabel(names=["a", "b", "c"])})
    folder.mkdir(exist_ok=True)
    for shard in range(count):
        rows = range(shard, SAMPLES, count)
        pictures = [{"bytes": numbered(i), "path": f"{i:03d}.png"} for i in rows]
        table = pyarrow.table({"idx": pictures, "img": pictures, "label": [i % 3 for i in rows]})
        table = table.cast(features.arrow_schema)
        pyarrow.parquet.write_table(table, folder / f"train-{shard}.parquet")
    return f"hf:{folder}"


MAKERS = [shards, parquet]


def numbers(stream):
    return [int(image[0, 0, 0]) // 10 for _, image, _ in stream]


@pytest.mark.parametrize("make", MAKERS)
def test_samples_with_names_and_labels(tmp_path, make):
    stream = open_source(make(tmp_path / "data", 2))
    found = {}
    for name, image, label in stream:
        number = int(image[0, 0, 0]) // 10
        assert image.shape == (8, 8, 3)
        assert label == number % 3
        assert name.startswith(f"{number:03d}")
        found[number] = name
    assert sorted(found) == list(range(SAMPLES))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("files", [1, 4])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [0, 100])
def test_every_sample_goes_to_one_rank_and_worker(tmp_path, make, files, ranks, workers, shuffle):
    stream = open_source(make(tmp_path / "data", files))
    pixels = measure_pixels(stream.first(SAMPLES))
    stream.shuffle = shuffle
    seen, indices = [], []
    for rank in range(ranks):
        stream.for_rank(rank, ranks)
        context = "fork" if workers else None
        loader = DataLoader(
            DecodedStream(stream, pixels, lambda image: int(image[0, 0, 0]) // 10),
            batch_size=None,
            num_workers=workers,
            multiprocessing_context=context,
        )
        share = list(loader)
        assert len(share) == SAMPLES // ranks
        seen += [number for number, _ in share]
        indices += [index for _, index in share]
    assert Counter(seen) == Counter(range(SAMPLES))
    assert len(set(indices)) == SAMPLES


@pytest.mark.parametrize("make", MAKERS)
def test_shuffling_depends_on_the_epoch_alone(tmp_path, make):
    where = make(tmp_path / "data", 3)
    orders = []
    for epoch in (0, 0, 1):
        stream = open_source(where)
        stream.shuffle, stream.epoch = 100, epoch
        orders.append(numbers(stream))
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert sorted(orders[2]) == list(range(SAMPLES)) != orders[2]


def test_shards_are_shuffled_beyond_the_reach_of_the_buffer(tmp_path):
    stream = open_source(shards(tmp_path / "data", 3))
    stream.shuffle = 1
    first = set()
    for stream.epoch in range(8):
        first.add(numbers(stream)[0] % 3)  # samples i, i + 3, ... lie in shard i
    assert first == {0, 1, 2}


@pytest.mark.parametrize("make", MAKERS)
def test_the_first_samples_can_be_checked(tmp_path, make):
    stream = open_source(make(tmp_path / "data", 2))
    check = check_source(stream, batch_size=1000)
    assert check.ok
    assert (check.count, check.looked_at) == (None, SAMPLES)
    assert (check.pixels.channels, check.pixels.size) == (3, (8, 8))
    first = stream.first(5)
    assert len(first) == 5
    assert first.name == f"{stream.name} (first 5)"
    assert first.labels.tolist() == [int(first.read(i)[0, 0, 0]) // 10 % 3 for i in range(5)]
    assert choose_placement(stream, check.pixels, 32)[0] == "workers"
    with pytest.raises(InputError, match="stream of unknown length"):
        choose_placement(stream, check.pixels, 32, forced="memory")


@pytest.mark.parametrize("make", MAKERS)
def test_all_samples_are_read_at_random_or_as_many_as_are_held(tmp_path, make, monkeypatch):
    where = make(tmp_path / "data", 2)
    source = open_pictures(where)
    assert (len(source), source.name) == (SAMPLES, open_source(where).name)
    sizes = [len(sample.content) for sample in open_source(where).encoded()]
    monkeypatch.setattr("fullrank.data.FROM_STREAM", sum(sizes[:4]))
    assert open_pictures(where).name == f"{source.name} (first 4)"
    assert open_source(where).first(SAMPLES).name == source.name
    again = open_source(make(tmp_path / "again", 2)).first()
    assert [source.digest(place) for place in range(SAMPLES)] == [again.digest(place) for place in range(SAMPLES)]
    assert len({source.digest(place) for place in range(SAMPLES)}) == SAMPLES


def test_samples_without_a_label_are_of_no_class(tmp_path):
    folder = tmp_path / "data"
    shards(folder, 1)
    (shard,) = folder.iterdir()
    with tarfile.open(shard) as file:
        kept = [(each, file.extractfile(each).read()) for each in file.getmembers() if each.name != "002.cls"]
    with tarfile.open(shard, "w") as file:
        for each, content in kept:
            file.addfile(each, io.BytesIO(content))
    source = open_pictures(f"wds:{shard}")
    assert source.labels.tolist() == [-1 if number == 2 else number % 3 for number in range(SAMPLES)]
    assert source.classes == ["0", "1", "2"]


def test_broken_samples_are_skipped_until_all_are(tmp_path, caplog, monkeypatch):
    stream = open_source(shards(tmp_path / "some", 2, broken=(3, 8)))
    assert sorted(numbers(stream)) == [i for i in range(SAMPLES) if i not in (3, 8)]
    assert "skipped: cannot read '003.png': this is not an image" in caplog.text
    monkeypatch.setattr("fullrank.data.streams.MAX_FAILURES", 6)
    stream = open_source(shards(tmp_path / "all", 1, broken=range(SAMPLES)))
    with pytest.raises(InputError, match=r"6 samples in a row are unreadable; cannot read '005.png'"):
        list(stream)


def test_samples_of_another_kind_are_skipped(tmp_path, caplog):
    stream = open_source(shards(tmp_path / "data", 1))
    pixels = measure_pixels(Arrays(np.zeros((2, 8, 8, 5), np.uint8)))
    assert list(DecodedStream(stream, pixels, torch.clone)) == []
    assert "skipped: cannot read '000.png': a picture of 3 channels in a set of 5" in caplog.text


def test_mistakes_with_shards(tmp_path):
    where = shards(tmp_path / "data", 2)
    with pytest.raises(InputError, match=r"s-002.tar' does not exist \(1 of 3 are missing\)"):
        open_source(where.replace("001", "002"))
    with pytest.raises(InputError, match="unknown split of webdataset shards"):
        open_source(where, "train")
    (tmp_path / "data/s-001.tar").write_bytes(b"no tar")
    with pytest.raises(InputError, match="cannot be read"):
        list(open_source(where))
    assert len(list(open_source(f"wds:{tmp_path}/data/s-000.tar"))) == SAMPLES // 2


def test_hugging_face_reads_folders_of_pictures(tmp_path):
    pytest.importorskip("datasets")
    write_folder(tmp_path / "set", {f"train/{c}/{i}.png": numbered(i) for i, c in enumerate("aabb")})
    stream = open_source(f"hf:{tmp_path}/set")
    assert stream.classes == ["a", "b"]
    assert sorted((number, label) for number, (_, _, label) in zip(numbers(stream), stream, strict=True)) == [
        *((0, 0), (1, 0), (2, 1), (3, 1)),
    ]


def test_mistakes_with_hugging_face(tmp_path):
    where = parquet(tmp_path / "data", 1)
    with pytest.raises(InputError, match="cannot be opened: Bad split: tset"):
        open_source(where, "tset")
    with pytest.raises(InputError, match="hf:/no/such/folder cannot be opened"):
        open_source("hf:/no/such/folder")
    (tmp_path / "text").mkdir()
    (tmp_path / "text/train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="has no column of pictures; its columns are a, b"):
        open_source(f"hf:{tmp_path}/text")


@pytest.mark.parametrize(("package", "data"), [("datasets", "hf:x/y"), ("webdataset", "wds:x.tar")])
def test_missing_extras_say_what_to_install(monkeypatch, package, data):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    extra = {"datasets": "huggingface"}.get(package, package)
    with pytest.raises(InputError, match=rf"pip install 'fullrank\[{extra}\]'"):
        open_source(data)


class Counted(Stream):
    """A stream that counts what is read of it."""

    def __init__(self, name, count, label):
        super().__init__(name, ["a", "b"])
        self.count, self.label, self.read = count, label, 0

    def encoded(self):
        for number in range(self.count):
            self.read += 1
            yield Encoded(f"{number}.png", numbered(number % 12), self.label)


@pytest.mark.parametrize(("label", "found", "read"), [(None, None, 101), (1, 300, 101 + 301)])
def test_a_part_without_labels_is_not_read_whole(label, found, read, monkeypatch):
    part, train = Counted("set[test]", 1000, label), Arrays(np.zeros((2, 8, 8, 3), np.uint8), np.arange(2))
    monkeypatch.setattr(splits, "TEST_NAMES", ("test",))
    monkeypatch.setattr(splits, "open_source", lambda data, split: part)
    other = splits.judged_on(train, {"data": "set"}, None, most=300)
    assert (None if other is None else len(other)) == found
    assert part.read == read  # one more, to know whether that was all
