"""Files of captions: every format, what is wrong with lines, and which picture a name means."""

import json
import logging

import numpy as np
import pytest

from fullrank.data import open_source
from fullrank.data.arrays import Arrays
from fullrank.data.captions import Captions, looks_like_captions, read_captions
from fullrank.data.source import Chosen
from fullrank.errors import InputError
from tests.unit.data.picture_files import encoded, noise, write_archive, write_folder

PICTURES = {f"images/{name}.png": encoded(noise(number)) for number, name in enumerate("abcd")}
SAID = {"a.png": ["A dog, running.", "Two dogs"], "b.png": ["Ein Hund läuft – 狗"], "c.png": ['She says "hi"']}
PAIRS = [(name, sentence) for name, sentences in SAID.items() for sentence in sentences]


def lines(rows):
    return "\n".join(rows) + "\n"


def quoted(text):
    return '"' + text.replace('"', '""') + '"'


COCO = {
    "info": {},
    "images": [{"id": 7 + number, "file_name": name} for number, name in enumerate(SAID)],
    "annotations": [{"id": 1, "image_id": 7 + list(SAID).index(name), "caption": text} for name, text in PAIRS],
}
KARPATHY = {
    "dataset": "flickr8k",
    "images": [
        {"filename": name, "imgid": 0, "split": "train", "sentences": [{"raw": text, "tokens": []} for text in texts]}
        for name, texts in SAID.items()
    ],
}
FORMATS = {
    "captions.jsonl": lines(json.dumps({"file": name, "captions": texts}) for name, texts in SAID.items()),
    "metadata.jsonl": lines(json.dumps({"file_name": name, "text": text}) for name, text in PAIRS),
    "captions.csv": lines(["image,caption", *(f"{name},{quoted(text)}" for name, text in PAIRS)]),
    "captions.tsv": lines(["Filepath\tCaption", *(f"{name}\t{quoted(text)}" for name, text in PAIRS)]),
    "captions.txt": lines(["image,caption", *(f"{name},{quoted(text)}" for name, text in PAIRS)]),
    "captions-semicolon.csv": lines(["caption;image", *(f"{quoted(text)};{name}" for name, text in PAIRS)]),
    "captions-windows.csv": "\ufeff"
    + lines(["image,caption", *(f"{name},{quoted(text)}" for name, text in PAIRS)]).replace("\n", "\r\n"),
    "captions-flickr30k.csv": lines(
        [
            "image_name| comment_number| comment",
            *(f"{name}| {n}| {quoted(text)}" for n, (name, text) in enumerate(PAIRS)),
        ]
    ),
    "Flickr8k.token.txt": lines(f"{name}#{n}\t{text}" for n, (name, text) in enumerate(PAIRS)),
    "results.token": lines(f"{name}#{n}\t{text}" for n, (name, text) in enumerate(PAIRS)),
    "captions_train.json": json.dumps(COCO),
    "captions_indented.json": json.dumps(COCO, indent=1),
    "captions_karpathy.json": json.dumps(KARPATHY),
    "captions_list.json": json.dumps([{"image": name, "caption": texts} for name, texts in SAID.items()]),
    "captions_lines.json": lines(json.dumps({"file": name, "captions": texts}) for name, texts in SAID.items()),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_the_same(name):
    assert read_captions(name, FORMATS[name].encode()).sentences == SAID


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", ["folder", ".zip", ".tar", ".tar.gz"])
def test_it_is_found_by_itself(name, kind, tmp_path):
    if not looks_like_captions(name):
        pytest.skip("has to be named")
    files = PICTURES | {f"images/{name}": FORMATS[name].encode(), "README.txt": b"nothing"}
    path = tmp_path / f"set{kind}"
    source = open_source(write_folder(path, files) if kind == "folder" else write_archive(path, files))
    assert list(source.names) == list(PICTURES)
    assert source.ignored == {".txt": 1}
    assert source.captions == [*SAID.values(), []]


def test_it_is_taken_from_where_it_is_named(tmp_path):
    content = FORMATS["captions.csv"].encode()
    path = write_folder(tmp_path / "set", PICTURES | {"notes/own.csv": content})
    (tmp_path / "elsewhere.csv").write_bytes(content)
    assert open_source(path).captions is None
    for given in ("own.csv", "notes/own.csv", str(tmp_path / "elsewhere.csv")):
        assert open_source(path, captions=given).captions == [*SAID.values(), []]
    with pytest.raises(InputError, match=r"no file of this name; give the file's path"):
        open_source(path, captions="missing.csv")
    (path / "captions.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"set/ has 'captions.csv'"):
        open_source(path, captions="captoins.csv")


def test_paths_may_be_written_from_anywhere(tmp_path):
    pictures = {"set/train/a.png": PICTURES["images/a.png"], "set/test/a.png": PICTURES["images/b.png"]}
    for written in ("set/{}/a.png", "{}/a.png", "/home/me/set/{}/a.png", ".\\set\\{}\\a.png"):
        rows = lines(["image,caption", *(f"{written.format(part)},in {part}" for part in ("train", "test"))])
        source = open_source(write_folder(tmp_path, pictures | {"captions.csv": rows.encode()}), "test")
        assert source.captions == [["in test"]]
    rows = b"image,caption\na.png,which\n"
    write_folder(tmp_path, {"captions.csv": rows})
    with pytest.raises(InputError, match=r"'a.png' may be set/test/a.png or set/train/a.png: write the path"):
        open_source(tmp_path, captions="captions.csv")


def test_a_name_is_no_picture_of_another_folder(tmp_path):
    rows = b"image,caption\nimages/a.png,this\nval/b.png,another\n"
    source = open_source(write_folder(tmp_path, PICTURES | {"captions.csv": rows}))
    assert source.captions == [["this"], [], [], []]


def test_pictures_that_are_missing_are_named(tmp_path, caplog):
    rows = FORMATS["results.token"] + lines(f"gone{n}.jpg#0\tMissing" for n in range(5))
    source = open_source(write_folder(tmp_path, PICTURES | {"results.token": rows.encode()}))
    assert source.captions[0] == SAID["a.png"]
    assert "names 5 pictures that" in caplog.text
    assert "gone0.jpg; gone1.jpg; gone2.jpg; ..." in caplog.text
    write_folder(tmp_path, {"other.csv": b"image,caption\nx.jpg,none of them\n"})
    with pytest.raises(InputError, match=r"names none of the 4 pictures .* it names 'x.jpg', .* 'images/a.png'"):
        open_source(tmp_path, captions="other.csv")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("c.csv", "image,caption\na.png,one,two\n", "line 2: 3 columns in place of 2: put texts with ',' in quotes"),
        ("c.csv", "image,caption\na.png,\n", "line 2: its caption is empty"),
        ("c.csv", "number,words\n1,one\n", "expected a header with a column image or file or file_name"),
        ("c.csv", "", "expected a header"),
        ("c.csv", "image,caption\n", "it has no lines"),
        ("c.jsonl", '{"file": "a.png"}\n', "line 1: no caption: expected one of captions, caption"),
        ("c.jsonl", '{"captions": ["x"]}\n', "line 1: no picture: expected one of image, file"),
        ("c.jsonl", '{"file": "a.png", "captions"\n', "line 1: not JSON"),
        ("c.jsonl", '["a.png", "x"]\n', "line 1: expected an object"),
        ("c.json", '{"images": 3}', "expected COCO's `images` and `annotations`"),
        ("c.json", json.dumps(COCO | {"annotations": [{"image_id": 1, "caption": "x"}]}), "image_id 1 is none of the"),
        ("c.json", json.dumps(COCO | {"annotations": [{"image_id": 7, "bbox": [0, 0, 1, 1]}]}), "no caption"),
        ("c.token", "a.png#0\tright\n" + "wrong\n" * 3, "line 2: expected PICTURE#0<TAB>CAPTION"),
    ],
)
def test_wrong_files_are_refused(name, content, words):
    with pytest.raises(InputError) as error:
        read_captions(name, content.encode())
    assert words in str(error.value)
    assert str(error.value).startswith(name)


