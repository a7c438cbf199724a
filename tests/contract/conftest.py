import jaxtyping
import pytest


@pytest.fixture
def unchecked_shapes():
    """Shape checks off, as in production: torch.compile cannot trace them."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
