"""What a run looks at while it goes on."""

import torch

from fullrank.training.monitor import Monitor


def monitor(tmp_path):
    return Monitor(
        tmp_path / "metrics.csv", every=1, look_every=1, probe=None, probe_every=1, hints={}, say=lambda words: None
    )


def test_z_is_looked_at_on_the_sphere_where_the_loss_sees_directions(tmp_path):
    looking = monitor(tmp_path)
    directions = torch.nn.functional.normalize(torch.randn(64, 16), dim=1)
    looks = []
    for length in (1.0, 0.01):  # the embedding shrinks, its directions stay
        for name in ("Y", "Z"):
            looking._recent[name].clear()
            looking._recent[name].append(length * directions)
        looks.append((looking._look(on_sphere=True), looking._look(on_sphere=False)))
    (first, plain_first), (then, plain_then) = looks
    assert abs(then["Z_std"] / first["Z_std"] - 1) < 1e-3
    assert abs(plain_then["Z_std"] / plain_first["Z_std"] - 0.01) < 1e-3
    assert abs(then["Y_std"] / first["Y_std"] - 0.01) < 1e-3
