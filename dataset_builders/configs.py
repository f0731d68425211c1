"""The configurations of a data set: which records a scene gives to each, and their columns."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from dataset_builders import chat_vqa, grounding, multi_view_vqa, pairing, spatial_reasoning
from dataset_builders.geometry import valid_depth
from dataset_builders.scene import DropItem, Scene
from dataset_builders.schema import features, image_problems, message, message_problems, validate

if TYPE_CHECKING:
    from datasets import Features

    from dataset_builders.perception import PerceptualDistance
    from dataset_builders.text_client import ChatClient

IGNORED_CLASS = 255
MAX_STORED_DEPTH_M = 65.535  # 16 bits of millimetres
MAX_SHOWN_VIEWS = 8  # of a dialogue; of a longer sequence it shows views at equal steps
Record = dict[str, Any]
Job = tuple[str, Callable[[], Record]]  # the record's id, and what builds it or raises DropItem


@dataclass(frozen=True)
class DialogueOptions:
    """How dialogues are written: the seed of all draws, the order of turns, and whether some may be missing."""

    seed: int = 0
    order: str = "forward"
    allow_partial: bool = False


class Tools(Protocol):
    """Outside models that the writing of records may ask; without them texts come from templates alone."""

    @property
    def chat(self) -> "ChatClient | None":
        """Writes the captions of turns 11-12 and the questions of `multi_view_vqa`."""

    @property
    def distance(self) -> "PerceptualDistance | None":
        """Chooses pairs of views by LPIPS, as the paper does, in place of covisibility."""


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
    jobs: Callable[[Scene, DialogueOptions, Tools], Iterator[Job]]
    check: Callable[[Record], list[str]]
    is_dialogue: bool = True


def single_views(scene: Scene) -> Iterator[Scene]:
    """Every view as a scene of its own."""
    for index, view in enumerate(scene.views):
        name = scene.id if len(scene.views) == 1 else f"{scene.id}-view-{index + 1}"
        yield replace(scene, id=name, views=(view,))


def _single_view_jobs(scene: Scene, options: DialogueOptions, tools: Tools) -> Iterator[Job]:
    for one in single_views(scene) if _is_measurable(scene) else ():
        yield one.id, partial(spatial_reasoning.build_record, one, **vars(options), chat=tools.chat)


def _multi_view_jobs(scene: Scene, options: DialogueOptions, tools: Tools) -> Iterator[Job]:
    if len(scene.views) > 1 and scene.posed and _is_measurable(scene):
        places = np.unique(np.linspace(0, len(scene.views) - 1, min(len(scene.views), MAX_SHOWN_VIEWS)).astype(int))
        shown = replace(scene, views=tuple(scene.views[place] for place in places))
        yield scene.id, partial(spatial_reasoning.build_record, shown, **vars(options), chat=tools.chat)


def _vqa_jobs(scene: Scene, options: DialogueOptions, tools: Tools) -> Iterator[Job]:
    if tools.chat is not None:
        yield from chat_vqa.jobs(scene, options.seed, tools.chat, tools.distance)
    elif scene.posed and _is_measurable(scene):
        build = partial(multi_view_vqa.build_record, seed=options.seed)
        yield from pairing.group_jobs(scene, options.seed, tools.distance, build)


def _alignment_jobs(scene: Scene, options: DialogueOptions, tools: Tools) -> Iterator[Job]:
    if len(scene.conversation) == 1:
        yield scene.id, partial(conversation_record, scene, options.seed)
    for one in single_views(scene) if _is_measurable(scene) else ():
        yield one.id, partial(multi_view_vqa.build_caption, one, seed=options.seed)


def _grounding_jobs(scene: Scene, options: DialogueOptions, tools: Tools) -> Iterator[Job]:
    for one in single_views(scene) if _is_measurable(scene) else ():
        if one.objects and one.views[0].instances is not None:
            yield one.id, partial(grounding.build_record, one, seed=options.seed)


def _instruction_jobs(scene: Scene, options: DialogueOptions, tools: Tools) -> Iterator[Job]:
    if scene.conversation:
        yield scene.id, partial(conversation_record, scene, options.seed)


def _dense_jobs(scene: Scene, options: DialogueOptions, tools: Tools) -> Iterator[Job]:
    for one in single_views(scene) if _is_measurable(scene) else ():
        yield one.id, partial(dense_record, one)


def _is_measurable(scene: Scene) -> bool:
    """Whether there is geometry to speak of; a scene that came with a conversation has none."""
    return not scene.conversation


def conversation_record(scene: Scene, seed: int) -> Record:
    """The record of an image that came with a conversation (LLaVA), which is kept word for word."""
    (view,) = scene.views
    messages = []
    for place, (question, answer) in enumerate(scene.conversation):
        messages += [message("user", *((None, question) if place == 0 else (question,))), message("assistant", answer)]
    return spatial_reasoning.base_record(replace(scene, views=(view,)), seed, "forward") | {"messages": messages}


def _conversation_problems(record: Record) -> list[str]:
    """What can be checked of texts that others wrote: that images open and have their places, and roles alternate."""
    return [*image_problems(record), *message_problems(record)]


def _alignment_problems(record: Record) -> list[str]:
    return validate(record) if record["turns"] else _conversation_problems(record)


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
        "depth": png(millimetres),
        "segmentation": png(classes),
        "intrinsics": {name: float(value) for name, value in vars(view.intrinsics).items()},
        "id": scene.id,
    }


def png(array: np.ndarray) -> dict[str, Any]:
    """An image, (H, W) or (H, W, 3), as `datasets.Image` stores it."""
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
    "grounding": DatasetConfig(
        "questions in two dimensions that teach to point: names, points, boxes (stage 2)",
        features,
        _grounding_jobs,
        validate,
    ),
    "alignment": DatasetConfig("one image and its caption (stage 1)", features, _alignment_jobs, _alignment_problems),
    "instruction": DatasetConfig(
        "images with the conversations that came with them (stage 2)",
        features,
        _instruction_jobs,
        _conversation_problems,
    ),
    "dense": DatasetConfig(
        "images with depth and class maps, for linear probes",
        dense_features,
        _dense_jobs,
        lambda record: [],
        is_dialogue=False,
    ),
}
