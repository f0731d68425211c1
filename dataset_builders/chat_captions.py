"""Turns 11 and 12 by a chat model that sees the images and is told what is known for sure."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from dataset_builders.chat_messages import photograph, read_prompt
from dataset_builders.scene import Scene
from dataset_builders.text_client import Chat

MIN_WORDS, MAX_WORDS = 6, 150
_TEXT = {"type": "string"}
SCHEMA = {
    "type": "object",
    "properties": {"description": _TEXT, "layout": _TEXT},
    "required": ["description", "layout"],
    "additionalProperties": False,
}
_DIGIT = re.compile(r"\d")
_IMAGE_NUMBER = re.compile(r"\bimages? \d\b", re.IGNORECASE)
_MARKUP = re.compile(r"[<>{}|*#`\n]")


def write_captions(
    scene: Scene, facts_text: str, chat: Chat, check: Callable[[Sequence[str]], list[str]] = lambda captions: []
) -> list[str]:
    """What a scene shows, and how it is laid out in space.

    Args:
        scene: all its views are shown.
        facts_text: what is known from measurements; the captions may not contradict it.
        chat: the model.
        check: problems of the two captions beyond their form; where there are any, the model is asked once more.

    Raises:
        DropItem: the model gives no usable captions, whatever the reason.
    """

    def problems(answer: dict[str, str]) -> list[str]:
        captions = _tidy(answer)
        return [problem for caption in captions for problem in form_problems(caption)] or check(captions)

    answer = chat.ask(
        "captions",
        caption_prompt(len(scene.views), facts_text),
        [photograph(view.image) for view in scene.views],
        SCHEMA,
        problems,
    )
    return _tidy(answer)


def caption_prompt(num_views: int, facts_text: str) -> str:
    """The question that asks for both captions of a scene."""
    several = num_views > 1
    return read_prompt(
        "caption",
        shown=f"The {num_views} images show one place, called image 1 to image {num_views} in the order given."
        if several
        else "You see one photograph.",
        facts=facts_text,
        except_images=' (but for "image 1" and the like)' if several else "",
        of_image=", and of which image, where it matters" if several else "",
    )


def form_problems(caption: str) -> list[str]:
    """What is wrong with a caption before its content is looked at."""
    words = len(caption.split())
    problems = []
    if not MIN_WORDS <= words <= MAX_WORDS:
        problems.append(f"a caption has {words} words, not {MIN_WORDS} to {MAX_WORDS}")
    if _DIGIT.search(_IMAGE_NUMBER.sub("", caption)):
        problems.append("a caption holds digits")
    if _MARKUP.search(caption):
        problems.append("a caption holds markup")
    return problems


def _tidy(answer: dict[str, Any]) -> list[str]:
    return [" ".join(answer[name].split()) for name in ("description", "layout")]
