"""Builds the multi-view VQA set (the data of stage 2) and the captions of stage 1 from what a scene truly shows.

The paper lets a chat model write common, adversarial and multiple-choice questions about a pair of views; here the
same three kinds are composed from the scene's ground truth, together with questions that point at image coordinates.
"""

import random
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

from dataset_builders.facts import RecordFacts, Row
from dataset_builders.filters import check_overlap
from dataset_builders.grammar import counted, listed, sentences
from dataset_builders.objects import measure_objects
from dataset_builders.phrasings import PREAMBLE, RELATIONS
from dataset_builders.pointing import object_rows
from dataset_builders.scene import DropItem, Scene
from dataset_builders.schema import KINDS, message, opening_parts
from dataset_builders.spatial_reasoning import base_record, check_located
from dataset_builders.vqa_choices import CHOICES, matching_point
from dataset_builders.vqa_ground import Ground, strangers_of, things_of
from dataset_builders.vqa_questions import ABOUT_COLOUR, ADVERSARIAL, COMMON, POINTING, PRESENCE, Question, same_spot

QUESTIONS_PER_KIND = 3
MIN_QUESTIONS = 4
DESCRIBE = (
    "Describe the image.",
    "Describe the image concisely.",
    "What does the image show?",
    "Give a short description of the image.",
    "Write a caption for this image.",
    "What can be seen in the picture?",
)
INVENTORIES = (
    "the image shows {things}.",
    "in this image we see {things}.",
    "this is a picture of {things}.",
    "shown here: {things}.",
    "one can see {things}.",
    "the picture holds {things}.",
)
CAPTION_RELATIONS = ("left_right", "front_behind", "above_below")
ABOUT_SPOTS = (same_spot, matching_point)
Template = Callable[[Ground], Question | None]


def build_record(scene: Scene, *, seed: int) -> dict[str, Any]:
    """The VQA record of a group of views, a pure function of its arguments.

    Args:
        scene: with two or more posed views, all of which are shown.
        seed: decides what is asked and how.

    Raises:
        DropItem: "single_view", "not_metric", "views_too_different", "views_too_similar" or "too_few_questions",
            and those of `check_located`.
    """
    if len(scene.views) < 2:
        raise DropItem("single_view", f"scene {scene.id!r} has one view, and the questions compare views")
    if not scene.metric:
        raise DropItem("not_metric", f"scene {scene.id!r} has no metric scale, so its views cannot be compared")
    check_located(scene)
    shared = check_overlap(scene)
    measured = measure_objects(scene)
    record = base_record(scene, seed, "forward") | {"objects": object_rows(scene, measured, seed)}
    rng = random.Random(f"{seed}:{scene.id}:vqa")
    ground = Ground(
        scene=scene,
        facts=RecordFacts(record),
        measured={one.item.id: one for one in measured},
        things=things_of(scene, record["objects"]),
        strangers=strangers_of(scene, rng),
        rng=rng,
    )
    asked = draw_questions(ground)
    if len(asked) < MIN_QUESTIONS:
        raise DropItem("too_few_questions", f"scene {scene.id!r}: only {len(asked)} questions can be asked")
    turns = [turn_row(index, kind, question) for index, (kind, question) in enumerate(asked, start=1)]
    return record | {"messages": question_messages(asked, len(scene.views)), "turns": turns, "overlap": shared}


