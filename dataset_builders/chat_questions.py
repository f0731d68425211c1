"""Questions about two views as a chat model writes them: their schema, what makes one unfit, and their final words.

The model writes every adversarial question twice, once to be answered by yes and once by no, and the right option of a
choice apart from the wrong ones; which of the two is asked, and where the right option stands, is drawn by the seed.
So neither yes nor a letter is likelier than the others, whatever the model's habits.
"""

import random
import re
from collections.abc import Iterator
from typing import Any

from dataset_builders.grammar import COUNT_WORDS
from dataset_builders.verification import LENGTH_PATTERN
from dataset_builders.vqa_choices import LETTERS
from dataset_builders.vqa_questions import Question

MAX_CHARACTERS = 300
_TEXT = {"type": "string"}


def _records(**fields: dict[str, Any]) -> dict[str, Any]:
    """Schema of a list of objects with these fields and no others."""
    return {
        "type": "array",
        "items": {
            "type": "object",
            "properties": fields,
            "required": list(fields),
            "additionalProperties": False,
        },
    }


def _record_of(**fields: dict[str, Any]) -> dict[str, Any]:
    return _records(**fields)["items"]


QUESTIONS_SCHEMA = _record_of(
    common=_records(question=_TEXT, answer=_TEXT),
    adversarial=_records(question_with_true_premise=_TEXT, question_with_false_premise=_TEXT, fact=_TEXT),
    multiple_choice=_records(question=_TEXT, right_option=_TEXT, wrong_options={"type": "array", "items": _TEXT}),
)
VERDICTS_SCHEMA = _record_of(verdicts=_records(number={"type": "integer"}, still_valid={"type": "boolean"}))
KINDS = ("common", "adversarial", "multiple_choice")
QUESTION_FIELDS = ("question", "question_with_true_premise", "question_with_false_premise")
Item = dict[str, Any]

_IMAGE = re.compile(r"\bimage (\d+)\b", re.IGNORECASE)
_NUMBER = re.compile(rf"\d|\b(?:{'|'.join(COUNT_WORDS[2:])})\b", re.IGNORECASE)
_OTHER_NAME = re.compile(
    r"\b(?:first|second|last|left|right|other|former|latter|next|previous) (?:image|photo|picture|photograph|view)\b"
    r"|\b(?:photo|picture|photograph|view) [12AB]\b",
    re.IGNORECASE,
)
_POLAR = re.compile(r"\b(?:yes|no)\b", re.IGNORECASE)
_MARKUP = re.compile(r"[<>{}|*#`]")
_ALL_OR_NONE = re.compile(
    r"\b(?:(?:all|none|both|any|neither) of (?:these|the|them|above)|cannot be told)\b", re.IGNORECASE
)
_ONLY_TWO = re.compile(r"\b(?:both|either|neither)\b", re.IGNORECASE)


def fit_items(answer: dict[str, Any], num_images: int) -> list[tuple[str, Item]]:
    """Kind and content of the questions that may be asked about that many images, tidied, none twice.

    With more than two images, image 2 becomes the last one, and what only makes sense for two is left out.
    """
    found: dict[str, tuple[str, Item]] = {}
    for kind, item in _items(answer):
        if not item_problems(kind, item):
            if num_images > 2 and any(_ONLY_TWO.search(text) for text in _texts(item)):
                continue
            if num_images > 2:
                item = _mapped(item, lambda text: re.sub(r"\b([Ii]mage) 2\b", rf"\1 {num_images}", text))
            found.setdefault(next(_texts(item)).lower(), (kind, item))
    return list(found.values())


def all_problems(answer: dict[str, Any], least: int) -> list[str]:
    """What is wrong with the questions of an answer, where fewer than `least` may be asked; else nothing."""
    if len(fit_items(answer, 2)) >= least:
        return []
    problems = [problem for kind, item in _items(answer) for problem in item_problems(kind, item)]
    return [f"fewer than {least} different questions can be used", *dict.fromkeys(problems)]


