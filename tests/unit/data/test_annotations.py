"""Labels, boxes and masks from files: every format, splits, and what is wrong with them."""

import io
import json
import logging

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from fullrank.data import masks, open_source
from fullrank.data.annotations import read_annotations
from fullrank.errors import InputError
from tests.unit.data.picture_files import encoded, noise, write_archive, write_folder

PICTURES = {f"images/{name}.png": encoded(noise(number)) for number, name in enumerate("abcd")}
ONE = {"a": "cat", "b": "dog", "c": "cat"}
SEVERAL = {"a": ["cat", "dog"], "b": [], "c": ["dog"]}


def lines(rows):
    return ("\n".join(rows) + "\n").encode()


def parquet(columns):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


SINGLE = {
    "labels.csv": lines(["image,label", *(f"{name}.png,{label}" for name, label in ONE.items())]),
    "train.csv": lines(["id;breed;class", *(f"{name};x;{label}" for name, label in ONE.items())]),
    "labels.tsv": lines(["File Name\tClass Name", *(f"images/{name}.png\t{label}" for name, label in ONE.items())]),
    "labels.parquet": parquet({"path": [f"{name}.png" for name in ONE], "label": list(ONE.values())}),
    "metadata.jsonl": lines(json.dumps({"file_name": f"{name}.png", "label": label}) for name, label in ONE.items()),
    "labels.json": json.dumps({f"{name}.png": label for name, label in ONE.items()}).encode(),
    "annotations.json": json.dumps([{"image": f"{n}.png", "category": label} for n, label in ONE.items()]).encode(),
}
MANY = {
    "labels.csv": lines(["Image Index,Finding Labels", "a.png,cat|dog", "b.png,No Finding", "c.png,dog"]),
    "labels.parquet": parquet({"path": ["a.png", "b.png", "c.png"], "labels": [["cat", "dog"], [], ["dog"]]}),
    "labels.jsonl": lines(json.dumps({"image": f"{n}.png", "tags": tags}) for n, tags in SEVERAL.items()),
    "train.csv": lines(["image,cat,dog,age", "a.png,1,1,30", "b.png,0,0,41", "c.png,0,1,52"]),
    "metadata.csv": lines(["image,cat,dog", "a.png,1,1", "b.png,-1,-1", "c.png,-1,1"]),
}


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("kind", ["folder", ".zip", ".tar.xz"])
def test_tables_of_one_label(name, kind, tmp_path):
    files = PICTURES | {name: SINGLE[name]}
    path = tmp_path / f"set{kind}"
    path = write_folder(path, files) if kind == "folder" else write_archive(path, files)
    assert open_source(path).labels is None
    source = open_source(path, annotations="auto")
    assert source.classes == ["cat", "dog"]
    assert source.labels.tolist() == [0, 1, 0, -1]  # nothing is known of the last
    assert source.targets is None


@pytest.mark.parametrize("name", MANY)
def test_tables_of_several_labels(name, tmp_path):
    source = open_source(write_folder(tmp_path / "set", PICTURES | {name: MANY[name]}), annotations="auto")
    assert source.classes == ["cat", "dog"]
    assert source.labels is None
    assert source.targets.tolist() == [[1, 1], [0, 0], [0, 1], [-1, -1]]


def test_what_is_unsure_is_neither():
    """As in CheXpert: 1 present, 0 or empty absent, -1 unsure."""
    found = read_annotations("train.csv", lines(["path,cat,dog", "a,1,-1", "b,0,", "c,,1"]))
    assert found.table(["a", "b", "c"]).tolist() == [[1, -1], [0, 0], [0, 1]]


def test_numbers_are_classes_in_their_order():
    found = read_annotations("labels.csv", lines(["image,label", "a,10", "b,9", "c,10"]))
    assert found.classes == ["9", "10"]
    assert found.numbers(["a", "b", "c"]).tolist() == [1, 0, 1]


def test_a_column_can_be_named():
    content = lines(["image,label,species", "a,1,wolf", "b,2,fox"])
    assert read_annotations("t.csv", content, column="species").classes == ["fox", "wolf"]
    with pytest.raises(InputError, match=r"unknown column of t.csv 'specie'.*species"):
        read_annotations("t.csv", content, column="specie")


