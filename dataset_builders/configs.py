"""The configurations of a data set: which records a scene gives to each, and their columns."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dataset_builders import multi_view_vqa, spatial_reasoning
from dataset_builders.geometry import valid_depth
from dataset_builders.scene import DropItem, Scene
from dataset_builders.schema import features, validate

if TYPE_CHECKING:
    from datasets import Features

IGNORED_CLASS = 255
MAX_STORED_DEPTH_M = 65.535  # 16 bits of millimetres
Record = dict[str, Any]
Job = tuple[str, Callable[[], Record]]  # the record's id, and what builds it or raises DropItem


@dataclass(frozen=True)
class DialogueOptions:
    """How dialogues are written: the seed of all draws, the order of turns, and whether some may be missing."""

    seed: int = 0
    order: str = "forward"
    allow_partial: bool = False


@dataclass(frozen=True)
class DatasetConfig:
    """One configuration.

    Attributes:
        description: a phrase for the card.
        columns: the column types.
        jobs: the records that a scene gives, none where the configuration does not concern it.
        check: problems of a finished record; it is written only if there are none.
        is_dialogue: whether its records hold `messages`.
    """

    description: str
    columns: Callable[[], "Features"]
    jobs: Callable[[Scene, DialogueOptions], Iterator[Job]]
    check: Callable[[Record], list[str]]
    is_dialogue: bool = True


def single_views(scene: Scene) -> Iterator[Scene]:
    """Every view as a scene of its own."""
    for index, view in enumerate(scene.views):
        name = scene.id if len(scene.views) == 1 else f"{scene.id}-view-{index + 1}"
        yield replace(scene, id=name, views=(view,))


def _single_view_jobs(scene: Scene, options: DialogueOptions) -> Iterator[Job]:
    for one in single_views(scene):
        yield one.id, partial(spatial_reasoning.build_record, one, **vars(options))


def _multi_view_jobs(scene: Scene, options: DialogueOptions) -> Iterator[Job]:
    if len(scene.views) > 1:
        yield scene.id, partial(spatial_reasoning.build_record, scene, **vars(options))


def _vqa_jobs(scene: Scene, options: DialogueOptions) -> Iterator[Job]:
    for group in multi_view_vqa.view_groups(scene):
        yield group.id, partial(multi_view_vqa.build_record, group, seed=options.seed)


def _alignment_jobs(scene: Scene, options: DialogueOptions) -> Iterator[Job]:
    for one in single_views(scene):
        yield one.id, partial(multi_view_vqa.build_caption, one, seed=options.seed)


def _dense_jobs(scene: Scene, options: DialogueOptions) -> Iterator[Job]:
    for one in single_views(scene):
        yield one.id, partial(dense_record, one)


def dense_features() -> "Features":
    """The column types of the `dense` configuration."""
    from datasets import Features, Image, Value

    intrinsics = dict.fromkeys(("fx", "fy", "cx", "cy"), Value("float64"))
    return Features(
        {
            "image": Image(),
            "depth": Image(),  # 16-bit PNG, millimetres, 0 = no reading
            "segmentation": Image(),  # 8-bit PNG, class ids as in classes.json, 255 = ignored
            "intrinsics": intrinsics,  # pixels; pixel centres lie on integer coordinates
            "id": Value("string"),
        }
    )


def dense_record(scene: Scene) -> Record:
    """Image, depth and class map of a single view; a class map that is not known is ignored everywhere.

    Raises:
        DropItem: "not_metric" or "no_depth_readings".
    """
    if not scene.metric:
        raise DropItem("not_metric", f"scene {scene.id!r} has no metric scale, and its depth is stored in millimetres")
    (view,) = scene.views
    storable = valid_depth(view.depth_m) & (view.depth_m <= MAX_STORED_DEPTH_M)
    if not storable.any():
        raise DropItem("no_depth_readings", f"scene {scene.id!r} has no depth between 1 cm and {MAX_STORED_DEPTH_M} m")
    millimetres = np.rint(np.where(storable, view.depth_m, 0) * 1000).astype(np.uint16)
    classes = view.segmentation
    if classes is None:
        classes = np.full(view.depth_m.shape, IGNORED_CLASS, dtype=np.uint8)
    return {
        "image": spatial_reasoning.encoded_image(view),
        "depth": _png(millimetres),
        "segmentation": _png(classes),
        "intrinsics": {name: float(value) for name, value in vars(view.intrinsics).items()},
        "id": scene.id,
    }


def _png(array: np.ndarray) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


CONFIGS = {
    "single_view": DatasetConfig(
        "12-turn spatial reasoning about one image (stage 3)", features, _single_view_jobs, validate
    ),
    "multi_view": DatasetConfig(
        "12-turn spatial reasoning about several posed views of one place (stage 3)",
        features,
        _multi_view_jobs,
        validate,
    ),
    "multi_view_vqa": DatasetConfig(
        "common, adversarial and multiple-choice questions about 2, 4 or 8 views (stage 2)",
        features,
        _vqa_jobs,
        validate,
    ),
    "alignment": DatasetConfig("one image and its caption (stage 1)", features, _alignment_jobs, validate),
    "dense": DatasetConfig(
        "images with depth and class maps, for linear probes",
        dense_features,
        _dense_jobs,
        lambda record: [],
        is_dialogue=False,
    ),
}
