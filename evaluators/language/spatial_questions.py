"""Answers of the vision-language model to held-out turns of `spatialboost build`, scored against exact geometry."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.contract import Result
from evaluators.data_sets.conversations import (
    CHOICES,
    KINDS,
    NUMBERS,
    YES_NO,
    Conversation,
    Conversations,
    Turn,
    Value,
    load_conversations,
    present_configurations,
)
from evaluators.encoders import Encoder
from evaluators.language.asking import (
    TRUE_IMAGES,
    ImagesOf,
    gathered,
    kept_answers,
    load_asked,
    per_cent,
    single_rows,
    warnings_of,
    ways_of_seeing,
)
from evaluators.language.config import LanguageConfig
from evaluators.language.pictures import save_answers, shown_question
from evaluators.language.vlm import Prompt, VisionLanguageModel
from evaluators.metrics import Metric

PROTOCOL = "spatial-questions/1"
CLOSE, NEAR = 0.10, 0.25  # relative errors
TRAINING_CONVERSATIONS = 2000  # enough for medians
METRICS = (
    Metric("right", "right answers (%)", higher_is_better=True),
    Metric("numbers_within_25", "numbers within 25 % (%)", higher_is_better=True),
    Metric("numbers_within_10", "numbers within 10 % (%)", higher_is_better=True),
    Metric("numbers_error", "numbers, median error (%)", higher_is_better=False),
    Metric("yes_no", "yes or no, right (%)", higher_is_better=True),
    Metric("choices", "choices, right (%)", higher_is_better=True),
    Metric("unreadable", "unreadable answers (%)", higher_is_better=False),
    *(Metric(kind, f"{kind.replace('_', ' ')}, right (%)", higher_is_better=True) for kind in KINDS),
)
NOTES = (
    "A number (length, position, count) is right within 25 % of the truth, for a position of its distance from the "
    "camera; the last length in an answer counts, with its unit. Yes or no must not be said both. Unreadable answers "
    "are wrong; the median error is of the readable ones. Captions and free words are not scored.",
    "Greedy answers, ended by the end of the turn: no seed has a say. The interval resamples conversations, for the "
    "turns of one are not independent.",
    "Controls: `constant` answers each kind by the median or the most frequent answer of split train; `blind` sees "
    "grey images, `other images` those of another conversation, both by the model of the side that is named.",
)
# (place of the kind, form of the answer, right, relative error, readable)
WIDTH = 5


@dataclass(frozen=True, kw_only=True)
class Config(LanguageConfig):
    """Turns of conversations.

    Attributes:
        configurations: of the data, by commas.
        history: "own": a turn follows the model's own earlier answers; "data": it follows the data's, which often
            give the later answer away.
    """

    max_new_tokens: int = 256
    configurations: str = "single_view,multi_view"
    history: str = "own"

    def __post_init__(self) -> None:
        """Check the choice."""
        if self.history not in ("own", "data"):
            raise ValueError(f"--set spatial_questions.history={self.history!r} is none of own, data")


def check(config: Config) -> None:
    """Find mistakes in the data before anything is measured.

    Raises:
        ValueError: no such data, or no conversations in it.
    """
    assert config.data is not None  # the catalogue says that the data set has a place
    present_configurations(config.data, config.configurations.split(","))


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Ask the model of this side about the conversations of split test.

    Raises:
        ValueError: no conversations, or a model that cannot be loaded.
    """
    assert config.data is not None  # the catalogue says that the data set has a place
    vlm = load_asked(encoder, config)
    names = config.configurations.split(",")
    test = load_conversations(config.data, "test", names, config.wanted_items)
    train = load_conversations(config.data, "train", names, min(TRAINING_CONVERSATIONS, config.limit or 10**9))
    things = [(conversation.id, conversation.num_images) for conversation in test.conversations]
    answers, items = {}, {}
    for way, images_of in ways_of_seeing(test.images, things, config).items():
        ask = partial(hold, vlm, config, test, images_of, way)
        answers[way] = kept_answers(vlm, config, [PROTOCOL, test.fingerprint, config.history, way], ask)
        items[way] = _items(test, answers[way])
    scores = {way: aggregate(of_way) for way, of_way in items.items()}
    warnings = warnings_of(config.side, METRICS[0].label, {way: values["right"] for way, values in scores.items()})
    if shared := {one.id for one in test.conversations} & {one.id for one in train.conversations}:
        warnings += [f"{len(shared)} conversations are in both splits."]
    splits = {"train": train.describe(), "test": test.describe()}
    own = {f"{way}_{config.side}".replace(" ", "_"): values for way, values in scores.items() if way}
    return {
        "protocol": {
            "id": PROTOCOL,
            "notes": list(NOTES),
            "settings": {name: getattr(config, name) for name in ("history", "configurations", "max_new_tokens")}
            | {"scored turns": len(single_rows(items[TRUE_IMAGES], WIDTH))},
            "differs": "the paper reports no answers to its own questions",
        },
        "data": {"source": config.data, "splits": splits, "warnings": warnings},
        "encoder": vlm.describe(),
        "seeds": [config.seeds[0]],
        "items": [items[TRUE_IMAGES]],
        "controls": {"constant": aggregate(_constant_items(test, train)), **own},
        "examples": _examples(test, answers[TRUE_IMAGES], config.num_examples),
    }


