"""From what a source knows of its scenes to scenes with depth, named masks, poses and gravity, phase by phase.

Each phase loads one kind of model, asks it about every scene of the block that lacks what it gives, and releases it.
A scene that cannot be completed is dropped with a reason, and never takes others along.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataset_builders.perception import Array, Detection, Models, Region
from dataset_builders.perception.association import associate
from dataset_builders.perception.gravity import estimate_up, is_support_name
from dataset_builders.perception.regions import tidy
from dataset_builders.perception.scale import apply_reconstruction, fill_depth, to_metres
from dataset_builders.scene import DropItem, Scene, SceneObject, View, drop_for

if TYPE_CHECKING:
    from dataset_builders.text_client import ChatClient

MIN_THINGS = 2  # an image in which the detector sees fewer cannot carry object-level questions
Drops = list[tuple[str, DropItem]]


class _Block:
    """The scenes of a block that are still alive, by item, and the drops so far."""

    def __init__(self, scenes: Mapping[str, Scene]) -> None:
        self.scenes = dict(scenes)
        self.drops: Drops = []

    def update(self, items: Iterable[str], step: Callable[[str, Scene], Scene]) -> None:
        """Replace each item's scene by what a step makes of it, or drop it."""
        for item in list(items):
            try:
                self.scenes[item] = step(item, self.scenes[item])
            except Exception as error:
                del self.scenes[item]
                self.drops.append((item, drop_for(error, item)))

    def where(self, test: Callable[[Scene], bool]) -> list[str]:
        """Items whose scene passes a test, in order."""
        return [item for item, scene in self.scenes.items() if test(scene)]


def perceive(scenes: Mapping[str, Scene], models: Models, chat: "ChatClient | None") -> tuple[dict[str, Scene], Drops]:
    """Complete a block of scenes with the models of a build; `with_gravity` is a step of its own.

    Args:
        scenes: by item, in order. What they have already (sensor depth, masks, poses) is kept as it is.
        models: of the build; a kind that it does not use leaves its gap open.
        chat: for the namer "chat".

    Returns:
        The completed scenes, in order, and (item, drop) of the others.
    """
    block = _Block(scenes)
    detections = _detect(block, models) if models.has("detector") else {}
    if models.has("depth"):
        _estimate_depth(block, models)
    if models.has("reconstructor"):
        _reconstruct(block, models)
    if models.has("segmenter"):
        _segment(block, models, detections, chat)
    if models.has("namer"):
        _name_given_masks(block, models, chat)
    return block.scenes, block.drops


def _images(scenes: Iterable[Scene]) -> list[Array]:
    return [view.image for scene in scenes for view in scene.views]


def _per_scene(items: list[str], block: _Block, results: list) -> dict[str, list]:
    """The results of all views, handed back to their scenes."""
    found, start = {}, 0
    for item in items:
        count = len(block.scenes[item].views)
        found[item], start = results[start : start + count], start + count
    return found


def _detect(block: _Block, models: Models) -> dict[str, list[list[Detection]]]:
    """Boxes of every view of the scenes without named objects; drops those that show fewer than two things."""
    items = block.where(lambda scene: not any(one.name for one in scene.objects))
    with models.use("detector") as detector:
        found = detector.detect(_images(block.scenes[item] for item in items), models.options.vocabulary)
    detections = _per_scene(items, block, found)

    def check(item: str, scene: Scene) -> Scene:
        most = max(len(boxes) for boxes in detections[item])
        if most < MIN_THINGS:
            raise DropItem(
                "few_things", f"{item}: the detector sees {most} things of the vocabulary, not {MIN_THINGS}"
            )
        return scene

    block.update(items, check)
    return detections


def _estimate_depth(block: _Block, models: Models) -> None:
    """Metric depth for the views without depth, and for scenes whose poses have no scale."""
    items = block.where(lambda scene: not scene.metric or not all(view.has_depth for view in scene.views))
    views = [view for item in items for view in block.scenes[item].views]
    focal_lengths = [view.intrinsics.fx if view.intrinsics.known else None for view in views]
    with models.use("depth") as model:
        estimates = _per_scene(items, block, model.estimate([view.image for view in views], focal_lengths))
        noise = model.relative_noise
    name = str(models.options.depth)
    scale_source = f"model:{Path(name).name if Path(name).is_dir() else name}"  # no folder of this machine in the data

    def fill(item: str, scene: Scene) -> Scene:
        if scene.metric:
            return fill_depth(scene, estimates[item], noise, scale_source)
        return to_metres(scene, estimates[item], noise, scale_source)

    block.update(items, fill)


