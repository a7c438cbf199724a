"""What frozen features are judged by elsewhere: average precision, the VOC SVM, fine-tuning rates, the map head."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn

from fullrank.evaluation.average_precision import average_precision, precision_recall
from fullrank.evaluation.finetuning import COSINE, COSINE_BY_EPOCH, PUBLISHED, FineTuning, root_scaled, staircase
from fullrank.evaluation.map_head import RESNET50, MapHead
from fullrank.evaluation.svm import cost_list, fit_svm, held_out_folds, svm_protocol, unit_features
from fullrank.schedules import Progress
from tests.reference.state import load, tensor


def outputs(file: dict) -> set[str]:
    return {key for key in file if key.startswith(("out_", "grad_"))}


def test_average_precision(fixture_file, error_table) -> None:
    file = fixture_file("voc_ap")
    columns = list(zip(file["in_scores"].T, file["in_targets"].T, strict=True))
    ours = dict(zip(("out_precision_0", "out_recall_0"), precision_recall(*columns[0]), strict=True))
    ours["out_ap_area"] = [average_precision(*column) for column in columns]
    ours["out_ap_11"] = [average_precision(*column, rule="11-point") for column in columns]
    ours["out_ap_sklearn"] = [average_precision_score(t[t >= 0], s[t >= 0]) for s, t in columns]
    ours["out_map_area"] = np.mean(ours["out_ap_area"])
    assert ours.keys() == outputs(file)
    for key, value in ours.items():
        error_table.check("voc_ap", key, value, file[key])


def test_svm_protocol(fixture_file, error_table) -> None:
    file, name = fixture_file("voc_svm_protocol"), "voc_svm_protocol"
    p = file["params"]
    assert (p["class_weight"], p["folds"], p["norm_eps"], p["intercept_scaling"]) == ({"-1": 1, "1": 2}, 3, 1e-5, 1.0)
    x, t = file["in_train_x"], file["in_train_t"]
    found = svm_protocol(x, t, file["in_test_x"], file["in_test_t"], costs=p["costs"])
    ours = {"out_cv_ap": found.cross_validation, "out_chosen": found.cost, "out_test_ap": found.average_precision}
    ours |= {"out_exact_w": found.weights, "out_exact_decision": found.decisions}
    for key, value in ours.items():
        error_table.check(name, key, value, file[key])
    folds = [held_out_folds(np.where(column == 1, 1, -1)) for column in t.T]
    error_table.check(name, "in_fold", folds, file["in_fold"])
    assert ours.keys() == outputs(file)


def test_the_svm_is_at_the_minimum(fixture_file) -> None:
    file = fixture_file("voc_svm_protocol")
    x, y = unit_features(file["in_train_x"]), np.where(file["in_train_t"][:, 0] == 1, 1, -1)
    w = torch.tensor(fit_svm(x, y, 2.0), requires_grad=True)
    rows = torch.tensor(np.append(x, np.ones((len(x), 1)), axis=1))
    sign = torch.tensor(y)
    hinge = (1 - sign * (rows @ w)).clamp_min(0).square() * torch.where(sign == 1, 2.0, 1.0)
    (w.square().sum() / 2 + 2.0 * hinge.sum()).backward()
    assert w.grad.abs().max() < 1e-10


def test_svm_costs(fixture_file, error_table) -> None:
    file = fixture_file("voc_svm_costs")
    p = file["params"]
    costs, powers = [float(cost) for cost in p["costs"].split(",")], tuple(p["power_range"])
    ours = {"out_fsb": cost_list(costs), "out_vissl": cost_list(costs, powers, p["base"])}
    assert ours.keys() == outputs(file)
    for key, value in ours.items():
        error_table.check("voc_svm_costs", key, value, file[key])


def rates(recipe: FineTuning, steps: int, per_epoch: int = 1) -> np.ndarray:
    """(steps, 2): of the network and the head."""
    return np.array([recipe.rates(Progress(step, steps, per_epoch)) for step in range(steps)])


def test_finetune_schedules(fixture_file, error_table) -> None:
    file = fixture_file("finetune_schedules")
    p, steps = file["params"], 3  # of an epoch: rates change between epochs only
    swav, obow, simclr = p["swav"], p["obow"], p["simclr"]
    assert simclr["scaling"] == "sqrt"
    stairs = {
        "multistep": (swav, swav["decay"], swav["gamma"]),
        "obow": (obow, obow["milestones"], obow["decay"]),
    }
    recipes = {"cos": (FineTuning(p["lr_backbone"], p["lr_head"], COSINE_BY_EPOCH), p["epochs"])}
    for name, (q, milestones, gamma) in stairs.items():
        schedule = staircase(tuple(milestones), q["epochs"], gamma)
        recipes[name] = FineTuning(q["lr"], q["lr_head"], schedule), q["epochs"]
    ours = {}
    for name, (recipe, epochs) in recipes.items():
        found = rates(recipe, epochs * steps, steps).reshape(epochs, steps, 2)
        assert (found == found[:, :1]).all()
        ours |= {f"out_{name}_{'backbone' if name == 'cos' else 'trunk'}": found[:, 0, 0]}
        ours |= {f"out_{name}_head": found[:, 0, 1]}
    rate = root_scaled(simclr["base"], simclr["batch"])
    ours["out_simclr"] = rates(FineTuning(rate, rate, COSINE), simclr["steps"])[:, 0]
    assert ours.keys() == outputs(file)
    for key, value in ours.items():
        error_table.check("finetune_schedules", key, value, file[key])


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_fall_to_less_than_a_tenth(name) -> None:
    found = rates(PUBLISHED[name], PUBLISHED[name].epochs)
    assert found[0].tolist() == pytest.approx([PUBLISHED[name].trunk, PUBLISHED[name].head])
    assert (np.diff(found, axis=0) <= 0).all()
    assert (found[-1] < found[0] / 10).all()


def test_linear_eval_head(precision, fixture_file, error_table) -> None:
    file, name = fixture_file("linear_eval_head"), "linear_eval_head"
    p = file["params"]
    width = file["in_w"].shape[1]
    head = MapHead(p["C"], width, p["classes"], kernel=p["kernel"], stride=p["stride"], padding=p["pad"])
    head.to(getattr(torch, precision))
    names = {"1.weight": "in_bn_w", "1.bias": "in_bn_b", "3.weight": "in_w", "3.bias": "in_b"}
    load(head, file, names, precision)
    maps = tensor(file, "in_map", precision).requires_grad_()
    logits = head(maps)
    (logits * tensor(file, "in_weight", precision)).sum().backward()
    ours = {"out_pooled": head.pooled(maps), "out_logits": logits, "grad_map": maps.grad}
    ours |= {key.replace("in_", "grad_"): head.get_parameter(own).grad for own, key in names.items()}
    norm = head[1]
    assert isinstance(norm, nn.BatchNorm2d)
    ours |= {"out_running_mean": norm.running_mean, "out_running_var": norm.running_var}
    ours["out_dims"] = torch.tensor([stage.width for stage in RESNET50.values()])
    assert ours.keys() == outputs(file)
    for key, value in ours.items():
        error_table.check(name, key, value, file[key], precision=precision)


def test_every_stage_has_a_head() -> None:
    for stage in RESNET50.values():
        maps = torch.randn(2, stage.channels, stage.side, stage.side)
        assert MapHead.of(stage, 3)(maps).shape == (2, 3)