def test_a_table_names_splits(tmp_path):
    content = lines(["image,label,split", "a.png,x,train", "b.png,y,train", "c.png,x,test", "d.png,y,test"])
    path = write_folder(tmp_path / "set", PICTURES | {"labels.csv": content})
    assert open_source(path, annotations="auto").names == ["images/a.png", "images/b.png"]
    test = open_source(path, "test", annotations="auto")
    assert (test.names, test.labels.tolist()) == (["images/c.png", "images/d.png"], [0, 1])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lines(["picture,label", "a,1"]), "holds no labels as they are known: expected a header with a column image"),
        (lines(["image,size,depth", "a,9,8"]), "none of its columns image, size, depth is called label"),
        (lines(["image,label"]), "it has no rows"),
        (
            lines(["image,label", "a,1,2", "b,1,2", "c,1"]),
            "2 of 3 rows cannot be used: line 2: 3 columns in place of 2",
        ),
        (lines(["image,label", "a,", "b,"]), "the column 'label' is empty"),
        (b"image,label\n\xff\xfe", "not UTF-8 from byte 12"),
    ],
)
def test_tables_that_are_none(content, words):
    with pytest.raises(InputError, match=words):
        read_annotations("labels.csv", content)


# --- COCO


def coco(boxes, **more):
    return json.dumps(
        {
            "images": [
                {"id": 4, "file_name": "images/a.png", "width": 8, "height": 6},
                {"id": 7, "file_name": "b.png", "width": 8, "height": 6},
            ],
            "categories": [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 5, "name": "cow"}],
            "annotations": [{"id": n, "image_id": 4, "iscrowd": 0} | box for n, box in enumerate(boxes)],
        }
        | more
    ).encode()


DOG = {"category_id": 9, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 4, 2, 4, 6, 1, 6]]}
CROWD = {"category_id": 5, "bbox": [0, 0, 8, 6], "iscrowd": 1, "segmentation": {"counts": [0, 48], "size": [6, 8]}}


def test_coco_boxes_and_labels(tmp_path):
    files = PICTURES | {"instances_train2017.json": coco([DOG, CROWD, {"category_id": 3, "bbox": [6, 0, 9, 2]}])}
    source = open_source(write_archive(tmp_path / "set.zip", files), annotations="auto")
    assert source.name == "set.zip"
    assert source.classes == ["cat", "cow", "dog"]
    assert source.targets.tolist() == [[1, -1, 1], [0, 0, 0], [-1] * 3, [-1] * 3]
    marked = source.objects[0]
    assert marked.boxes.tolist() == [[1, 2, 4, 6], [0, 0, 8, 6], [6, 0, 8, 2]]  # the last is cut at the border
    assert marked.labels.tolist() == [2, 1, 0]
    assert marked.ignored.tolist() == [False, True, False]
    assert marked.masks is None  # not every object has one
    assert len(source.objects[1]) == 0


def test_coco_polygons_and_run_lengths():
    pytest.importorskip("pycocotools")
    found = read_annotations("instances.json", coco([DOG, CROWD]))
    masks = found.objects["images/a.png"]().masks()
    wanted = np.zeros((6, 8), bool)
    wanted[2:6, 1:4] = True
    assert (masks[0] == wanted).all()
    assert masks[1].all()


@pytest.mark.parametrize("segmentation", [[[]], [[1, 2]], [], None, {"counts": [0, 12], "size": [3, 4]}, "x"])
def test_masks_that_are_none_leave_the_boxes(segmentation):
    found = read_annotations("instances.json", coco([DOG, DOG | {"segmentation": segmentation}]))
    marked = found.objects["images/a.png"]()
    assert (len(marked), marked.masks) == (2, None)


def test_a_crowd_without_a_mask_is_its_box():
    pytest.importorskip("pycocotools")
    found = read_annotations("instances.json", coco([DOG, CROWD | {"segmentation": None, "bbox": [2, 1, 4, 3]}]))
    marked = found.objects["images/a.png"]()
    assert marked.masks()[1].sum() == 12
    assert marked.single.tolist() == [True, False]


