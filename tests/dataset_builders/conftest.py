"""Scenes and records that several test files read; nobody may change them."""

import pytest

from dataset_builders.spatial_reasoning import build_record
from tests.dataset_builders.scenes_for_tests import BREAKFAST, TWO_POSES, scene_of


@pytest.fixture(scope="session")
def breakfast():
    return scene_of(BREAKFAST, name="breakfast")


@pytest.fixture(scope="session")
def breakfast_twice():
    return scene_of(BREAKFAST, TWO_POSES, name="breakfast_twice")


@pytest.fixture(scope="session")
def records(breakfast, breakfast_twice):
    return [
        build_record(scene, seed=seed, order=order)
        for scene in (breakfast, breakfast_twice)
        for order in ("forward", "reverse", "random")
        for seed in range(25)
    ]
