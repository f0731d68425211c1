"""Changed copies of the conversations that stage 3 learns from: other orders, fewer turns, or the wrong images.

Pure functions of rows as `spatialboost build` wrote them. Turns that stay are worded again by the builder's own
`dialogue.speak`, so that an answer recalls only what is still said before it; nothing is asked anew. A variant is a
data-set folder, which `--datasets` reads like any other.

    make_variant(Path("outputs/world/data"), Path("outputs/reverse"), "reverse_order", ("single_view",))
"""

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from datasets import Dataset, Image, List

from dataset_builders.dialogue import speak
from dataset_builders.facts import RecordFacts
from dataset_builders.phrasings import PREAMBLE
from dataset_builders.questions import RELATION_KINDS, Ground, Turn
from dataset_builders.schema import message, opening_parts, turn_order, validate
from experiments.depth_questions import Depths, depth_questions, depths_of, in_depth
from experiments.pointing import masks_of, pointing

Row = dict[str, Any]
MARKER = "variant.json"
WORDED_AGAIN = ("pixel", "object", "scene", "caption")  # the levels that `speak` words


@dataclass(frozen=True)
class Variant:
    """What is changed.

    Attributes:
        description: for reports.
        order: of the turns; None = as they are.
        without, only: levels of turns that are left out, or the ones that are kept; "" = all are kept.
        other_images: every conversation is put under the images of another scene: the same texts, wrong answers.
        practice: instead of a grounding conversation, short questions about points: "brightness"
            (`experiments.pointing`) or "depth" (`experiments.depth_questions`).
        turned: half of the images of the practice are mirrored about their diagonal.
        in_depth: the images are pictures of depth.
    """

    description: str
    order: str | None = None
    without: str = ""
    only: str = ""
    other_images: bool = False
    practice: str = ""
    turned: bool = False
    in_depth: bool = False

    @property
    def needs_depth(self) -> bool:
        """Whether it is made from the depth maps of its images."""
        return self.in_depth or self.practice == "depth"


VARIANTS = {
    "random_order": Variant("turns in random order", order="random"),
    "reverse_order": Variant("turns from the scene to the pixel", order="reverse"),
    "without_pixel": Variant("without pixel-level turns", without="pixel"),
    "without_object": Variant("without object-level turns", without="object"),
    "without_scene": Variant("without scene-level turns", without="scene"),
    "without_captions": Variant("without caption turns", without="caption"),
    "captions_only": Variant("caption turns only", only="caption"),
    "shuffled_answers": Variant("every conversation under the images of another scene", other_images=True),
    "pointing": Variant("how bright the image is at points, and what is there", practice="brightness"),
    "pointing_turned": Variant(
        "the same, with columns for rows in half of the images", practice="brightness", turned=True
    ),
    "depth_pointing": Variant("how deep pictures of depth are at points", practice="depth", in_depth=True),
    "depth_pictures": Variant("every conversation under pictures of depth", in_depth=True),
    "depth_questions": Variant("how deep rooms are at points, in short questions", practice="depth"),
    "depth_questions_shuffled": Variant(
        "the same under the images of another scene", practice="depth", other_images=True
    ),
}