def _reconstruct(block: _Block, models: Models) -> None:
    items = block.where(lambda scene: len(scene.views) > 1 and not scene.posed)
    if not items:
        return
    with models.use("reconstructor") as model:
        block.update(items, lambda _, scene: apply_reconstruction(scene, model.reconstruct(scene.views)))


def _has_masks(scene: Scene) -> bool:
    return any(view.instances is not None for view in scene.views)


def _segment(
    block: _Block, models: Models, detections: dict[str, list[list[Detection]]], chat: "ChatClient | None"
) -> None:
    """Masks for the scenes without any, named by the detector, by the segmenter itself or by the namer."""
    items = block.where(lambda scene: not _has_masks(scene))
    images = _images(block.scenes[item] for item in items)
    boxes = [[one.box for one in view] for item in items for view in detections[item]] if detections else None
    with models.use("segmenter") as segmenter:
        regions = segmenter.segment(images, boxes, models.options.vocabulary)
    if detections:
        named = [one.name for item in items for view in detections[item] for one in view]
        names = iter(named)
        regions = [[replace(region, name=next(names)) for region in view] for view in regions]
    regions = [tidy(view) for view in regions]
    if models.has("namer"):
        regions = _named(regions, images, models, chat)
    found = _per_scene(items, block, regions)
    block.update(items, lambda item, scene: _with_regions(scene, found[item]))


def _named(
    regions: list[list[Region]], images: list[Array], models: Models, chat: "ChatClient | None"
) -> list[list[Region]]:
    """The regions with a name for each that had none."""
    open_ones = [[region for region in view if not region.name] for view in regions]
    names = _ask_names(images, [[_box_of(one.mask) for one in view] for view in open_ones], models, chat)
    given = [iter(view) for view in names]
    return [
        [region if region.name else replace(region, name=next(given[place])) for region in view]
        for place, view in enumerate(regions)
    ]


def _ask_names(
    images: list[Array],
    boxes: list[list[tuple[float, float, float, float]]],
    models: Models,
    chat: "ChatClient | None",
) -> list[list[str]]:
    if models.options.namer == "chat":
        from dataset_builders.perception.chat_namer import ChatNamer

        assert chat is not None, "build.py asks for a chat model together with --namer chat"
        return ChatNamer(chat).name(images, boxes)
    with models.use("namer") as namer:
        return namer.name(images, boxes)


def _box_of(mask: Array) -> tuple[float, float, float, float]:
    """The box x0, y0, x1, y1 around a mask (H, W) that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _with_regions(scene: Scene, regions: list[list[Region]]) -> Scene:
    """The scene with its masks painted and its objects listed; posed views share the ids of what they show."""
    if scene.posed:
        together = [(scene.views, regions)]
    else:
        together = [((view,), [own]) for view, own in zip(scene.views, regions)]
    views: list[View] = []
    objects: list[SceneObject] = []
    for some_views, some_regions in together:
        names = [[region.name or "" for region in view] for view in some_regions]
        instances, found = associate(some_views, some_regions, names, scene.depth_noise)
        first = len(objects)
        views += [
            replace(view, instances=np.where(own > 0, own + first, 0)) for view, own in zip(some_views, instances)
        ]
        objects += [replace(one, id=one.id + first) for one in found]
    return replace(scene, views=tuple(views), objects=tuple(objects))


def _name_given_masks(block: _Block, models: Models, chat: "ChatClient | None") -> None:
    """Names for objects whose masks came without them (SA-1B), from the view that shows most of each."""
    items = block.where(lambda scene: any(not one.name for one in scene.objects) and _has_masks(scene))
    wanted: list[tuple[str, int, Array, tuple[float, float, float, float]]] = []
    for item in items:
        for one in block.scenes[item].objects:
            sizes = [int(view.mask_of(one.id).sum()) for view in block.scenes[item].views]
            if not one.name and max(sizes):
                view = block.scenes[item].views[int(np.argmax(sizes))]
                wanted.append((item, one.id, view.image, _box_of(view.mask_of(one.id))))
    if not wanted:
        return
    names = _ask_names([image for _, _, image, _ in wanted], [[box] for *_, box in wanted], models, chat)
    found = {(item, object_id): name[0] for (item, object_id, _, _), name in zip(wanted, names)}

    def named(item: str, scene: Scene) -> Scene:
        objects = [
            one if one.name else SceneObject(one.id, name, is_support_name(name))
            for one in scene.objects
            for name in [found.get((item, one.id), "")]
        ]
        return replace(scene, objects=tuple(objects))

    block.update(items, named)


def with_gravity(scene: Scene) -> Scene:
    """The direction against gravity where the source does not know it, and a support or the poses tell."""
    if scene.up_world is not None or not scene.metric or not all(view.has_depth for view in scene.views):
        return scene
    return replace(scene, up_world=estimate_up(scene))
