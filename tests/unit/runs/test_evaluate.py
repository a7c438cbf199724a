"""`fullrank evaluate` on networks of others and on other formats, and what it refuses; the command, in this process."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch

from fullrank.cli import main
from tests.unit.data.picture_files import encoded, write_folder
from tests.unit.training.test_detect import drawn


def pictures(count=24, size=32):
    """Dark ones and bright ones, not numbered in order."""
    chance = np.random.default_rng(0)
    return {
        f"{n:02}.png": encoded((chance.integers(0, 90, (size, size, 3)) + 150 * (n % 2)).astype(np.uint8))
        for n in range(count)
    }


def table(count=24):
    rows = [f"{n:02}.png,{'bright' if n % 2 else 'dark'},{'train' if n < 16 else 'test'}" for n in range(count)]
    return "\n".join(["file,label,split", *rows]).encode()


class Command:
    """The command line, called in a folder of its own."""

    def __init__(self, folder, captured):
        self.folder, self.captured = folder, captured

    def __call__(self, *arguments):
        code = main([str(each) for each in arguments])
        out, err = self.captured.readouterr()
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    def fails(self, *arguments):
        """Run what must be refused: exit code 2 and one line, which is returned."""
        done = self(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("fullrank: error: ")]
        return line


@pytest.fixture
def labelled(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    write_folder(tmp_path / "set", pictures() | {"labels.csv": table()})
    return Command(tmp_path, capsys)


@pytest.mark.parametrize("protocol", ["knn", "linear", "svm"])
def test_a_network_of_timm_on_a_table(protocol, labelled):
    arguments = ["timm:test_resnet", "--pretrained", "false", "--image_size", "32", "--data", "set"]
    done = labelled("evaluate", *arguments, "--protocol", protocol, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert next(iter(result["scores"].values())) > 90
    assert set(result["by_class"]) == {"bright", "dark"}
    assert (result["n_train"], result["n_test"]) == (16, 8)
    stored = labelled.folder / "evaluations/timm-test_resnet" / f"{protocol}-set-train.json"
    assert json.loads(stored.read_text())["scores"] == result["scores"]


def test_a_file_of_weights(labelled):
    torch.manual_seed(0)
    network = timm.create_model("test_resnet")
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, labelled.folder / "w.pth")
    done = labelled("evaluate", "w.pth", "--backbone", "test_resnet", "--image_size", "32", "--data", "set", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["top1"] > 90
    assert "do not fit" in labelled.fails("evaluate", "w.pth", "--backbone", "test_vit", "--data", "set")
    assert "add --backbone NAME" in labelled.fails("evaluate", "w.pth", "--data", "set")
    assert not (labelled.folder / "evaluations/w-pth/knn-set.json").exists()


def test_fine_tuning(labelled):
    arguments = ["timm:test_resnet", "--pretrained", "false", "--image_size", "32", "--data", "set"]
    arguments += ["--protocol", "finetune", "--percent", "50", "--epochs", "2", "--seeds", "2", "--json"]
    done = labelled("evaluate", *arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["n_train"] == 8
    assert set(result["details"]) == {"seed=0", "seed=1"}
    assert "epoch 2/2" in done.stderr
    assert not list(labelled.folder.rglob("*.ckpt"))


def test_seeds_where_there_is_chance(labelled):
    arguments = ["timm:test_resnet", "--pretrained", "false", "--image_size", "32", "--data", "set", "--seeds", "2"]
    done = labelled("evaluate", *arguments, "--protocol", "linear", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"seed=0", "seed=1"} <= set(result["details"])
    assert max(each.get("loss_std", 0) for each in result["details"].values()) > 0  # other first weights, another order
    assert "top1_std" in result["scores"]
    assert (result["settings"]["seed"], result["settings"]["seeds"]) == (0, 2)
    shown = labelled("evaluate", *arguments, "--protocol", "linear").stdout
    assert "± is the standard deviation over 2 seeds" in shown
    assert "knn gives the same numbers for every seed" in labelled.fails("evaluate", *arguments)
    table = labelled("evaluate", *arguments, "--protocol", "transfer", "--protocols", "[linear, knn]")
    assert table.returncode == 0, table.stderr
    assert "missing" not in table.stdout
    assert "± is the standard deviation over 2 seeds" in table.stdout
    wrong = labelled.fails("evaluate", *arguments, "--protocol", "transfer", "--protocols", "[linear, finetunes]")
    assert "unknown protocol 'finetunes'" in wrong
    assert "seeds is 0" in labelled.fails("evaluate", *arguments[:-1], "0", "--protocol", "linear")


def test_several_labels_are_learnt_by_protocols_that_train(labelled):
    rows = [
        "file,label,split",
        *(f"{n:02}.png,{'dark|' * (n % 2)}all,{'test' if n > 7 else 'train'}" for n in range(12)),
    ]
    write_folder(labelled.folder / "many", pictures(12) | {"labels.csv": "\n".join(rows).encode()})
    arguments = ["timm:test_resnet", "--pretrained", "false", "--image_size", "32", "--data", "many", "--epochs", "1"]
    for protocol in (["finetune"], ["linear", "--schedule", "obow places"]):
        done = labelled("evaluate", *arguments, "--protocol", *protocol, "--json")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert list(result["scores"]) == ["map", "map_11", "best"]
        assert set(result["by_class"]) == {"dark", "all"}
        assert (result["n_train"], result["n_test"]) == (8, 4)


def test_options_belong_to_protocols(labelled):
    model = ["timm:test_resnet", "--pretrained", "false", "--data", "set"]
    assert "unknown option 'percent'" in labelled.fails("evaluate", *model, "--percent", "10")
    with pytest.raises(SystemExit):
        labelled("evaluate", "--protocol", "finetune", "--help")
    assert "--head_learning_rate" in labelled.captured.readouterr().out
    assert "unknown protocol 'kn'" in labelled.fails("evaluate", *model, "--protocol", "kn")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["timm:test_resnet", "--pretrained", "false"], "is not a run, which remembers its data: add --data"),
        (["timm:test_resnot"], "unknown timm model 'test_resnot'"),
        (["nothing"], "no model 'nothing'"),
        (["timm:test_resnet", "--pretrained", "false", "--data", "set", "--layer", "layer9"], "unknown layer 'layer9'"),
        (["timm:test_resnet", "--pretrained", "false", "--data", "bare"], "has no labels"),
        (["timm:test_resnet", "--pretrained", "false", "--data", "set", "--protocol", "detection"], "has no boxes"),
        (["timm:test_resnet", "--pretrained", "false", "--data", "set", "--protocol", "retrieval"], "needs a run"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(arguments, words, labelled):
    write_folder(labelled.folder / "bare", pictures(4))
    assert words in labelled.fails("evaluate", *arguments)
    assert not (labelled.folder / "evaluations").exists()


def test_transfer_names_what_is_missing(labelled):
    arguments = ["timm:test_resnet", "--pretrained", "false", "--image_size", "32", "--protocol", "transfer"]
    done = labelled("evaluate", *arguments, "--sets", "[set, gone.zip]", "--protocols", "[knn, svm]")
    assert done.returncode == 0, done.stderr
    assert "missing: gone.zip, knn: no file or folder 'gone.zip'" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.strip().startswith("set"))
    assert "top1" in row
    assert "map" in row


def test_a_set_of_the_hub(labelled):
    """Its pictures are streamed, and the first ones of both parts are judged."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dark", "bright"])})
    files = list(pictures().items())
    (labelled.folder / "hub").mkdir()
    for split, some in (("train", files[:16]), ("test", files[16:])):
        rows = {"image": [{"bytes": content, "path": name} for name, content in some]}
        rows |= {"label": [int(name[:2]) % 2 for name, _ in some]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(labelled.folder / f"hub/{split}.parquet")
    arguments = ["timm:test_resnet", "--pretrained", "false", "--image_size", "32", "--k", "[3]", "--json"]
    done = labelled("evaluate", *arguments, "--data", f"hf:{labelled.folder}/hub")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["top1"] > 90
    assert (result["n_train"], result["n_test"], set(result["by_class"])) == (16, 8, {"dark", "bright"})


def squares(count, seed):
    """COCO's format: pictures with a bright square each, of two kinds."""
    files, content = drawn(count, seed)
    return files | {f"instances_{'train' if seed == 0 else 'test'}.json": content}


def test_detection(labelled):
    pytest.importorskip("pycocotools")
    write_folder(labelled.folder / "squares", squares(6, 0) | squares(3, 1))
    arguments = ["timm:test_resnet", "--pretrained", "false", "--data", "squares", "--protocol", "detection"]
    arguments += ["--steps", "2", "--batch_size", "2", "--regions", "16", "--proposals", "20"]
    done = labelled("evaluate", *arguments, "--variants", "[finetuned, scratch]", "--detector", "fpn", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["n_train"], result["n_test"]) == (6, 3)
    assert set(result["details"]) == {"finetuned", "scratch"}
    assert set(result["by_class"]) <= {"green", "red"}
    assert {"box_ap", "mask_ap", "voc_ap50"} <= set(result["scores"])
    assert list(labelled.folder.rglob("detection-fpn-squares-train.json"))
    labelled.captured.readouterr()


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_network_of_torchvision_detects(precision, labelled):
    pytest.importorskip("pycocotools")
    write_folder(labelled.folder / "squares", squares(4, 0) | squares(2, 1))
    arguments = ["torchvision:resnet18", "--pretrained", "false", "--data", "squares", "--protocol", "detection"]
    arguments += ["--steps", "1", "--batch_size", "2", "--regions", "8", "--proposals", "8", "--masks", "false"]
    done = labelled("evaluate", *arguments, "--precision", precision, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["settings"]["detector"] == "c4"


def test_random_weights_follow_from_the_seed(labelled):
    arguments = ["timm:test_resnet", "--pretrained", "false", "--image_size", "32", "--data", "set", "--json"]
    digests = [json.loads(labelled("evaluate", *arguments, "--seed", seed).stdout)["weights"] for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_shares_of_the_labels_have_results_of_their_own(labelled):
    arguments = ["timm:test_resnet", "--pretrained", "false", "--image_size", "32", "--data", "set"]
    arguments += ["--protocol", "finetune", "--epochs", "1", "--json"]
    for percent in ("50", "100"):
        assert labelled("evaluate", *arguments, "--percent", percent).returncode == 0
    stored = sorted(path.name for path in labelled.folder.rglob("finetune*.json"))
    assert stored == ["finetune-100percent-set-train.json", "finetune-50percent-set-train.json"]


def test_what_is_judged_was_not_learnt_from(labelled):
    model = ["timm:test_resnet", "--pretrained", "false", "--image_size", "32", "--k", "[3]", "--json"]
    ordered = list(pictures().items())
    by_class = {f"val/{'bright' if n % 2 else 'dark'}/{name}": content for n, (name, content) in enumerate(ordered)}
    write_folder(labelled.folder / "only_val", by_class)
    result = json.loads(labelled("evaluate", *model, "--data", "only_val").stdout)
    assert (result["n_train"], result["n_test"]) == (19, 5)
    rows = ["file,label,split", *(f"{n:02}.png,{n % 2},{'val' if n < 8 else 'train'}" for n in range(24))]
    write_folder(labelled.folder / "listed", pictures() | {"labels.csv": "\n".join(rows).encode()})
    result = json.loads(labelled("evaluate", *model, "--data", "listed", "--split", "train").stdout)
    assert (result["n_train"], result["n_test"]) == (16, 8)
    error = labelled.fails("evaluate", *model[:-1], "--data", "listed", "--split", "train", "--test_split", "train")
    assert "has the pictures of listed/[train] and no others" in error


def test_a_test_part_without_labels_is_passed_over(labelled):
    """As challenges give it: labels of train alone."""
    files = {f"{'train' if n < 16 else 'test'}/{name}": content for n, (name, content) in enumerate(pictures().items())}
    rows = ["file,label", *(f"{n:02}.png,{n % 2}" for n in range(16))]
    write_folder(labelled.folder / "challenge", files | {"train.csv": "\n".join(rows).encode()})
    arguments = ["timm:test_resnet", "--pretrained", "false", "--image_size", "32", "--data", "challenge", "--json"]
    result = json.loads(labelled("evaluate", *arguments, "--k", "[3]").stdout)
    assert (result["n_train"], result["n_test"]) == (13, 3)


def test_folders_that_only_number_parts_are_no_classes(labelled):
    files = {f"images_00{1 + n % 3}/{name}": content for n, (name, content) in enumerate(pictures().items())}
    rows = ["Image Index,Finding Labels", *(f"{n:02}.png,{'bright' if n % 2 else 'dark'}" for n in range(24))]
    write_folder(labelled.folder / "parts", files | {"Data_Entry_2017.csv": "\n".join(rows).encode()})
    arguments = ["timm:test_resnet", "--pretrained", "false", "--image_size", "32", "--data", "parts", "--json"]
    assert set(json.loads(labelled("evaluate", *arguments, "--k", "[3]").stdout)["by_class"]) == {"bright", "dark"}


def test_detection_needs_something_to_find(labelled):
    rows = ["filename,class,xmin,ymin,xmax,ymax,split", *(f"{n:02}.png,dark,2,2,20,20,train" for n in range(4))]
    rows += [f"{n:02}.png,,,,,,test" for n in range(4, 8)]
    write_folder(labelled.folder / "boxes", pictures(8) | {"labels.csv": "\n".join(rows).encode()})
    arguments = ["timm:test_resnet", "--pretrained", "false", "--data", "boxes", "--protocol", "detection"]
    error = labelled.fails("evaluate", *arguments, "--steps", "1")
    assert "nothing is marked in the 4 pictures of boxes/[test]" in error
