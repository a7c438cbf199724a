"""SwAV's queue, DINO's teacher and centre, MSN's patches."""

import pytest
import torch
from torch import nn

from fullrank import distributed, losses, methods
from fullrank.errors import InputError
from fullrank.methods import Batch
from fullrank.networks import Queue
from fullrank.networks.vit import DropPath
from fullrank.schedules import Progress
from tests.contract.networks import N, TinyBackbone, batch, build, run


def at(progress: Progress, given: Batch) -> Batch:
    return Batch(given.views, given.index, given.labels, progress)


def test_swav_uses_its_queue_once_it_is_full(monkeypatch):
    rows = []
    codes = losses.swav_codes
    monkeypatch.setattr(
        losses, "swav_codes", lambda scores, **given: rows.append(len(scores)) or codes(scores, **given)
    )
    method = build("swav", queue=13, queue_from_epoch=1)
    for step in range(5):
        run(method, at(Progress(step, 5, 1.0), batch("swav", seed=step)))
    # Nothing is kept in epoch 0; two batches of 8 fill 13 places.
    assert rows == [N] * 6 + [N + 13] * 4
    assert all(queue.is_full for queue in method.queues)
    norms = method.queues[0].rows.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(13))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_queue_is_shared_out_without_rest(world, monkeypatch):
    queue = Queue(7, 2)
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    shares = []
    for rank in range(world):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(queue.share)
    assert torch.equal(torch.cat(shares), queue.rows)


def test_dino_keeps_the_teacher():
    method = build("dino")
    assert method.backbone is method.teacher.copy.backbone
    dropping = [name for name, module in method.named_modules() if isinstance(module, DropPath) and module.rate > 0]
    assert dropping
    assert all(name.startswith("network.") for name in dropping)
    before = [parameter.clone() for parameter in method.backbone.parameters()]
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    method.after_step(Progress(0, 10, 2))
    for old, new in zip(before, method.backbone.parameters(), strict=True):
        torch.testing.assert_close(new, 0.996 * old + 0.004 * (old + 1))


def test_dino_without_centring_keeps_its_centre_at_zero():
    centred, plain = build("dino"), build("dino", centering=False)
    for method in (centred, plain):
        run(method, batch("dino"))
    assert centred.center.abs().sum() > 0
    assert plain.center.abs().sum() == 0


def test_dino_clips_each_gradient_by_itself():
    method = build("dino", clip=0.5, freeze_epochs=0.0)
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    for number, parameter in enumerate(trained):
        parameter.grad = torch.full_like(parameter, 1.0 if number % 2 else 1e-3)
    method.before_step(Progress())
    norms = torch.stack([parameter.grad.norm() for parameter in trained])
    whole = torch.tensor([parameter.numel() ** 0.5 for parameter in trained])
    expected = torch.where(torch.arange(len(trained)) % 2 == 1, whole, 1e-3 * whole).clamp(max=0.5)
    torch.testing.assert_close(norms, expected, rtol=1e-4, atol=1e-4)


def test_dino_takes_any_backbone():
    method = methods.get("dino")(TinyBackbone(), projector="8-4", prototypes=6)
    assert torch.isfinite(run(method, batch("dino")).loss)


def test_msn_needs_a_transformer():
    with pytest.raises(InputError, match="msn needs a vision transformer"):
        methods.get("msn")(TinyBackbone())


def test_msn_drops_other_patches_in_every_step_and_the_same_of_every_image():
    method = build("msn", patch_drop=0.5)
    seen: list[torch.Tensor] = []
    images = batch("msn").views
    images = [image[:1].expand(N, -1, -1, -1).contiguous() for image in images]  # one picture N times
    block = method.network.backbone.blocks[0]
    block.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    for seed in (1, 2):
        run(method, Batch(images, torch.arange(N)), seed=seed)
    large = seen[::2]
    assert all(tokens.shape[1] == 1 + 8 for tokens in large)
    assert all(torch.equal(tokens[0], tokens[row]) for tokens in large for row in range(N))
    assert not torch.equal(large[0], large[1])


def test_msn_clips_all_but_the_prototypes():
    method = build("msn", clip=0.1)
    for parameter in method.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    method.before_step(Progress())
    norms = nn.utils.get_total_norm([parameter.grad for parameter in method.network.parameters()])
    torch.testing.assert_close(norms, torch.tensor(0.1), rtol=1e-4, atol=1e-5)
    assert method.prototypes.weight.grad.unique().tolist() == [1.0]
