"""Tiny checkpoints, saved once a session, and images of two shapes."""

import numpy as np
import pytest
from transformers.utils import logging

from tests.dataset_builders.perception import tiny_perception_models


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of a tiny checkpoint by the name of its `save_` function."""
    logging.disable_progress_bar()
    saved = {}

    def folder(kind, **changes):
        key = (kind, *sorted(changes.items()))
        if key not in saved:
            saved[key] = tiny_perception_models.save(kind, tmp_path_factory.mktemp(kind), **changes)
        return saved[key]

    return folder


@pytest.fixture(scope="session")
def images():
    generator = np.random.default_rng(0)
    shapes = ((40, 60, 3), (48, 30, 3), (40, 60, 3))
    return [generator.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
