"""Builds the 12-turn spatial reasoning dialogue of a scene, single-view or multi-view (the data of stage 3)."""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from dataset_builders.chat_captions import write_captions
from dataset_builders.dialogue import Spoken, speak
from dataset_builders.facts import RecordFacts, Row
from dataset_builders.geometry import format_length
from dataset_builders.grammar import listed
from dataset_builders.objects import measure_objects
from dataset_builders.phrasings import PREAMBLE
from dataset_builders.pointing import object_rows
from dataset_builders.questions import Ground, Turn, plan_turns
from dataset_builders.scene import DropItem, Scene, View
from dataset_builders.schema import GENERATOR_VERSION, KINDS, message, opening_parts, turn_order, validate
from dataset_builders.text_client import Chat

CAPTION_TURNS = (11, 12)
ALL_TURNS = frozenset(range(1, 13))


def build_record(
    scene: Scene,
    *,
    seed: int,
    order: str = "forward",
    allow_partial: bool = False,
    captions: Sequence[str] | None = None,
    chat: Chat | None = None,
) -> dict[str, Any]:
    """The record of a scene, a pure function of its arguments; all views of the scene are shown.

    Args:
        scene: with one view or several.
        seed: decides points, pairs, directions and phrasings.
        order: "forward", "reverse" or "random"; an answer recalls only turns that came before it in this order.
        allow_partial: keep a scene of which only some turns can be asked, with those turns.
        captions: answers to turns 11 and 12, in place of those composed from the facts.
        chat: a model that writes these captions; where it fails, those composed from the facts stay.

    Raises:
        DropItem: the scene cannot carry the dialogue; its reason is one of "not_metric", "no_objects",
            "fewer_than_two_objects", "no_common_view", "no_steady_points", "no_cameras".
    """
    if not scene.metric:
        raise DropItem("not_metric", f"scene {scene.id!r} has no metric scale, and every level asks for metres")
    check_located(scene)
    measured = measure_objects(scene)
    record = base_record(scene, seed, order) | {"objects": object_rows(scene, measured, seed)}
    ground = Ground(scene, RecordFacts(record), {one.item.id: one for one in measured}, seed)
    turns = plan_turns(ground)
    _check_complete(ground, turns, allow_partial)
    by_index = {turn.index: turn for turn in turns}
    spoken: list[Spoken] = []
    for index in turn_order(by_index, order, seed, scene.id):
        spoken.append(speak(ground, by_index[index], [before.turn for before in spoken]))
    if chat is not None:
        captions = _captions_by(chat, scene, record, spoken)
    return _with_turns(record, spoken if captions is None else _with_captions(spoken, captions))


def _with_turns(record: dict[str, Any], spoken: list[Spoken]) -> dict[str, Any]:
    return record | {"messages": _messages(spoken, len(record["images"])), "turns": [_turn_row(one) for one in spoken]}


def _with_captions(spoken: list[Spoken], captions: Sequence[str]) -> list[Spoken]:
    """The dialogue with other answers to turns 11 and 12, marked by templates that end in ".external"."""
    texts = dict(zip(CAPTION_TURNS, captions))
    return [
        replace(one, answer=texts[one.turn.index], template=one.template.rsplit(".", 2)[0] + ".external")
        if one.turn.index in texts
        else one
        for one in spoken
    ]


def _captions_by(chat: Chat, scene: Scene, record: dict[str, Any], spoken: list[Spoken]) -> list[str] | None:
    """Captions by a chat model that would pass the gate; None where it does not give any."""
    composed = [one.answer for one in spoken if one.turn.index in CAPTION_TURNS]
    names = sorted({row["name"] for row in record["objects"]})
    facts = "\n".join(f"* {fact}" for fact in [f"In view: {listed(names)}." if names else "", *composed] if fact)

    def problems(captions: Sequence[str]) -> list[str]:
        found = validate(_with_turns(record, _with_captions(spoken, captions)))
        return [one for one in found if one.startswith(tuple(f"turn {index}:" for index in CAPTION_TURNS))]

    try:
        return write_captions(scene, facts, chat, problems)
    except DropItem:
        return None


