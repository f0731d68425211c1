import random
from dataclasses import replace

import numpy as np
import pytest

from dataset_builders.pointing import mask_text, point_at, steady_points
from dataset_builders.schema import validate
from dataset_builders.spatial_reasoning import build_record
from tests.dataset_builders.scenes_for_tests import BREAKFAST, asked_objects, scene_of

# Names that are trouble


def test_names_that_would_confuse_a_reader_are_not_used(breakfast):
    renamed = tuple(replace(one, name="camera") if one.name == "mug" else one for one in breakfast.objects)
    for seed in range(5):
        assert 3 not in asked_objects(build_record(replace(breakfast, objects=renamed), seed=seed))


def test_names_with_digits_and_odd_letters_survive(breakfast):
    odd = {"mug": "7up can (0.5 l)", "lamp": "Möbelhaus* lamp", "cereal box": "box 12"}
    objects = tuple(replace(one, name=odd.get(one.name, one.name)) for one in breakfast.objects)
    for seed in range(10):
        assert validate(build_record(replace(breakfast, objects=objects), seed=seed)) == []


# Points


@pytest.mark.parametrize("width", [128, 640, 1000, 1536])
def test_written_coordinates_lead_back_to_the_depth(width):
    scene = scene_of(BREAKFAST, width=width, height=width * 3 // 4, focal=0.8 * width, noise=0.0)
    record = build_record(scene, seed=3)
    view = scene.views[0]
    for turn in record["turns"]:
        for point in turn["points"]:
            row = min(int(point["y"] * view.depth_m.shape[0]), view.depth_m.shape[0] - 1)
            column = min(int(point["x"] * width), width - 1)
            assert point["depth_m"] == round(float(view.depth_m[row, column]), 3)
            assert round(point["x"], 3) == point["x"] and round(point["y"], 3) == point["y"]


@pytest.mark.parametrize("width", [128, 333, 640, 998])
def test_a_coordinate_names_the_pixel_it_was_made_from(width):
    view = scene_of(BREAKFAST, width=width, height=width // 2, focal=width).views[0]
    view = replace(view, depth_m=np.ones_like(view.depth_m))
    for u, v in [(0, 0), (1, width // 4), (width // 3, 5), (width - 1, width // 2 - 1)]:
        point = point_at(view, 0, u, v)
        assert (int(point["x"] * width), int(point["y"] * (width // 2))) == (u, v)


def test_free_points_keep_away_from_steps_and_noise(breakfast):
    view = breakfast.views[0]
    step = np.where(np.arange(320) < 160, 1.0, 2.0) * np.ones((240, 1))
    stepped = replace(breakfast, views=(replace(view, depth_m=step.astype(np.float32)),))
    points = steady_points(stepped, 0, random.Random(0), 60)
    assert len(points) == 60 and all(abs(point["x"] * 320 - 160) >= 3 for point in points)
    noise = np.random.default_rng(0).uniform(1, 2, (240, 320)).astype(np.float32)
    assert steady_points(replace(breakfast, views=(replace(view, depth_m=noise),)), 0, random.Random(0), 9) == []


def test_points_stand_on_steady_depth(records, breakfast):
    view = breakfast.views[0]
    for record in (one for one in records if len(one["images"]) == 1):
        for turn in record["turns"]:
            for point in turn["points"]:
                v, u = int(point["y"] * 240), int(point["x"] * 320)
                around = view.depth_m[v - 1 : v + 2, u - 1 : u + 2]
                assert (abs(around - point["depth_m"]) < 0.05 * point["depth_m"]).all()


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (40, 30)])
def test_a_mask_survives_as_text(shape):
    from pycocotools import mask as coco

    rng = np.random.default_rng(0)
    for share in (0.1, 0.5, 1.0):
        mask = rng.random(shape) < share
        mask[0, -1] = True
        counts = mask_text(mask)
        assert (coco.decode({"size": list(shape), "counts": counts.encode()}).astype(bool) == mask).all()
        assert counts == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