def make_variant(data: Path, folder: Path, name: str, configs: tuple[str, ...], workers: int = 1) -> Path:
    """Write the training split of some configurations, changed; what is there already stays.

    Args:
        data: folder that `spatialboost build` wrote.
        folder: of the result.
        name: key of `VARIANTS`.
        configs: of the data, such as single_view and multi_view.
        workers: processes; they change no byte.

    Raises:
        ValueError: no such variant or data, or a row that does not pass the builder's own gate after the change.
    """
    if name not in VARIANTS:
        raise ValueError(f"variant={name!r} is not known: pass one of {', '.join(VARIANTS)}.")
    for config in configs:
        done = folder / config / MARKER
        files = sorted((data / config).glob("train-*.parquet"))
        if not files:
            raise ValueError(f"data={str(data)!r} has no training rows of {config!r}: build it with all its configs.")
        state = {"variant": name, "rows": [[file.name, file.stat().st_size] for file in files]}
        if done.is_file() and json.loads(done.read_text()) == state:
            continue
        rows = Dataset.from_parquet([str(file) for file in files])
        encoded = rows.cast_column("images", List(Image(decode=False)))
        depths = depths_of(data, "train") if VARIANTS[name].needs_depth else {}
        changed = changed_rows(list(encoded), VARIANTS[name], workers, depths)
        if not changed:
            raise ValueError(f"data={str(data)!r}: {name} leaves no conversation of {config!r}.")
        done.parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_list(changed, features=rows.features).to_parquet(done.parent / "train-00000-of-00001.parquet")
        done.write_text(json.dumps(state))
    made = sorted(path.parent.name for path in folder.glob(f"*/{MARKER}"))
    lines = [
        f"- config_name: {config}\n  data_files:\n  - split: train\n    path: {config}/train-*.parquet"
        for config in made
    ]
    card = "---\nconfigs:\n" + "\n".join(lines) + f"\n---\n{VARIANTS[name].description}\n"
    readme = folder / "README.md"
    if not readme.is_file() or readme.read_text() != card:  # a run beside this one may be reading it
        readme.write_text(card)
    return folder


def changed_rows(rows: list[Row], variant: Variant, workers: int = 1, depths: Depths | None = None) -> list[Row]:
    """The rows of a configuration under a variant, in their order; rows that no turn is left of are dropped.

    Args:
        rows: with their images as the bytes of files.
        variant: what is changed.
        workers: processes; they change no byte.
        depths: depth maps of the images, where the variant needs them.

    Raises:
        ValueError: a row that does not pass the gate of the builder after the change.
    """
    if variant.practice == "depth":
        rows = [depth_questions(row, depths or {}) for row in rows]
    elif variant.practice:
        rows = [pointing(row, variant.turned) for row in rows]
    if variant.in_depth:
        rows = [in_depth(row, depths or {}) for row in rows]
    if variant.other_images:
        rows = with_other_images(rows)
    if variant.practice or variant.in_depth or variant.other_images:
        return rows
    if workers == 1:
        changed = [reworded(variant, row) for row in rows]
    else:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:  # a fork would inherit the threads of torch
            changed = list(pool.map(partial(reworded, variant), rows, chunksize=32))
    return [row for row in changed if row["turns"]]


def reworded(variant: Variant, row: Row) -> Row:
    """A row with the turns and the order of a variant."""

    def keep(turn: Row) -> bool:
        return turn["level"] != variant.without and (not variant.only or turn["level"] == variant.only)

    return worded_again(row, variant.order or row["order"], keep)


def worded_again(row: Row, order: str, keep: Callable[[Row], bool] = lambda turn: True) -> Row:
    """A row with some of its turns in an order, worded as the builder words them in that place.

    Raises:
        ValueError: turns that the builder does not word (VQA), or a result that does not pass its gate.
    """
    if other := sorted({turn["level"] for turn in row["turns"]} - set(WORDED_AGAIN)):
        raise ValueError(f"row {row['id']!r} has turns of level {other[0]!r}, which cannot be worded again.")
    ground = ground_of(row)
    owners = owners_of(row, ground)
    turns = {turn["index"]: turn for turn in row["turns"] if keep(turn)}
    planned = {index: planned_turn(turn, ground, owners) for index, turn in turns.items()}
    messages: list[Row] = []
    said: list[Row] = []
    before: list[Turn] = []
    for index in turn_order(planned, order, row["seed"], row["id"]):
        spoken = speak(ground, planned[index], before)
        parts: list[str | None] = [spoken.question]
        if not messages:
            several = "\n" if len(row["images"]) > 1 else ""
            parts = opening_parts(len(row["images"]), f"{several}{PREAMBLE}\n{spoken.question}")
        messages += [message("user", *parts), message("assistant", spoken.answer)]
        answer = spoken.answer if turns[index]["level"] == "caption" else turns[index]["answer"]
        said.append(turns[index] | {"template": spoken.template, "answer": answer})
        before.append(planned[index])
    changed = row | {"messages": messages, "turns": said, "order": order}
    if messages and (problems := validate(changed)):
        raise ValueError(f"row {row['id']!r} fails the builder's gate after the change: {problems[0]}")
    return changed


