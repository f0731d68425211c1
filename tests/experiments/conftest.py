"""One small world for all tests of the starting models."""

import pytest

from tests.experiments.starting_models import build_rooms


@pytest.fixture(scope="session")
def rooms(tmp_path_factory):
    return build_rooms(tmp_path_factory.mktemp("world") / "rooms")
