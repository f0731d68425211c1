"""Scenes are completed phase by phase; each is dropped alone, and what a source knew stays as it was."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from dataset_builders.chat_endpoint import ChatOptions
from dataset_builders.perception import DepthEstimate, Detection, Models, PerceptionOptions, Region, open_model
from dataset_builders.perception.pipeline import perceive, with_gravity
from dataset_builders.scene import UNKNOWN_INTRINSICS, DropItem, InputError, Scene, SceneObject, View
from tests.dataset_builders.scenes_for_tests import BREAKFAST, TWO_POSES, scene_of

HEIGHT, WIDTH = 48, 64


def photo(name, shade=80, views=1):
    image = np.full((HEIGHT, WIDTH, 3), shade, dtype=np.uint8)
    view = View(image, np.zeros((HEIGHT, WIDTH), dtype=np.float32), UNKNOWN_INTRINSICS)
    return Scene(id=name, source="test", licence="CC0-1.0", views=(view,) * views, posed=views == 1)


class FlatDepth:
    relative_noise = 0.04

    def estimate(self, images, focal_lengths_px):
        return [DepthEstimate(np.full(one.shape[:2], 2.0, dtype=np.float32), 70.0) for one in images]


class TwoThings:
    """Sees a mug and a plate in every image that is not black."""

    def detect(self, images, vocabulary):
        boxes = [Detection((4, 4, 20, 30), "mug", 0.9), Detection((30, 8, 60, 40), "plate", 0.8)]
        return [boxes if one.max() else boxes[:1] for one in images]


class BoxMasks:
    """The mask of a box is the box; without boxes the left half."""

    def segment(self, images, boxes, vocabulary):
        boxes = [[(0, 0, WIDTH // 2, HEIGHT)]] * len(images) if boxes is None else boxes
        assert len(boxes) == len(images)
        found = []
        for own in boxes:
            masks = [np.zeros((HEIGHT, WIDTH), dtype=bool) for _ in own]
            for mask, (x0, y0, x1, y1) in zip(masks, own):
                mask[int(y0) : int(y1), int(x0) : int(x1)] = True
            found.append([Region(mask, 0.9) for mask in masks])
        return found


class Names:
    def __init__(self):
        self.asked = []

    def name(self, images, boxes):
        self.asked += [box for own in boxes for box in own]
        return [["teapot"] * len(own) for own in boxes]


class FakeModels(Models):
    def __init__(self, **models):
        super().__init__(PerceptionOptions(**dict.fromkeys(models, "fake"), keep_models=True))
        self._open = models


def test_a_photograph_becomes_a_scene_with_named_objects_in_metres():
    models = FakeModels(depth=FlatDepth(), detector=TwoThings(), segmenter=BoxMasks())
    scenes, drops = perceive({"a": photo("a"), "b": photo("b", 90)}, models, None)
    assert list(scenes) == ["a", "b"] and not drops
    (view,) = scenes["a"].views
    ids = {one.name: one.id for one in scenes["a"].objects}
    assert set(ids) == {"mug", "plate"}
    assert (view.instances[4:30, 4:20] == ids["mug"]).all()
    assert (view.depth_m == 2).all() and view.intrinsics.fx == 70 and view.intrinsics.cx == (WIDTH - 1) / 2
    assert (scenes["a"].depth_noise, scenes["a"].scale_source) == (0.04, "model:fake")


def test_an_image_of_one_thing_is_dropped_alone():
    models = FakeModels(depth=FlatDepth(), detector=TwoThings(), segmenter=BoxMasks())
    scenes, drops = perceive({"a": photo("a"), "black": photo("black", 0), "b": photo("b")}, models, None)
    assert list(scenes) == ["a", "b"]
    assert [(item, drop.reason) for item, drop in drops] == [("black", "few_things")]
    assert {one.name for one in scenes["b"].objects} == {"mug", "plate"}, "boxes stay with their image"


def test_masks_without_a_name_get_one_and_the_others_keep_theirs():
    scene = scene_of(BREAKFAST)
    nameless = replace(scene, objects=(*scene.objects[:2], replace(scene.objects[2], name=""), *scene.objects[3:]))
    names = Names()
    scenes, _ = perceive({"a": nameless}, FakeModels(namer=names), None)
    assert [one.name for one in scenes["a"].objects] == ["table", "cereal box", "teapot", "scissors", "lamp"]
    rows, columns = np.nonzero(scene.views[0].instances == 3)
    assert names.asked == [(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


def test_what_a_source_knew_is_left_alone():
    scene = scene_of(BREAKFAST, TWO_POSES)
    models = FakeModels(depth=FlatDepth(), segmenter=BoxMasks(), namer=Names())
    scenes, drops = perceive({"a": scene}, models, None)
    assert not drops and scenes["a"] == scene


def test_views_without_poses_keep_objects_of_their_own():
    models = FakeModels(depth=FlatDepth(), detector=TwoThings(), segmenter=BoxMasks())
    scenes, _ = perceive({"a": photo("a", views=2)}, models, None)
    first, second = (set(np.unique(view.instances)) - {0} for view in scenes["a"].views)
    assert len(scenes["a"].objects) == 4 and not first & second


def test_a_scene_that_a_model_cannot_serve_does_not_take_others_along():
    class NoFocal(FlatDepth):
        def estimate(self, images, focal_lengths_px):
            return [replace(one, focal_length_px=None if image.max() == 1 else 70.0)
                    for image, one in zip(images, super().estimate(images, focal_lengths_px))]  # fmt: skip

    scenes, drops = perceive({"a": photo("a"), "odd": photo("odd", 1)}, FakeModels(depth=NoFocal()), None)
    assert list(scenes) == ["a"] and [(item, drop.reason) for item, drop in drops] == [("odd", "no_focal_length")]


def test_views_that_cannot_be_reconstructed_drop_their_scene():
    class Lost:
        def reconstruct(self, views):
            raise DropItem("not_reconstructed", "nothing matches")

    models = FakeModels(depth=FlatDepth(), reconstructor=Lost())
    scenes, drops = perceive({"two": photo("two", views=2), "one": photo("one")}, models, None)
    assert list(scenes) == ["one"] and [drop.reason for _, drop in drops] == ["not_reconstructed"]


def test_a_labelled_floor_tells_where_up_is():
    scene = scene_of(BREAKFAST)
    found = with_gravity(replace(scene, up_world=None))
    assert found.up_world @ scene.up_world > np.cos(np.deg2rad(2))


def test_models_are_released_between_phases_unless_kept():
    for keep in (False, True):
        models = Models(PerceptionOptions(depth="stub", segmenter="stub", namer="stub", keep_models=keep))
        scenes, _ = perceive({"a": photo("a")}, models, None)
        assert len(scenes["a"].objects) > 1 and all(isinstance(one, SceneObject) for one in scenes["a"].objects)
        assert bool(models._open) is keep


def test_a_chat_model_names_what_the_namer_chat_is_asked_for():
    class Client:
        options = ChatOptions(model="any", concurrency=2)

        def ask(self, purpose, prompt, images=(), schema=None, **_):
            return {"name": "a Red Kettle."}

    models = Models(PerceptionOptions(depth="stub", segmenter="stub", namer="chat"))
    scenes, _ = perceive({"a": photo("a")}, models, Client())
    assert {one.name for one in scenes["a"].objects} - {""} == {"red kettle"}  # too small a crop is not asked about


@pytest.mark.parametrize("kind", ["depth", "segmenter"])
def test_a_kind_that_is_not_used_leaves_its_gap(kind):
    models = FakeModels(**{kind: {"depth": FlatDepth(), "segmenter": BoxMasks()}[kind]})
    scenes, _ = perceive({"a": photo("a")}, models, None)
    (view,) = scenes["a"].views
    assert view.has_depth is (kind == "depth") and (view.instances is not None) is (kind == "segmenter")


def test_only_the_very_name_of_a_stub_is_one():
    with pytest.raises(InputError, match="'stubborn/depth' cannot be loaded"):
        open_model("depth", PerceptionOptions(depth="stubborn/depth"))


def test_what_would_befall_every_scene_ends_the_build():
    class NoPackage:
        def reconstruct(self, views):
            raise InputError("the package vggt is missing")

    with pytest.raises(InputError, match="vggt is missing"):
        perceive({"two": photo("two", views=2)}, FakeModels(depth=FlatDepth(), reconstructor=NoPackage()), None)


def test_a_drop_survives_the_way_between_processes():
    drop = pickle.loads(pickle.dumps(DropItem("bad_name", "caf\udce9.jpg")))
    assert (drop.reason, drop.detail) == ("bad_name", "caf\\udce9.jpg")
