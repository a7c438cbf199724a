"""A few cells of the talk's tables, by the real command."""

import json

import yaml

from fullrank.training.monitor import read_metrics

SHORT = ["--data", "shapes:N=128,size=32", "--backbone", "test_resnet", "--batch_size", "32", "--steps", "4"]
SHORT += ["--report", "false", "--logger", "none", "--output", "run"]


def test_simsiam_without_tricks_held_apart_by_the_variance(command):
    head = ["--projector", "32-32-16", "--predictor", ""]
    alone = ["--stop_gradient", "false", "--batch_norm", "false", "--regularize.variance", "25"]
    done = command("train", "--method", "simsiam", *SHORT, *head, *alone)
    assert done.returncode == 0, done.stderr
    rows = read_metrics(command.folder / "run/metrics.csv")
    assert all(row["loss"] == row["loss"] for row in rows)
    assert {"similarity", "regularize_variance"} <= rows[-1].keys()
    config = yaml.safe_load((command.folder / "run/config.yaml").read_text())
    assert (config["predictor"], config["stop_gradient"], config["batch_norm"]) == ("", False, False)
    done = command("train", "--config", command.folder / "run/config.yaml", "--output", "again")
    assert done.returncode == 0, done.stderr
    again = read_metrics(command.folder / "again/metrics.csv")
    assert [row["loss"] for row in again] == [row["loss"] for row in rows]


def test_the_variance_of_a_cosine_loss_is_that_of_directions(command):
    """SimSiam's last batch norm fixes the standard deviation of Z itself: its term would be 0."""
    head = ["--projector", "32-32-16", "--predictor", "none"]
    done = command("train", "--method", "simsiam", *SHORT, *head, "--regularize.variance", "25")
    assert done.returncode == 0, done.stderr
    assert all(row["regularize_variance"] > 0 for row in read_metrics(command.folder / "run/metrics.csv"))


def test_a_transformer_beside_a_resnet(command):
    branches = ["--branches", "separate", "--backbone2", "vit_tiny_patch16_224"]
    done = command("train", "--method", "vicreg", *SHORT, "--expander", "32-16", *branches)
    assert done.returncode == 0, done.stderr
    done = command("diagnose", "run", "--report", "page.html")  # the second network is built and loaded too
    assert done.returncode == 0, done.stderr
    assert "report  page.html" in done.stderr


def test_vicreg_on_the_sphere_with_a_predictor(command):
    options = ["--normalize_embedding", "l2", "--predictor", "32-16", "--variance", "0", "--covariance", "0"]
    done = command("train", "--method", "vicreg", *SHORT, "--expander", "32-16", *options)
    assert done.returncode == 0, done.stderr


def test_a_predictor_that_says_the_same_of_every_picture_is_told(command):
    options = ["--expander", "64-32", "--predictor", "16-32", "--batch_norm", "false", "--learning_rate", "0.03"]
    done = command("train", "--method", "vicreg", *SHORT, *options, "--steps", "50")
    assert done.returncode == 0, done.stderr
    helps = "what to try: Turn batch norm on with --batch_norm true, or leave the predictor out with --predictor none"
    assert helps in done.stdout
    stored = json.loads((command.folder / "run/summary.json").read_text())["verdict"]["Z"]
    judged = json.loads(command("diagnose", "run", "--json").stdout)["embeddings"]["Z"]
    for verdict in (stored, judged):
        assert verdict["verdict"] == "healthy"
        assert verdict["remarks"][0].startswith("the predictor gives nearly the same vector for every picture")


def test_byol_has_no_separate_branches(command):
    line = command.fails("train", "--method", "byol", *SHORT, "--branches", "separate")
    assert "byol cannot have separate branches: the momentum encoder makes the targets" in line
    assert not (command.folder / "run").exists()