def ground_of(row: Row) -> Ground:
    """What `speak` reads of a scene; depth and masks, which only planning needs, are absent."""
    scene: Any = SimpleNamespace(id=row["id"], views=row["images"])
    return Ground(scene, RecordFacts(row), {}, row["seed"])


def planned_turn(turn: Row, ground: Ground, owners: dict[tuple[int, float, float], int]) -> Turn:
    """A row of `turns` as it was planned: the signs that it asks for and that hold are derived again."""
    truth = 0
    if turn["kind"] == "closer_point":
        truth = ground.facts.closer(*turn["points"])[0]
    elif turn["kind"] in RELATION_KINDS:
        first, second = turn["object_ids"]
        truth = ground.facts.relation(turn["kind"], first, second, turn["frame"])[0]
    return Turn(
        turn["index"],
        turn["kind"],
        turn["frame"],
        "" if turn["level"] == "caption" else turn["answer"],
        value=turn["value"],
        margin=turn["margin"],
        points=tuple(turn["points"]),
        object_ids=tuple(turn["object_ids"]),
        witness=tuple(turn["witness"]),
        asked=truth if turn["answer"] == "yes" else -truth,
        truth=truth,
        owners=owners,
    )


def owners_of(row: Row, ground: Ground) -> dict[tuple[int, float, float], int]:
    """By (view, x, y) the usable object whose mask a point of any turn lies on.

    The builder knows which points it put on an object on purpose; one that lies there by chance is taken for such a
    point here (1 of 134 dialogues tried), so that an answer may recall it, which is as true.
    """
    masks: dict[int, list[tuple[int, np.ndarray]]] = {}
    for item, mask in masks_of(row):
        masks.setdefault(item["view"], []).append((item["id"], mask))
    owners = {}
    for point in (point for turn in row["turns"] for point in turn["points"]):
        u, v = ground.facts.pixel(point)
        for name, mask in masks.get(point["view"], ()):
            if mask[v, u]:
                owners[point["view"], point["x"], point["y"]] = name
    return owners


def with_other_images(rows: list[Row]) -> list[Row]:
    """Every conversation under the images of another scene that has as many; all texts and all images stay.

    Raises:
        ValueError: all rows with some number of images are of one scene.
    """
    donors = list(_donors(rows))
    return [row | {"images": rows[donor]["images"]} for row, donor in zip(rows, donors)]


def scene_of(row: Row) -> str:
    """The scene that a row was made from: its id without the view or the views."""
    return str(row["id"]).split("-view")[0]


def _donors(rows: list[Row]) -> Iterator[int]:
    """Per row the one whose images it gets: a rotation of the scenes' own order by more than any scene's rows."""
    place: dict[int, int] = {}
    by_count: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        by_count.setdefault(len(row["images"]), []).append(number)
    for count, numbers in by_count.items():
        scenes = [scene_of(rows[number]) for number in numbers]
        ordered = sorted(numbers, key=lambda number: (random.Random(scene_of(rows[number])).random(), number))
        most = max(scenes.count(scene) for scene in set(scenes))
        if 2 * most > len(numbers):
            raise ValueError(f"of {len(numbers)} rows with {count} images {most} are of one scene: build more scenes.")
        place |= dict(zip(ordered, [*ordered[most:], *ordered[:most]]))
    return (place[number] for number in range(len(rows)))
