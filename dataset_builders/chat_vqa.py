"""Builds the multi-view VQA set (the data of stage 2) as the paper does: a chat model writes the questions.

It sees the two anchors of a group. Where a group has more views, it then sees all of them and checks every question
and answer again; what does not hold any more is left out. No geometry is needed, so any sequence of images will do.
"""

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

from dataset_builders.chat_messages import photograph, read_prompt
from dataset_builders.chat_questions import QUESTIONS_SCHEMA, VERDICTS_SCHEMA, all_problems, fit_items, worded
from dataset_builders.filters import check_overlap
from dataset_builders.geometry import valid_depth
from dataset_builders.multi_view_vqa import MIN_QUESTIONS, QUESTIONS_PER_KIND, question_messages, turn_row
from dataset_builders.pairing import Job, group_jobs
from dataset_builders.perception import PerceptualDistance
from dataset_builders.scene import DropItem, Scene
from dataset_builders.spatial_reasoning import base_record
from dataset_builders.text_client import Chat
from dataset_builders.vqa_questions import Question

MIN_DEPTH_SHARE = 0.2  # of the pixels of a view; covisibility cannot be measured on sparse points
Asked = list[tuple[str, Question]]  # kind and question


def jobs(scene: Scene, seed: int, chat: Chat, distance: PerceptualDistance | None) -> Iterator[Job]:
    """The records that a scene gives, or the reason why it gives none; see `pairing.group_jobs`."""
    yield from group_jobs(
        scene, seed, distance, partial(build_record, seed=seed, chat=chat, paired=distance is not None)
    )


def build_record(scene: Scene, *, seed: int, chat: Chat, paired: bool) -> dict[str, Any]:
    """The VQA record of a group of views whose questions a chat model wrote.

    Args:
        scene: with two or more views, all of which are shown; the first and the last are the anchors.
        seed: decides which form of an adversarial question is asked, the places of the options, and the order.
        chat: the model.
        paired: whether the anchors were chosen by how different they look; else poses and depth must show that the
            views have something in common.

    Raises:
        DropItem: "too_few_questions", "views_not_compared", "views_too_different", "views_too_similar", or what
            `ChatClient.ask` raises.
    """
    record = base_record(scene, seed, "forward")
    comparable = bool(record["cameras"]) and all(
        valid_depth(view.depth_m).mean() >= MIN_DEPTH_SHARE for view in scene.views
    )
    if not comparable and not paired:
        raise DropItem(
            "views_not_compared",
            f"{scene.id}: without poses and dense depth, views are only paired by --pair-distance, which is not set",
        )
    shared = check_overlap(scene) if comparable else None
    asked = _draw_questions(scene, seed, chat)
    if len(scene.views) > 2 and asked:
        asked = _still_valid(scene, asked, chat)
    if len(asked) < MIN_QUESTIONS:
        raise DropItem("too_few_questions", f"{scene.id}: only {len(asked)} questions of the chat model can be used")
    turns = [turn_row(index, kind, question) for index, (kind, question) in enumerate(asked, start=1)]
    return record | {
        "messages": question_messages(asked, len(scene.views), preamble=""),
        "turns": turns,
        "overlap": shared,
    }


def questions_prompt() -> str:
    """The question that asks for questions about two views."""
    count = QUESTIONS_PER_KIND
    return read_prompt("questions", num_common=count, num_adversarial=count, num_choice=count)


def verdicts_prompt(asked: Asked, num_images: int) -> str:
    """The question whether questions about the first and the last view hold for all of them."""
    listed = "\n".join(
        f"{number}. Question: {question.text}\n   Answer: {question.reply}"
        for number, (_, question) in enumerate(asked, start=1)
    )
    return read_prompt("recheck", count=num_images, questions=listed)


def _draw_questions(scene: Scene, seed: int, chat: Chat) -> Asked:
    """Questions about the first and the last view, in a drawn order."""
    answer = chat.ask(
        "questions",
        questions_prompt(),
        [photograph(view.image) for view in (scene.views[0], scene.views[-1])],
        QUESTIONS_SCHEMA,
        partial(all_problems, least=MIN_QUESTIONS),
    )
    rng = random.Random(f"{seed}:{scene.id}:chat")
    asked = [(kind, worded(kind, item, rng)) for kind, item in fit_items(answer, len(scene.views))]
    rng.shuffle(asked)
    return asked


def _still_valid(scene: Scene, asked: Asked, chat: Chat) -> Asked:
    """Those questions whose answers the model finds right once it has seen all views."""
    numbers = list(range(1, len(asked) + 1))

    def problems(answer: dict[str, Any]) -> list[str]:
        judged = sorted(one["number"] for one in answer["verdicts"])
        return [] if judged == numbers else [f"there are verdicts on {judged}, not one on each of {numbers}"]

    answer = chat.ask(
        "verdicts",
        verdicts_prompt(asked, len(scene.views)),
        [photograph(view.image) for view in scene.views],
        VERDICTS_SCHEMA,
        problems,
    )
    valid = {one["number"] for one in answer["verdicts"] if one["still_valid"]}
    return [one for number, one in enumerate(asked, start=1) if number in valid]