@pytest.mark.parametrize("kind", ["images", "categories"])
def test_coco_without_what_it_needs(kind):
    content = json.loads(coco([DOG]))
    content[kind][0] = {"id": 1}
    if kind == "categories":
        content[kind][0] = {"name": "cat"}
    with pytest.raises(InputError, match=r"lacks '(file_name|id)': expected COCO's format"):
        read_annotations("instances.json", json.dumps(content).encode())


def test_coco_files_of_several_splits_are_joined(tmp_path):
    other = coco(
        [{"category_id": 1, "bbox": [0, 0, 2, 2]}],
        images=[{"id": 4, "file_name": "d.png", "width": 8, "height": 6}],
        categories=[{"id": 1, "name": "owl"}, {"id": 2, "name": "cat"}],
    )
    files = PICTURES | {"instances_train.json": coco([DOG]), "instances_val.json": other}
    path = write_folder(tmp_path / "set", files)
    train, val = (open_source(path, split, annotations="auto") for split in ("train", "val"))
    assert train.classes == val.classes == ["cat", "cow", "dog", "owl"]
    assert (train.names, val.names) == (["images/a.png", "images/b.png"], ["images/d.png"])
    assert val.targets.tolist() == [[0, 0, 0, 1]]
    assert val.objects[0].labels.tolist() == [3]


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ({"category_id": 9, "bbox": [1, 1, 0, 3]}, "has no area"),
        ({"category_id": 9, "bbox": [1, 1, float("nan"), 3]}, "has no area"),
        ({"category_id": 9, "bbox": [8, 1, 2, 3]}, "lies outside the picture of 8 x 6 px"),
        ({"category_id": 4, "bbox": [1, 1, 2, 3]}, "category_id 4 is none of the categories"),
        ({"category_id": 9, "bbox": [1, 1, 2, 3], "image_id": 5}, "image_id 5 is none of the images"),
        ({"category_id": 9, "bbox": [1, 1, 2]}, "expected .left, top, width, height"),
    ],
)
def test_boxes_that_cannot_be_used(box, words, caplog):
    with pytest.raises(InputError, match=words):
        read_annotations("instances.json", coco([box]))
    with caplog.at_level(logging.WARNING):
        found = read_annotations("instances.json", coco([DOG] * 10 + [box]))
    assert len(found.objects["images/a.png"]()) == 10
    assert words.replace(".left", "[left") in caplog.text.replace("\n", " ")


# --- VOC


def xml(*objects, size=(8, 6)):
    parts = [
        f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box, hard in objects
    ]
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation>{sides}{''.join(parts)}</annotation>".encode()


def voc(**annotations):
    files = {f"VOC/JPEGImages/{name}.png": encoded(noise(n)) for n, name in enumerate("abcd")}
    files |= {f"VOC/Annotations/{name}.xml": content for name, content in annotations.items()}
    files |= {"VOC/SegmentationObject/a.png": encoded(np.tri(32, dtype=np.uint8))}
    files["VOC/ImageSets/Main/train.txt"] = b"a\nb\n"
    files["VOC/ImageSets/Main/val.txt"] = b"c\n"
    files["VOC/ImageSets/Main/test.txt"] = b"d\n"
    files["VOC/ImageSets/Main/cat_train.txt"] = b"a 1\nb -1\n"
    return files


VOC = voc(
    a=xml(("dog", (1, 1, 8, 6), 0), ("cat", (2, 3, 4, 5), 1)),
    b=xml(("cat", (1, 1, 4, 4), 0), ("cat", (1, 1, 2, 2), 1)),
    c=xml(),
    d=xml(("dog", (1, 1, 2, 2), 0)),
)