def hold(
    vlm: VisionLanguageModel, config: Config, data: Conversations, images_of: ImagesOf, about: str
) -> list[list[str]]:
    """Ask every turn of every conversation, turn by turn; return the answers per conversation.

    A turn that is not scored is asked only where the model's own answer to it is part of what follows.
    """
    conversations = data.conversations
    answers: list[list[str]] = [[] for _ in conversations]
    for number in range(max(len(conversation.turns) for conversation in conversations)):
        asked = [i for i, one in enumerate(conversations) if number < len(one.turns)]
        if config.history == "data":
            asked = [i for i in asked if conversations[i].turns[number].form is not None]

        def prompt(place: int, asked: list[int] = asked, number: int = number) -> Prompt:
            index = asked[place]
            turns = conversations[index].turns[: number + 1]
            told = answers[index] if config.history == "own" else [turn.words for turn in turns]
            return Prompt(images_of(index), messages_of(turns, told))

        texts = vlm.answer(
            prompt, len(asked), config.max_new_tokens, config.batch_size, f"{about} turn {number + 1}".strip()
        )
        texts_of = dict(zip(asked, texts))
        for index, conversation in enumerate(conversations):
            if number < len(conversation.turns):
                answers[index].append(texts_of.get(index, ""))
    return answers


def messages_of(turns: Sequence[Turn], answers: Sequence[str]) -> list[dict[str, Any]]:
    """The turns as a chat that ends with the last question; `answers` are those to the turns before."""
    messages = [{"role": "user", "content": turns[0].content}]
    for turn, answer in zip(turns[1:], answers):
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        messages.append({"role": "user", "content": turn.content})
    return messages


def score(turn: Turn, said: Value | None) -> tuple[float, float, float, float, float]:
    """The row of a turn: place of its kind, form, right, relative error (NaN for words or if unreadable), readable."""
    error, right = np.nan, False
    if said is not None and turn.form == NUMBERS:
        truth = np.atleast_1d(np.asarray(turn.truth, dtype=np.float64))
        error = float(np.linalg.norm(np.asarray(said) - truth) / max(float(np.linalg.norm(truth)), 1e-3))
        right = error <= NEAR
    elif said is not None:
        right = said == turn.truth
    assert turn.form is not None  # such turns are not scored
    return float(KINDS.index(turn.kind)), float(turn.form), float(right), error, float(said is not None)


def aggregate(items: np.ndarray) -> dict[str, float]:
    """Return a value per metric of (conversations, turns * 5), NaN for a kind that nothing was asked of."""
    kind, form, right, error, readable = single_rows(items, WIDTH).T
    errors = error[~np.isnan(error)]
    numbers = form == NUMBERS
    return {
        "right": per_cent(right),
        "numbers_within_25": per_cent(right[numbers]),
        "numbers_within_10": per_cent(error[numbers] <= CLOSE),
        "numbers_error": 100 * float(np.median(errors)) if len(errors) else float("nan"),
        "yes_no": per_cent(right[form == YES_NO]),
        "choices": per_cent(right[form == CHOICES]),
        "unreadable": per_cent(1 - readable),
        **{name: per_cent(right[kind == place]) for place, name in enumerate(KINDS)},
    }


def constant_answers(train: Conversations) -> dict[tuple[str, int | None], Value]:
    """Per kind and form what answers best without looking: the median number, the most frequent word or place."""
    truths: dict[tuple[str, int | None], list[Any]] = {}
    for conversation in train.conversations:
        for turn in conversation.turns:
            if turn.form is not None:
                truths.setdefault((turn.kind, turn.form), []).append(turn.truth)
    return {
        key: tuple(np.median(values, axis=0).tolist())
        if isinstance(values[0], tuple)
        else float(np.median(values))
        if isinstance(values[0], float)
        else max(sorted(set(values)), key=values.count)
        for key, values in truths.items()
    }


def draw(file: Path, base: Result, boosted: Result) -> None:
    """Draw questions with their images, the truth, and both answers."""
    save_answers(file, base["examples"], boosted["examples"])


def _items(data: Conversations, answers: list[list[str]]) -> np.ndarray:
    rows = [
        (place, score(turn, turn.read(text)))
        for place, (conversation, texts) in enumerate(zip(data.conversations, answers))
        for turn, text in zip(conversation.turns, texts)
        if turn.form is not None
    ]
    return gathered(rows)


def _constant_items(test: Conversations, train: Conversations) -> np.ndarray:
    guess = constant_answers(train)
    rows = [
        (place, score(turn, guess.get((turn.kind, turn.form))))
        for place, conversation in enumerate(test.conversations)
        for turn in conversation.turns
        if turn.form is not None
    ]
    return gathered(rows)


def _examples(data: Conversations, answers: list[list[str]], count: int) -> list[dict[str, np.ndarray]]:
    """One turn of each of `count` conversations, of another kind each time where that is possible."""
    examples, kinds = [], set()
    for index in np.unique(np.linspace(0, len(data.conversations) - 1, count).round().astype(int)):
        conversation: Conversation = data.conversations[index]
        scored = [place for place, turn in enumerate(conversation.turns) if turn.form is not None]
        place = next((p for p in scored if conversation.turns[p].kind not in kinds), scored[0])
        turn, text = conversation.turns[place], answers[index][place]
        kinds.add(turn.kind)
        right = bool(score(turn, turn.read(text))[2])
        examples.append(shown_question(data.images(index), turn.question, turn.words, text, right))
    return examples