def test_another_encoding_is_refused():
    with pytest.raises(InputError, match=r"c.csv is not UTF-8 from byte 23 on"):
        read_captions("c.csv", "image,caption\na.png,caf\xe9\n".encode("latin-1"))


def test_a_few_wrong_lines_are_left_out(caplog):
    rows = [f"p{n}.jpg#0\tNumber {n}" for n in range(30)]
    rows[12] = "p12.jpg no tab"
    found = read_captions("c.token", lines(rows).encode())
    assert len(found.sentences) == 29
    assert "left out 1 of 30 lines: line 13: expected PICTURE#0<TAB>CAPTION" in caplog.text


def test_separators_of_other_scripts_end_no_line():
    rows = json.dumps({"file": "a.png", "captions": ["one\u2028line"]}, ensure_ascii=False)
    assert read_captions("c.jsonl", rows.encode()).sentences == {"a.png": ["one line"]}


def test_several_files_are_taken_together_unless_they_say_the_same(tmp_path, caplog):
    parts = {"annotations/captions_train.json": COCO}
    parts["annotations/captions_val.json"] = {
        "images": [{"id": 1, "file_name": "d.png"}],
        "annotations": [{"image_id": 1, "caption": "the last"}],
    }
    files = {name: json.dumps(content).encode() for name, content in parts.items()}
    source = open_source(write_folder(tmp_path, PICTURES | files))
    assert source.captions == [*SAID.values(), ["the last"]]
    write_folder(tmp_path, {"lemma.token": FORMATS["results.token"].encode()})
    assert open_source(tmp_path).captions is None
    assert "caption the same pictures; name one with --captions" in caplog.text
    assert open_source(tmp_path, captions="lemma.token").captions == [*SAID.values(), []]