def item_problems(kind: str, item: Item) -> list[str]:
    """Why a question may not be asked; none needs more than its words to be found."""
    problems = [problem for text in _texts(item) for problem in _text_problems(text)]
    problems += [f"{item[name]!r} is no question" for name in QUESTION_FIELDS if item.get(name, "?")[-1:] != "?"]
    if kind == "common" and _POLAR.match(item["answer"]):
        problems.append(f"{item['question']!r} is answered by yes or no")
    if kind == "adversarial":
        if _POLAR.search(item["fact"]):
            problems.append(f"the fact {item['fact']!r} says yes or no")
        if item[QUESTION_FIELDS[1]].lower() == item[QUESTION_FIELDS[2]].lower():
            problems.append(f"both forms of {item[QUESTION_FIELDS[1]]!r} are the same")
    if kind == "multiple_choice":
        options = [item["right_option"], *item["wrong_options"]]
        if len(options) != len(LETTERS) or len({one.lower().strip(" .") for one in options}) != len(LETTERS):
            problems.append(f"{item['question']!r} has not one right and three wrong options, all different")
        if any(_ALL_OR_NONE.search(one) for one in options):
            problems.append(f"{item['question']!r} has an option that speaks of the others")
    return problems


def worded(kind: str, item: Item, rng: random.Random) -> Question:
    """The question as it is asked, with the draws that keep its answers balanced."""
    if kind == "common":
        answer = item["answer"].rstrip(" .")
        return Question("chat.common", item["question"], _sentence(answer), answer)
    if kind == "adversarial":
        word = rng.choice(("yes", "no"))
        text = item["question_with_true_premise" if word == "yes" else "question_with_false_premise"]
        reply = f"{word.capitalize()}." + rng.choice(("", f" {_sentence(item['fact'])}"))
        return Question("chat.adversarial", text, reply, word)
    options = rng.sample(item["wrong_options"], len(item["wrong_options"]))
    place = rng.randrange(len(LETTERS))
    options.insert(place, item["right_option"])
    letter, lines = LETTERS[place], [f"{one}. {option.rstrip(' .')}" for one, option in zip(LETTERS, options)]
    text = "\n".join([item["question"], *lines, "Answer with the letter of the right option."])
    reply = rng.choice((f"{letter}.", f"{letter}. {_sentence(item['right_option'])}"))
    return Question("chat.multiple_choice", text, reply, letter)


def _items(answer: dict[str, Any]) -> Iterator[tuple[str, Item]]:
    for kind in KINDS:
        for item in answer[kind]:
            yield kind, _mapped(item, _tidy)


def _texts(item: Item) -> Iterator[str]:
    for value in item.values():
        yield from [value] if isinstance(value, str) else value


def _mapped(item: Item, change: Any) -> Item:
    return {
        name: change(value) if isinstance(value, str) else [change(one) for one in value]
        for name, value in item.items()
    }


def _tidy(text: str) -> str:
    """One line, without a letter or a bullet before it."""
    return re.sub(r"^(?:[A-D][.)]|[-•])\s+", "", " ".join(text.split()))


def _sentence(text: str) -> str:
    text = text.rstrip(" .")
    return f"{text[:1].upper()}{text[1:]}."


def _text_problems(text: str) -> Iterator[str]:
    if not 0 < len(text) <= MAX_CHARACTERS:
        yield f"{text[:40]!r} is empty or longer than {MAX_CHARACTERS} characters"
    if any(int(number) not in (1, 2) for number in _IMAGE.findall(text)):
        yield f"{text!r} speaks of an image that is not there"
    if _NUMBER.search(_IMAGE.sub("", text)) or LENGTH_PATTERN.search(text):
        yield f"{text!r} holds a number"
    if _OTHER_NAME.search(text):
        yield f"{text!r} does not call the images image 1 and image 2"
    if _MARKUP.search(text):
        yield f"{text!r} holds markup"
