"""Whatever trains a network gives its strided convolutions maps that are large enough (`networks.small_maps`)."""

import pytest
import torch
from torch import nn

import fullrank

SMALL = {
    "data": "shapes:N=64,size=16",
    "recipe": "default",
    "backbone": "test_resnet",
    "stem_stride": 4,
    "image_size": 16,
}
TRAINING = {"expander": "16-16", "batch_size": 16, "steps": 1, "report": False}


@pytest.fixture
def seen():
    """Stride and map of every strided convolution that computes while it trains."""
    found = []

    def look(module, inputs, output):
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1 and module.training:
            found.append((min(module.stride), min(inputs[0].shape[-2:])))

    handle = torch.nn.modules.module.register_module_forward_hook(look)
    yield found
    handle.remove()


def test_no_map_is_smaller_than_the_stride(seen, tmp_path):
    run = fullrank.train(**SMALL, **TRAINING, output=str(tmp_path / "run"))
    assert (2, 2) in seen  # 16 pixels leave one cell to the last of them
    assert all(cells >= stride for stride, cells in seen)
    seen.clear()
    run.evaluate("finetune", percent=50, epochs=1, batch_size=16)
    assert (2, 2) in seen
    assert all(cells >= stride for stride, cells in seen)
