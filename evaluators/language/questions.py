"""Questions of public benchmarks: multiple choice or a number, about images; the course that all of them take."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from evaluators.contract import Result
from evaluators.encoders import Encoder
from evaluators.language.asking import (
    TRUE_IMAGES,
    ImagesOf,
    gathered,
    kept_answers,
    load_asked,
    warnings_of,
    ways_of_seeing,
)
from evaluators.language.config import LanguageConfig
from evaluators.language.pictures import shown_question
from evaluators.language.reading import read_letter, read_number
from evaluators.language.rows import spread
from evaluators.language.vlm import Prompt, VisionLanguageModel
from evaluators.metrics import Metric

THRESHOLDS = np.arange(50, 100, 5) / 100  # of the mean relative accuracy
# (place of the category, score, readable, code of the variant)
WIDTH = 4
NOTES = (
    "Greedy answers, ended by the end of the turn: no seed has a say. A choice is read as a letter by itself, as "
    "(B), as B., behind the word answer, or as the option's very words; what cannot be read is wrong.",
    "Controls: `constant` gives each category its most frequent letter or median number in the benchmark itself, more "
    "than an honest constant could know; `blind` sees grey images, `other images` those of another question, both by "
    "the model of the side that is named. The interval resamples what questions are about, not single questions.",
)


@dataclass(frozen=True)
class Question:
    """A question of a benchmark.

    Attributes:
        thing: what it is about; questions about one thing are resampled together.
        category: which scores it counts for.
        text: the whole prompt.
        answer: a letter, or a number as text.
        choices: the options' words, (); empty for a number.
        images: decodes its images.
        num_images: how many there are.
        digest: of the images' content.
        variant: code of a variant of the same question, for benchmarks that have such.
    """

    thing: str
    category: str
    text: str
    answer: str
    choices: tuple[str, ...]
    images: Callable[[], list[Image.Image]]
    num_images: int
    digest: str
    variant: int = 0

    def score(self, text: str | None) -> tuple[float, float]:
        """Score of an answer in [0, 1], and whether it could be read."""
        if text is None:
            return 0.0, 0.0
        if self.choices:
            letter = read_letter(text, len(self.choices), self.choices)
            return float(letter == self.answer), float(letter is not None)
        number = read_number(text)
        return (0.0, 0.0) if number is None else (relative_accuracy(number, float(self.answer)), 1.0)


@dataclass(frozen=True)
class Questions:
    """A benchmark as it was found: where, how many questions, how many were left out by reason."""

    source: str
    split: str
    questions: tuple[Question, ...]
    dropped: dict[str, int]

    @property
    def fingerprint(self) -> str:
        """Content hash of what was kept."""
        parts = (f"{q.text} {q.answer} {q.digest}" for q in self.questions)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def thinned(self, num_things: int | None) -> "Questions":
        """The questions about `num_things` things, evenly spread."""
        things = list(dict.fromkeys(question.thing for question in self.questions))
        kept = {things[index] for index in spread(len(things), num_things)}
        questions = tuple(question for question in self.questions if question.thing in kept)
        return Questions(self.source, self.split, questions, self.dropped)


def relative_accuracy(said: float, truth: float) -> float:
    """VSI-Bench's mean relative accuracy: the share of thresholds t with |said - truth| / truth <= 1 - t."""
    return float((abs(said - truth) / truth <= 1 - THRESHOLDS).mean()) if truth else float(said == truth)