def test_voc(tmp_path):
    path = write_archive(tmp_path / "voc.tar", VOC)
    assert open_source(path, annotations="auto").name == "voc.tar[trainval]"  # beside test, which is published
    source = open_source(path, "train", annotations="auto")
    assert source.names == ["VOC/JPEGImages/a.png", "VOC/JPEGImages/b.png"]
    assert source.classes == ["cat", "dog"]
    assert source.targets.tolist() == [[-1, 1], [1, 0]]  # a difficult cat is neither there nor absent
    assert source.objects[0].boxes.tolist() == [[0, 0, 8, 6], [1, 2, 4, 5]]  # VOC counts from 1
    assert source.objects[0].ignored.tolist() == [False, True]
    assert len(open_source(path, "trainval", annotations="auto")) == 3
    assert open_source(path, "test", annotations="auto").names == ["VOC/JPEGImages/d.png"]
    assert open_source(path, "val", annotations="auto").targets.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<annotation>", "no XML"),
        (xml(("dog", (5, 1, 4, 6), 0)), "has no area"),
        (xml(("dog", (30, 1, 40, 6), 0)), "lies outside"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><annotation/>', "defines entities"),
        (b"<annotation><object><name>dog</name></object></annotation>", "no bndbox"),
    ],
)
def test_voc_files_that_cannot_be_used(content, words, tmp_path):
    path = write_folder(tmp_path / "set", voc(a=content))
    with pytest.raises(InputError, match=words):
        open_source(path, annotations="auto")


# --- masks


def index_map(values):
    file = io.BytesIO()
    Image.fromarray(np.array(values, np.uint8)).save(file, "PNG")
    return file.getvalue()


NUMBERED = [[0, 0, 1, 1], [0, 0, 1, 0], [7, 7, 0, 0], [7, 7, 0, 0]]


@pytest.mark.parametrize(
    "layout",
    [
        {"PNGImages/a.png": 0, "PedMasks/a_mask.png": NUMBERED},
        {"images/a.png": 0, "masks/a.png": NUMBERED},
        {
            "a/images/a.png": 0,
            "a/masks/x.png": [[0, 0, 255, 255], [0, 0, 255, 0], [0] * 4, [0] * 4],
            "a/masks/y.png": [[0] * 4, [0] * 4, [255, 255, 0, 0], [255, 255, 0, 0]],
        },
    ],
)
def test_masks_beside_pictures(layout, tmp_path):
    files = {name: index_map(values) if values else encoded(noise(3)) for name, values in layout.items()}
    path = write_folder(tmp_path / "set", files)
    assert len(open_source(path)) == 1  # masks are no pictures
    source = open_source(path, annotations="auto")
    marked = source.objects[0]
    assert source.classes == ["object"]
    assert marked.boxes.tolist() == [[2, 0, 4, 2], [0, 2, 2, 4]]
    masks = marked.masks()
    assert [int(mask.sum()) for mask in masks] == [3, 4]
    assert masks[0].tolist()[1] == [False, False, True, False]


def test_photographs_in_a_folder_that_is_called_mask_are_a_class(tmp_path):
    names = ["mask/0", "mask/1", "normal/0", "normal/1", "other/2"]
    files = {f"{name}.png": encoded(noise(n)) for n, name in enumerate(names)}
    assert masks.pair(list(files))  # by their names
    assert open_source(write_folder(tmp_path / "set", files)).classes == ["mask", "normal", "other"]


def test_masks_that_were_stored_with_losses_are_black_and_white(tmp_path):
    disc = np.zeros((64, 64), np.uint8)
    disc[20:44, 20:44] = 255
    file = io.BytesIO()
    Image.fromarray(disc).save(file, "JPEG", quality=60)
    files = {"images/a.png": encoded(noise(3)), "masks/a.jpg": file.getvalue()}
    marked = open_source(write_folder(tmp_path / "set", files), annotations="auto").objects[0]
    assert marked.boxes.tolist() == [[20, 20, 44, 44]]


def test_files_beside_their_pictures_mean_those(tmp_path):
    """As in a download with a file in each split's folder, where names repeat."""
    parts = {}
    for split in ("train", "valid"):
        content = {
            "images": [{"id": 1, "file_name": "0.png", "width": 8, "height": 6}],
            "categories": [{"id": 1, "name": "x"}],
        }
        content["annotations"] = [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 2 if split == "train" else 5]}
        ]
        parts |= {f"{split}/0.png": encoded(noise(1)), f"{split}/_annotations.coco.json": json.dumps(content).encode()}
    folder = write_folder(tmp_path / "set", parts)
    heights = [open_source(folder, split, annotations="auto").objects[0].boxes[0, 3] for split in ("train", "valid")]
    assert heights == [2, 5]