def base_record(scene: Scene, seed: int, order: str) -> dict[str, Any]:
    """Every column that does not depend on what is asked; `messages`, `objects` and `turns` are empty.

    `cameras` is empty as well where the views' intrinsics, or their poses in one world, are not known.
    """
    return {
        "images": [encoded_image(view) for view in scene.views],
        "messages": [],
        "id": scene.id,
        "source": scene.source,
        "licence": scene.licence,
        "split": scene.split,
        "cameras": [camera_row(view) for view in scene.views] if _is_located(scene) else [],
        "up_world": None if scene.up_world is None else [float(value) for value in scene.up_world],
        "metric": scene.metric,
        "scale_source": scene.scale_source,
        "depth_noise": scene.depth_noise,
        "overlap": None,
        "order": order,
        "seed": seed,
        "generator_version": GENERATOR_VERSION,
        "objects": [],
        "turns": [],
    }


def check_located(scene: Scene) -> None:
    """Drop a scene whose cameras are not known ("no_cameras")."""
    if not _is_located(scene):
        raise DropItem("no_cameras", f"scene {scene.id!r} has views without known intrinsics or without poses")


def _is_located(scene: Scene) -> bool:
    return all(view.intrinsics.known for view in scene.views) and (scene.posed or len(scene.views) == 1)


def encoded_image(view: View) -> dict[str, Any]:
    """The image as `datasets.Image` takes it: the file's own bytes where they are kept, else PNG."""
    if view.image_bytes is not None:
        return {"bytes": view.image_bytes, "path": None}
    buffer = io.BytesIO()
    Image.fromarray(view.image).save(buffer, format="PNG", compress_level=3)
    return {"bytes": buffer.getvalue(), "path": None}


def camera_row(view: View) -> Row:
    """The `cameras` entry of a view."""
    height, width = view.depth_m.shape
    intrinsics = {name: float(value) for name, value in vars(view.intrinsics).items()}
    return {"width": width, "height": height, **intrinsics, "camera_to_world": view.camera_to_world.ravel().tolist()}


def _check_complete(ground: Ground, turns: list[Turn], allow_partial: bool) -> None:
    """Say why a scene cannot carry all turns; a partial one passes where that is allowed."""
    missing = sorted(ALL_TURNS - {turn.index for turn in turns})
    if not missing:
        objects_asked = any(turn.object_ids for turn in turns if turn.index <= 10)
        if objects_asked:
            return
    usable, name = len(ground.usable()), f"scene {ground.scene.id!r}"
    if len(turns) <= len(CAPTION_TURNS):
        raise DropItem("no_steady_points", f"{name} has no two objects and no surface with steady depth to ask about")
    if allow_partial:
        return
    keep = "pass --allow-partial to keep the sample with its other turns"
    if not ground.facts.objects:
        raise DropItem("no_objects", f"{name} has no object, so turns 6-10 cannot be asked; {keep}")
    if usable < 2:
        raise DropItem(
            "fewer_than_two_objects", f"{name} has {usable} of two usable objects: turns 6-10 cannot be asked; {keep}"
        )
    raise DropItem("no_common_view", f"{name}: no view shows two objects clearly together, so {missing} lack; {keep}")


def _messages(spoken: list[Spoken], num_images: int) -> list[dict[str, Any]]:
    messages = []
    for place, one in enumerate(spoken):
        if place == 0:
            opening = ("\n" if num_images > 1 else "") + f"{PREAMBLE}\n{one.question}"
            messages.append(message("user", *opening_parts(num_images, opening)))
        else:
            messages.append(message("user", one.question))
        messages.append(message("assistant", one.answer))
    return messages


def _turn_row(one: Spoken) -> Row:
    """The `turns` entry of a turn."""
    turn = one.turn
    return {
        "index": turn.index,
        "level": KINDS[turn.kind],
        "kind": turn.kind,
        "template": one.template,
        "frame": turn.frame,
        "value": turn.value,
        "unit": "" if turn.value is None else format_length(turn.value).split()[1],
        "answer": turn.answer or one.answer,
        "margin": turn.margin,
        "points": list(turn.points),
        "object_ids": list(turn.object_ids),
        "witness": list(turn.witness),
    }