def ask_benchmark(
    encoder: Encoder,
    config: LanguageConfig,
    questions: Questions,
    categories: Sequence[str],
    metric: Metric,
    aggregate: Callable[[np.ndarray], dict[str, float]],
    protocol: dict[str, Any],
) -> Result:
    """Ask the model of this side all questions of a benchmark.

    Args:
        encoder: tells device and precision.
        config: of the task.
        questions: all of them; they are thinned here.
        categories: which `Question.category` can be.
        metric: the one that decides.
        aggregate: of the task.
        protocol: its `id`, `notes` and `differs`.
    """
    vlm = load_asked(encoder, config)
    asked = questions.thinned(config.wanted_items)
    things = [(question.thing, question.num_images) for question in asked.questions]
    answers, items = {}, {}
    for way, images_of in ways_of_seeing(lambda index: asked.questions[index].images(), things, config).items():
        ask = partial(_ask, vlm, config, asked.questions, images_of, f"{way} {protocol['id']}".strip())
        answers[way] = kept_answers(vlm, config, [protocol["id"], asked.fingerprint, way], ask)
        items[way] = _items(asked.questions, answers[way], categories)
    scores = {way: aggregate(of_way) for way, of_way in items.items()}
    constant = _items(asked.questions, constant_answers(asked.questions), categories)
    own = {f"{way}_{config.side}".replace(" ", "_"): values for way, values in scores.items() if way}
    return {
        "protocol": {
            "id": protocol["id"],
            "notes": [*protocol["notes"], *NOTES],
            "settings": {"max_new_tokens": config.max_new_tokens, "questions": len(asked.questions)},
            "differs": protocol["differs"],
        },
        "data": {
            "source": asked.source,
            "splits": {
                asked.split: {
                    "items": len(asked.questions),
                    "dropped": asked.dropped,
                    "fingerprint": asked.fingerprint,
                }
            },
            "warnings": warnings_of(
                config.side, metric.label, {way: values[metric.name] for way, values in scores.items()}
            ),
        },
        "encoder": vlm.describe(),
        "seeds": [config.seeds[0]],
        "items": [items[TRUE_IMAGES]],
        "controls": {"constant": aggregate(constant), **own},
        "examples": _examples(asked.questions, answers[TRUE_IMAGES], config.num_examples),
    }


def prompt_of(question: Question, images: list[Image.Image]) -> Prompt:
    """The images, each introduced by its number where there are several, as in training; then the text."""
    content: list[dict[str, Any]] = []
    for number in range(1, len(images) + 1):
        if len(images) > 1:
            content.append({"type": "text", "text": f"Image {number}: "})
        content.append({"type": "image"})
    return Prompt(images, [{"role": "user", "content": [*content, {"type": "text", "text": question.text}]}])


def with_options(question: str, choices: Sequence[str]) -> str:
    """A question with lettered options and the order to answer by a letter."""
    lines = [f"{chr(ord('A') + place)}. {choice}" for place, choice in enumerate(choices)]
    return "\n".join([question, *lines, "Answer with the letter of the right option."])


def constant_answers(questions: Sequence[Question]) -> list[str]:
    """What answers each category best without looking: its most frequent letter, or its median number."""
    truths: dict[tuple[str, bool], list[str]] = {}
    for question in questions:
        truths.setdefault((question.category, bool(question.choices)), []).append(question.answer)
    best = {
        key: max(sorted(set(values)), key=values.count) if key[1] else str(float(np.median(list(map(float, values)))))
        for key, values in truths.items()
    }
    return [best[question.category, bool(question.choices)] for question in questions]


def _ask(
    vlm: VisionLanguageModel, config: LanguageConfig, questions: Sequence[Question], images_of: ImagesOf, about: str
) -> list[str]:
    def prompt(index: int) -> Prompt:
        return prompt_of(questions[index], images_of(index))

    return vlm.answer(prompt, len(questions), config.max_new_tokens, config.batch_size, about)


def _items(questions: Sequence[Question], answers: Sequence[str], categories: Sequence[str]) -> np.ndarray:
    return gathered(
        [
            (question.thing, (categories.index(question.category), *question.score(text), question.variant))
            for question, text in zip(questions, answers)
        ]
    )


def _examples(questions: Sequence[Question], answers: Sequence[str], count: int) -> list[dict[str, np.ndarray]]:
    return [
        shown_question(
            questions[index].images(),
            questions[index].text,
            questions[index].answer,
            answers[index],
            questions[index].score(answers[index])[0] >= 0.5,
        )
        for index in spread(len(questions), count)
    ]