def test_a_picture_with_two_labels_among_many_is_a_slip(caplog):
    rows = ["image,label", *(f"{n},{'cat' if n % 2 else 'dog'}" for n in range(20)), "3,dog"]
    found = read_annotations("labels.csv", lines(rows))
    assert not found.several
    assert "3" not in found.labels
    assert "'3' has two labels" in caplog.text


def test_the_one_column_of_words_is_the_class():
    found = read_annotations(
        "boxes.csv", lines(["filename,cell_type,xmin,ymin,xmax,ymax", "a,RBC,0,0,4,4", "a,WBC,4,4,8,8"])
    )
    assert found.classes == ["RBC", "WBC"]


def test_a_list_names_masks_and_splits(tmp_path):
    rows = [
        {"file": "images/a.png", "mask": "m/1.png", "split": "train"},
        {"file": "images/b.png", "mask": "m/2.png", "split": "test"},
    ]
    files = {name: PICTURES[name] for name in ("images/a.png", "images/b.png")}
    files |= {"m/1.png": index_map(NUMBERED), "m/2.png": index_map([[0, 5]])}
    path = write_folder(tmp_path / "set", files | {"annotations.json": json.dumps(rows).encode()})
    assert open_source(path, annotations="auto").names == ["images/a.png"]
    assert open_source(path, "test", annotations="auto").objects[0].boxes.tolist() == [[1, 0, 2, 1]]


def test_classes_that_are_called_masks_stay_pictures(tmp_path):
    files = {f"{kind}/{n}{kind[0]}.png": encoded(noise(n)) for kind in ("masks", "hats") for n in range(3)}
    source = open_source(write_folder(tmp_path / "set", files))
    assert source.classes == ["hats", "masks"]
    assert len(source) == 6


def test_a_file_that_is_named_must_be_there(tmp_path):
    path = write_folder(tmp_path / "set", PICTURES | {"labels.csv": SINGLE["labels.csv"]})
    with pytest.raises(InputError, match=r"annotations 'lables.csv': no file of this name; set/ has 'labels.csv'"):
        open_source(path, annotations="lables.csv")
    with pytest.raises(InputError, match="names none of the 4 pictures"):
        open_source(
            write_folder(tmp_path / "other", PICTURES | {"labels.csv": b"image,label\nz.png,1\n"}), annotations="auto"
        )


BOXES = {
    "train.csv": lines(
        [
            "filename,width,height,class,xmin,ymin,xmax,ymax",
            "a.png,8,8,cat,1,2,5,6",
            "a.png,8,8,dog,0,0,20,4",
            "b.png,8,8,,,,,",
        ]
    ),
    "labels.csv": lines(["image_id,bbox,label", 'a,"[1, 2, 4, 4]",cat', 'a,"[0, 0, 8, 4]",dog', "b,,"]),
    "annotations.parquet": parquet(
        {
            "path": ["a.png", "a.png", "b.png"],
            "label": ["cat", "dog", ""],
            "bbox": [[1.0, 2.0, 4.0, 4.0], [0.0, 0.0, 8.0, 4.0], []],
        }
    ),
}


@pytest.mark.parametrize("name", BOXES)
def test_tables_of_boxes(name, tmp_path):
    source = open_source(write_folder(tmp_path / "set", PICTURES | {name: BOXES[name]}), annotations="auto")
    assert source.classes == ["cat", "dog"]
    found = [source.objects[place] for place in range(4)]
    assert found[0].boxes.tolist() == [[1, 2, 5, 6], [0, 0, 8, 4]]
    assert found[0].labels.tolist() == [0, 1]
    assert [len(each) for each in found] == [2, 0, 0, 0]
    assert source.targets.tolist() == [[1, 1], [0, 0], [-1, -1], [-1, -1]]


def test_a_table_of_boxes_without_classes_has_one():
    found = read_annotations("boxes.csv", lines(["image,x1,y1,x2,y2", "a,0,0,4,4", "a,4,4,8,8"]))
    assert (found.classes, len(found.objects["a"]())) == (["object"], 2)


def test_boxes_of_a_table_that_cannot_be_used():
    with pytest.raises(InputError, match=r"2 of 3 boxes cannot be used: line 2: the box .* no area"):
        read_annotations("boxes.csv", lines(["image,x1,y1,x2,y2", "a,4,0,4,4", "a,4,?,8,8", "a,0,0,2,2"]))