def draw_questions(ground: Ground) -> list[tuple[str, Question]]:
    """Kind and question of every turn: at most three of a kind, one at most about colour, some that point.

    A question about a colour comes first, before any other names the thing together with its colour.
    """
    rng = ground.rng
    colour = rng.choice(sorted(ABOUT_COLOUR))
    drawn: list[tuple[str, Question]] = []
    plans: tuple[tuple[str, tuple[Template, ...], tuple[Template, ...]], ...] = (
        ("adversarial", (), ADVERSARIAL),
        ("common", (rng.choice(PRESENCE), rng.choice(POINTING)), COMMON + PRESENCE + POINTING),
        ("multiple_choice", (), CHOICES),
    )
    order = sorted(rng.sample(plans, len(plans)), key=lambda plan: all(one.__name__ != colour for one in plan[2]))
    for kind, first, others in order:
        open_templates = [one for one in others if one.__name__ not in ABOUT_COLOUR - {colour} and one not in first]
        rng.shuffle(open_templates)
        open_templates.sort(key=lambda one: (one.__name__ != colour, one in PRESENCE + POINTING))
        questions: list[Question] = []
        spots = [] if ground.things else [one for one in open_templates if one in ABOUT_SPOTS]  # all there is to ask
        for template in [*first, *open_templates, *spots * QUESTIONS_PER_KIND]:
            question = template(ground) if len(questions) < QUESTIONS_PER_KIND else None
            if question is not None:
                questions.append(question)
                ground.used.update(question.subjects)
        drawn += [(kind, question) for question in questions]
    rng.shuffle(drawn)
    return sorted(drawn, key=lambda one: one[1].template not in ABOUT_COLOUR)


def build_caption(scene: Scene, *, seed: int) -> dict[str, Any]:
    """The stage-1 record of a single view: one image and what it shows, as a caption composed from the facts.

    Raises:
        DropItem: "no_objects".
    """
    rng = random.Random(f"{seed}:{scene.id}:caption")
    measured = measure_objects(scene)
    record = base_record(scene, seed, "forward") | {"objects": object_rows(scene, measured, seed)}
    rows = [row for row in record["objects"] if row["visible_in"]]
    if not rows:
        raise DropItem("no_objects", f"scene {scene.id!r} shows no object clearly, so there is nothing to describe")
    inventory = _inventory(rows, record["objects"], rng)
    caption = sentences(" ".join([inventory, *_relations(RecordFacts(record), rows, rng)]))
    question = Question(
        "describe", rng.choice(DESCRIBE), caption, caption, object_ids=tuple(row["id"] for row in rows)
    )
    messages = [message("user", None, question.text), message("assistant", question.reply)]
    return record | {"messages": messages, "turns": [turn_row(1, "caption", question)]}


def _inventory(clear: list[Row], rows: list[Row], rng: random.Random) -> str:
    """A sentence that lists the kinds of things clearly in view, from left to right, and counts all there are."""
    names = [row["name"].lower() for row in rows if not row["is_support"]]
    kinds = dict.fromkeys(row["name"].lower() for row in sorted(clear, key=lambda row: row["x"]))
    things = listed([counted(name, names.count(name)) for name in kinds])
    return rng.choice(INVENTORIES).format(things=things)


def _relations(facts: RecordFacts, rows: list[Row], rng: random.Random) -> Iterator[str]:
    """Up to two sentences on how pairs of objects stand to each other, none of them in doubt."""
    named = [row for row in rows if row["usable"] and row["mention"] == f"the {row['name']}"]
    pairs = list(combinations(named, 2))
    for first, second in rng.sample(pairs, min(2, len(pairs))):
        decided = [
            (kind, sign)
            for kind in CAPTION_RELATIONS
            if (sign := facts.relation(kind, first["id"], second["id"], view=0)[0])
        ]
        if decided:
            kind, sign = rng.choice(decided)
            phrase = rng.choice(RELATIONS[kind][0 if sign > 0 else 1]).format(camera="the camera")
            yield f"{first['mention']} is {phrase} {second['mention']}."


def question_messages(
    asked: list[tuple[str, Question]], num_images: int, preamble: str = f"{PREAMBLE}\n"
) -> list[dict[str, Any]]:
    """The conversation: the first message shows the images and says what `preamble` says."""
    messages = []
    for place, (_, question) in enumerate(asked):
        opening = opening_parts(num_images, f"\n{preamble}{question.text}")
        messages.append(message("user", *(opening if place == 0 else [question.text])))
        messages.append(message("assistant", question.reply))
    return messages


def turn_row(index: int, kind: str, question: Question) -> Row:
    """The `turns` entry of a question."""
    return {
        "index": index,
        "level": KINDS[kind],
        "kind": kind,
        "template": question.template,
        "frame": question.frame,
        "value": question.value,
        "unit": "",
        "answer": question.answer,
        "margin": None,
        "points": list(question.points),
        "object_ids": list(question.object_ids),
        "witness": [],
    }
