"""Answers to questions about scenes: a language model reads fused features (ScanQA, SQA3D)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from evaluators.array_cache import cached_value
from evaluators.contract import Result
from evaluators.encoders import Encoder
from evaluators.metrics import Metric
from evaluators.scenes.language_config import Question, QuestionData, ReaderConfig, check_reader
from evaluators.scenes.loading import load_questions
from evaluators.scenes.reader import IGNORED_LABEL, SceneReader, pad, train_reader
from evaluators.scenes.scene_tokens import Tokens, cube_tokens, fuse_points, read_points
from evaluators.scenes.text_metrics import answer_item, answer_scores, first_line

METRICS = (Metric("bleu1", "BLEU-1 (%)", higher_is_better=True), Metric("em1", "EM@1 (%)", higher_is_better=True))
NOTES = (
    "Fused features, pooled in cubes of space, go through a linear projector into a language model, frozen or with "
    "LoRA, with the place of each cube; only the answer's tokens train it.",
    "Exact match after stripping only; BLEU-1 over the data set, lower case, without punctuation.",
)
SELECTION = {
    False: "The last epoch is measured; nothing is selected.",
    True: "Upstream's habit: the best epoch on the reported split is shown.",
}


@dataclass(frozen=True, kw_only=True)
class Config(ReaderConfig):
    """See `ReaderConfig`."""


def check(config: Config) -> None:
    """Raise ValueError for data that lack something, NotMeasurable without a language model."""
    check_reader(config, "scene_answers")
    load_questions(config)


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Train one reader per seed on the train questions and measure its answers to the test questions.

    Raises:
        ValueError: the data lack something, or the encoder does not suit the resolution.
    """
    data = load_questions(config)
    resolution = encoder.fit_resolution(config.resolution or encoder.input_size_px)
    scenes = list(data.scenes.values())
    points = read_points(scenes, config.max_points or 0)
    fused = fuse_points(encoder, scenes, points, config.max_views, resolution, config.cache_dir)
    tokens = {
        scene.id: cube_tokens(part, features, config.num_tokens)
        for scene, part, features in zip(scenes, points, fused)
    }
    # what a reader knows that sees where the scene has surfaces, but no feature of them
    blind = {name: one._replace(features=torch.zeros_like(one.features)) for name, one in tokens.items()}
    described = data.describe()
    key = config.blind_key(described, encoder.hidden_size, "answers")
    position_only = cached_value(config.cache_dir, key, partial(_items, encoder, config, data, blind, config.seeds[0]))
    most_frequent = Counter(answer for question in data.train for answer in question.answers).most_common(1)[0][0]
    return {
        "protocol": {
            "id": "scene-answers/1",
            "notes": [*NOTES, SELECTION[config.upstream_compat]],
            "settings": config.settings(),
            "differs": config.why_not_comparable(),
        },
        "data": described,
        "encoder": {**encoder.describe(), "resolution_px": list(resolution)},
        "seeds": list(config.seeds),
        "items": [_items(encoder, config, data, tokens, seed) for seed in config.seeds],
        "controls": {
            "constant": aggregate(np.stack([answer_item(most_frequent, one.answers) for one in data.test])),
            "position_only": aggregate(position_only.numpy()),
        },
        "examples": [],
    }


def aggregate(items: np.ndarray) -> dict[str, float]:
    """Scores of the (num_questions, 4) items of `answer_item`."""
    return answer_scores(items)


def _items(encoder: Encoder, config: Config, data: QuestionData, tokens: dict[str, Tokens], seed: int) -> np.ndarray:
    """(num_questions, 4) of the last epoch, or of the best one where upstream's habit is wanted."""
    make = partial(SceneReader, config, encoder.hidden_size, 3, encoder.dtype)
    loss = partial(_loss, data.train, tokens)
    items = np.empty(0)
    best = -1.0
    readers = train_reader(make, loss, len(data.train), config, seed, encoder.device)
    for epoch, reader in enumerate(readers, 1):
        if not config.upstream_compat and epoch < config.epochs:
            continue
        answers = answer_questions(reader, data.test, tokens, config)
        found = np.stack([answer_item(answer, one.answers) for answer, one in zip(answers, data.test)])
        if (score := aggregate(found)["bleu1"]) > best or not config.upstream_compat:
            items, best = found, score
    return items


def _prompt(reader: SceneReader, question: Question, tokens: dict[str, Tokens]) -> torch.Tensor:
    """(L, D): what comes before the answer."""
    before, after = reader.text("Scene:", begins=True)[0], reader.text(f"\nQuestion: {question.text}\nAnswer:")[0]
    return torch.cat([before, reader.scene(tokens[question.scene_id]), after])


def _loss(
    questions: Sequence[Question],
    tokens: dict[str, Tokens],
    reader: SceneReader,
    batch: list[int],
    generator: torch.Generator,
) -> torch.Tensor:
    """Cross-entropy of one reference a question, drawn anew each time."""
    embedded, labels = [], []
    for question in (questions[place] for place in batch):
        prompt = _prompt(reader, question, tokens)
        drawn = int(torch.randint(len(question.answers), (1,), generator=generator))
        answer, ids = reader.text(f" {question.answers[drawn].strip()}", end=True)
        embedded.append(torch.cat([prompt, answer]))
        labels.append(torch.tensor([IGNORED_LABEL] * len(prompt) + ids, device=reader.device))
    inputs, mask = pad(embedded)
    targets, _ = pad(labels)
    targets[mask == 0] = IGNORED_LABEL
    return reader.language_model(inputs_embeds=inputs, attention_mask=mask, labels=targets).loss


@torch.inference_mode()
def answer_questions(
    reader: SceneReader, questions: Sequence[Question], tokens: dict[str, Tokens], config: Config
) -> list[str]:
    """The reader's answers, without sampling."""
    answers: list[str] = []
    for start in range(0, len(questions), config.batch_size):
        batch = questions[start : start + config.batch_size]
        inputs, mask = pad([_prompt(reader, question, tokens) for question in batch], left=True)
        written = reader.language_model.generate(
            inputs_embeds=inputs,
            attention_mask=mask,
            max_new_tokens=config.max_new_tokens,
            num_beams=config.num_beams,
            do_sample=False,
            pad_token_id=(reader.end or [0])[0],
        )
        answers += [first_line(text) for text in reader.tokenizer.batch_decode(written, skip_special_tokens=True)]
    return answers
