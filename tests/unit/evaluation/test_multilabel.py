"""Several labels a picture: one logistic regression a class, against torch and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from torch import nn

from fullrank.errors import InputError
from fullrank.evaluation import MULTILABEL, PROTOCOLS, svm
from fullrank.evaluation.cache import Memory
from fullrank.evaluation.linear import fit_heads, several_labels
from fullrank.evaluation.multilabel import multilabel_probe
from fullrank.evaluation.svm import svm_protocol


def samples(n=600, m=1500, d=24, classes=5, seed=0):
    chance = torch.Generator().manual_seed(seed)
    features = torch.randn(n + m, d, generator=chance)
    logits = features @ torch.randn(d, classes, generator=chance) / 3 - 1
    targets = (torch.rand(n + m, classes, generator=chance) < logits.sigmoid()).long()
    return features[:n], targets[:n], features[n:], targets[n:]


def test_loss_and_gradient_are_those_of_torch():
    chance = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, 1, generator=chance, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(-1, 2, (6, 4), generator=chance)
    known = targets >= 0
    each = nn.functional.binary_cross_entropy_with_logits(logits[..., 0], targets.double(), reduction="none")
    wanted = (each * known).sum() / targets.numel()
    loss, gradient = several_labels(logits.detach(), targets)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-12)
    (expected,) = torch.autograd.grad((each * known).sum(), logits)
    torch.testing.assert_close(gradient, expected)


def test_it_is_as_good_as_scikit_learn():
    x, y, xt, yt = samples()
    result = multilabel_probe(x, y, xt, yt)
    theirs = [
        average_precision_score(yt[:, k], LogisticRegression().fit(x, y[:, k]).decision_function(xt))
        for k in range(y.shape[1])
    ]
    # Ours is the area below the envelope, which lies a little above the steps of scikit-learn's.
    assert result.scores["map"] == pytest.approx(100 * np.mean(theirs), abs=1.0)
    assert list(result.by_class) == ["0", "1", "2", "3", "4"]


def test_classes_that_cannot_be_learnt_or_judged_are_left_out():
    x, y, xt, yt = samples()
    y[:, 1], yt[:, 3] = 0, 0
    for protocol in ("linear", "svm"):
        result = MULTILABEL.get(protocol)(x, y, xt, yt)
        assert list(result.by_class) == ["0", "2", "4"]
        assert result.notes[0].startswith("2 of 5 classes are left out")


def test_the_svm_of_labels_is_that_of_one_against_all():
    chance = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (300,), generator=chance)
    x = torch.randn(3, 8, generator=chance)[labels] + torch.randn(300, 8, generator=chance)
    of_labels = PROTOCOLS.get("svm")(x[:200], labels[:200] * 2, x[200:], labels[200:] * 2, costs=(0.1, 1.0))
    targets = nn.functional.one_hot(labels, 3)
    of_targets = MULTILABEL.get("svm")(x[:200], targets[:200], x[200:], targets[200:], costs=(0.1, 1.0))
    assert of_labels.scores == of_targets.scores
    assert of_labels.by_class == {
        "0": of_targets.by_class["0"],
        "2": of_targets.by_class["1"],
        "4": of_targets.by_class["2"],
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_targets": None}, "the train data has no labels"),
        ({"test_targets": torch.full((1500, 5), 2)}, "test targets go from 2 to 2"),
        ({"train_targets": torch.zeros(600, 4, dtype=torch.long)}, "train targets have 4 classes and test targets 5"),
        ({"train_targets": torch.zeros(600, 5, dtype=torch.long)}, "no class has 1 train samples"),
        ({"train_targets": torch.zeros(600, 5)}, "expected .600, classes. of 1, 0 and -1"),
    ],
)
def test_targets_that_do_not_fit(change, words):
    x, y, xt, yt = samples()
    given = {"train_features": x, "train_targets": y, "test_features": xt, "test_targets": yt}
    with pytest.raises(InputError, match=words):
        multilabel_probe(**given | change)


def test_classes_begin_at_their_frequency():
    """Most are rare: a small rate would take all steps to learn no more than that."""
    chance = torch.Generator().manual_seed(0)
    features = torch.randn(400, 8, generator=chance)
    targets = (torch.rand(400, 3, generator=chance) < torch.tensor([0.02, 0.1, 0.5])).long()
    targets[:40, 2] = -1
    heads = fit_heads(features, targets, 3, [1e-9], epochs=1, batch_size=400, seed=0)
    known = targets[40:, 2]
    wanted = [(int(n) + 1) / (count + 2) for n, count in ((targets[:, 0].sum(), 400), (targets[:, 1].sum(), 400))]
    wanted.append((int(known.sum()) + 1) / (len(known) + 2))
    assert heads.bias[:, 0].sigmoid().tolist() == pytest.approx(wanted, rel=1e-5)


def test_a_stopped_svm_goes_on_with_the_class_that_is_missing(tmp_path, monkeypatch):
    chance = np.random.default_rng(0)
    x, targets = chance.normal(size=(60, 5)), (chance.random((60, 3)) < 0.4).astype(int)
    wanted = svm_protocol(x, targets, x, targets, costs=[0.1, 1.0])
    svm_protocol(x, targets[:, :2], x, targets[:, :2], Memory(tmp_path), costs=[0.1, 1.0])
    fitted = []
    monkeypatch.setattr(svm, "_score", lambda *given, score=svm._score: fitted.append(given) or score(*given))
    found = svm_protocol(x, targets, x, targets, Memory(tmp_path), costs=[0.1, 1.0])
    assert len(fitted) == 2  # two costs of one class
    assert (found.cross_validation == wanted.cross_validation).all()
    svm_protocol(x + 1e-9, targets, x, targets, Memory(tmp_path), costs=[0.1, 1.0])
    assert len(fitted) == 2 + 6
    for path in tmp_path.iterdir():
        path.write_text("[0.1, ")
    assert (svm_protocol(x, targets, x, targets, Memory(tmp_path), costs=[0.1, 1.0]).weights == wanted.weights).all()