def test_what_only_looks_like_captions_is_left_aside(tmp_path, caplog):
    files = PICTURES | {"metadata.csv": b"file,age\na.png,3\n", "tokenizer.json": b"{}", "notes.txt": b"a#1\tb"}
    with caplog.at_level(logging.INFO):
        assert open_source(write_folder(tmp_path, files)).captions is None
    assert not caplog.text
    write_folder(tmp_path, {"captions.csv": b"file,age\na.png,3\n"})
    assert open_source(tmp_path).captions is None
    assert "captions are not taken: captions.csv holds no captions" in caplog.text


SPLITS = {"a": "train", "b": "train", "c": "val", "d": "test"}
WITH_SPLITS = lines(json.dumps({"file": f"{n}.png", "split": s, "captions": [n]}) for n, s in SPLITS.items()).encode()


@pytest.mark.parametrize(("asked", "names"), [(None, "ab"), ("train", "ab"), ("val", "c"), ("test", "d")])
def test_captions_may_name_splits(asked, names, tmp_path):
    source = open_source(write_folder(tmp_path / "set", PICTURES | {"captions.jsonl": WITH_SPLITS}), asked)
    assert source.names == [f"images/{name}.png" for name in names]
    assert source.name == f"set/[{asked or 'train'}]"
    assert source.captions == [[name] for name in names]


def test_folders_name_splits_first(tmp_path):
    pictures = {f"{part}/{n}.png": PICTURES[f"images/{n}.png"] for part, n in zip(("train", "test"), "dc", strict=True)}
    path = write_folder(tmp_path, pictures | {"captions.jsonl": WITH_SPLITS})
    assert open_source(path).names == ["train/d.png"]
    assert open_source(path, "test").names == ["test/c.png"]
    assert open_source(path, "val").names == ["test/c.png"]
    with pytest.raises(InputError, match="unknown split"):
        open_source(path, "vla")


def test_karpathys_restval_is_training():
    rows = json.dumps({"file": "a.png", "split": "restval", "captions": ["x"]})
    assert read_captions("c.jsonl", rows.encode()).splits == {"a.png": "train"}


def test_sets_without_files_take_captions_by_number(tmp_path):
    np.save(tmp_path / "some.npy", np.stack([noise(n) for n in range(3)]))
    (tmp_path / "c.csv").write_text("image,caption\n0,first\n2,third\n")
    source = open_source(tmp_path / "some.npy", captions=str(tmp_path / "c.csv"))
    assert source.captions == [["first"], [], ["third"]]


def test_some_pictures_of_a_source():
    source = Arrays(np.stack([noise(n) for n in range(4)]), ["x", "y", "x", "y"], "four")
    source.captions = [["one"], [], ["three"], ["four"]]
    chosen = Chosen(source, np.array([0, 2, 3]))
    assert (len(chosen), chosen.names, chosen.captions) == (3, ["0", "2", "3"], [["one"], ["three"], ["four"]])
    assert chosen.labels.tolist() == [0, 0, 1]
    for index, number in enumerate((0, 2, 3)):
        np.testing.assert_array_equal(chosen.read(index), noise(number))
        assert chosen.look(index)[1] == source.look(number)[1]


def test_captions_know_their_file():
    found = Captions("c.csv", {"x/a.png": ["one"], "b.png": ["two"]}, {"b.png": "test"})
    placed = found.placed(["x/a.png", "y/b.png"], "set/")
    assert placed == Captions("c.csv", {"x/a.png": ["one"], "y/b.png": ["two"]}, {"y/b.png": "test"})


def test_flickr8k(real_data):
    train = open_source(real_data("flickr8k_128_train.zip"))
    assert len(train) == len(train.captions) == 6000
    assert {len(sentences) for sentences in train.captions} == {5}
    path = real_data("flickr8k_128_devtest.zip")
    assert len(open_source(path)) == 2091
    test = open_source(path, "test")
    assert (len(test), test.name) == (1000, "flickr8k_128_devtest.zip[test]")
    assert not set(test.names) & set(train.names)
