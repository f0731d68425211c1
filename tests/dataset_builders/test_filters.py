"""Overlap of views against geometry worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from dataset_builders.filters import check_overlap, overlap, overlaps
from dataset_builders.scene import DropItem, Intrinsics, Scene, View

SIZE = 40


def wall_view(x_m: float, turned: bool = False) -> View:
    """A camera 2 m before an endless wall at z = 2, moved sideways; its picture spans 2 m of wall."""
    pose = np.eye(4)
    pose[0, 3] = x_m
    if turned:  # looks away from the wall, at another one 2 m behind
        pose[0, 0] = pose[2, 2] = -1
    return View(
        image=np.zeros((SIZE, SIZE, 3), dtype=np.uint8),
        depth_m=np.full((SIZE, SIZE), 2, dtype=np.float32),
        intrinsics=Intrinsics(SIZE, SIZE, (SIZE - 1) / 2, (SIZE - 1) / 2),
        camera_to_world=pose,
    )


def scene(*views: View) -> Scene:
    return Scene("wall", "test", "CC0-1.0", views, depth_noise=0.0)


@pytest.mark.parametrize(("x_m", "expected"), [(0.0, 1.0), (0.5, 0.75), (1.0, 0.5), (1.9, 0.05), (2.5, 0.0)])
def test_sideways_step(x_m, expected):
    assert overlap(wall_view(0), wall_view(x_m), 0.0) == pytest.approx(expected, abs=0.04)


def test_views_back_to_back_share_nothing():
    assert overlap(wall_view(0), wall_view(0, turned=True), 0.0) == 0


def test_a_nearer_surface_is_not_the_same():
    near = replace(wall_view(0), depth_m=np.full((SIZE, SIZE), 1, dtype=np.float32))
    assert overlap(wall_view(0), near, 0.0) == 0


def test_views_without_depth_share_nothing():
    empty = replace(wall_view(0), depth_m=np.zeros((SIZE, SIZE), dtype=np.float32))
    assert overlap(empty, empty, 0.0) == 0


def test_table_is_symmetric():
    table = overlaps(scene(wall_view(0), wall_view(0.5), wall_view(1.5)))
    assert np.array_equal(table, table.T)
    assert table[0, 1] > table[1, 2] > table[0, 2] > 0


@pytest.mark.parametrize(("steps", "reason"), [((0.0, 0.0), "views_too_similar"), ((0.0, 1.9), "views_too_different")])
def test_bounds(steps, reason):
    with pytest.raises(DropItem) as error:
        check_overlap(scene(*(wall_view(step) for step in steps)))
    assert error.value.reason == reason


def test_each_view_needs_one_neighbour_only():
    """The outer two of three have nothing in common, but each shares half with the one between."""
    assert check_overlap(scene(wall_view(0), wall_view(1), wall_view(2))) == pytest.approx(0.5, abs=0.04)
