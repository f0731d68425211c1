"""Offline, quiet, on few threads; set before any library is imported."""

import os

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

torch.set_num_threads(1)  # the models are tiny: more threads only wait for each other


@pytest.fixture(autouse=True)
def _deterministic():
    torch.manual_seed(0)


@pytest.fixture
def hub(monkeypatch):
    """A Hub on this machine, see tests/hub."""
    from tests.hub.clients import local_hub

    with local_hub(monkeypatch) as hub:
        yield hub


@pytest.fixture
def space(tmp_path):
    """The folder of a small Space."""
    from tests.hub.clients import make_space

    return make_space(tmp_path / "space")
