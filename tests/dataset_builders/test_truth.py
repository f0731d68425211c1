"""The audit on a few rooms, its limits a little wider than those of the full run, and what it is made of."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from benchmarks.degrade import Degradation, degrade
from benchmarks.truth import AMBIGUOUS_PLACE, TrueObject, audit, report, true_difference, true_objects
from dataset_builders.sources import SourceOptions, open_source
from dataset_builders.sources.synthetic_rooms import furnish


@pytest.fixture(scope="module")
def tallies():
    return audit(rooms=2, seeds=range(3), records=2)


@pytest.fixture(scope="module")
def room():
    source = open_source("synthetic", SourceOptions(num_scenes=2, views=1, image_size=(120, 160)))
    return source.load(source.list_items()[0])


@pytest.mark.parametrize("name", ["exact", "clean", "degraded"])
def test_relations_and_texts(tallies, name):
    tally = tallies[name]
    asked = tally.relations.total()
    assert asked > 100 and tally.records > 8
    assert tally.wrong.total() <= 0.01 * asked
    assert tally.undecidable.total() <= 0.015 * asked
    assert tally.problems == []


@pytest.mark.parametrize(
    ("name", "median", "far_off"), [("exact", 0.01, 0.02), ("clean", 0.02, 0.06), ("degraded", 0.05, 0.1)]
)
def test_lengths(tallies, name, median, far_off):
    for length in ("longest side", "height", "distance"):
        errors = np.abs(tallies[name].errors[length])
        assert len(errors) >= 10, length
        assert np.median(errors) <= median, length
        assert np.mean(errors > 0.2) <= far_off, length


def test_the_report_is_a_table(tallies):
    text = report(tallies)
    assert text.count("\n| degraded |") == 5 and "nan" not in text


def test_true_sizes_are_those_of_the_blueprints():
    """A ball's box is a cube; everything stands on the floor or on the table."""
    item = "synthetic-0-train-000001"
    found, room = true_objects(item), furnish(Random(item))
    assert set(found) == {one.id for one in room.objects}
    tops = [0.0] + [place.top_m for place in room.footprints]
    for one in room.objects:
        true = found[one.id]
        assert min(abs(true.centre[2] - true.height_m / 2 - top) for top in tops) < 0.01, one.name
        if one.name.endswith("ball"):
            np.testing.assert_allclose(true.dimensions, true.dimensions[0], rtol=2e-3)


def test_true_differences_have_the_signs_of_the_relations():
    near, far = (
        TrueObject(np.array([x, y, z]), np.array([s, s]), s) for x, y, z, s in [(-1, 2, 0, 0.5), (1, 4, 1, 1)]
    )
    to_view = np.eye(4)[[0, 2, 1, 3]]  # x right, z up, y forward
    signs = {
        kind: np.sign(true_difference(kind, near, far, to_view)[0])
        for kind in ("left_right", "front_behind", "above_below", "taller_shorter", "bigger_smaller")
    }
    assert signs == {
        "left_right": 1, "front_behind": 1, "above_below": -1, "taller_shorter": -1, "bigger_smaller": -1,
    }  # fmt: skip
    beside = replace(near, centre=near.centre + np.array([0.01, 0, 0]))
    difference, margin = true_difference("left_right", near, beside, to_view)
    assert difference < margin == pytest.approx(AMBIGUOUS_PLACE * 5**0.5, rel=0.01)


def test_degraded_rooms_are_what_they_say(room):
    spoilt = degrade(room, 0)
    clean, view = room.views[0], spoilt.views[0]
    assert 0.01 <= spoilt.depth_noise <= 0.02
    assert 0.005 < np.mean(view.depth_m == 0) < 0.1
    assert np.mean(view.depth_m > 1000) > 0.02
    plain = (view.depth_m > 0) & (view.depth_m < 1000) & (clean.instances == 0)
    errors = view.depth_m[plain] / clean.depth_m[plain] - 1
    assert np.median(np.abs(errors)) < 3 * spoilt.depth_noise
    for one in range(1, 4):
        mask, true = view.instances == one, clean.instances == one
        if true.any():
            assert mask.sum() > true.sum() or (view.instances[true] != one).any()
    np.testing.assert_array_equal(degrade(room, 0).views[0].depth_m, view.depth_m)
    assert (degrade(room, 1).views[0].depth_m != view.depth_m).any()


def test_a_degradation_of_nothing_changes_only_the_sky(room):
    nothing = Degradation(1, (0.0, 0.0), 0.4, 0.0, 0.0, 0.0, 1e-3)
    view = degrade(room, 0, nothing).views[0]
    near = view.depth_m < 1000
    np.testing.assert_allclose(view.depth_m[near], room.views[0].depth_m[near], rtol=1e-5)
