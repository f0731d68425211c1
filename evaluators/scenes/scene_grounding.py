"""Which object a description means: a language model reads the fused features of all objects (ScanRefer)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from evaluators.array_cache import cached_value
from evaluators.contract import Result
from evaluators.encoders import Encoder
from evaluators.metrics import Metric
from evaluators.scenes.language_config import Question, QuestionData, ReaderConfig, check_reader
from evaluators.scenes.loading import load_questions
from evaluators.scenes.reader import SceneReader, pad, train_reader
from evaluators.scenes.scene_tokens import Tokens, box_iou, fuse_points, object_box, object_tokens, read_points

METRICS = (
    Metric("accuracy", "accuracy (%)", higher_is_better=True),
    Metric("accuracy_25", "accuracy at IoU 0.25 (%)", higher_is_better=True),
    Metric("accuracy_50", "accuracy at IoU 0.5 (%)", higher_is_better=True),
)
NOTES = (
    "A choice among the annotated objects of the scan that a view sees: a language model (frozen, or with LoRA) reads "
    "the description, then one token per object (mean fused feature, centre, size); a linear layer scores each.",
    "Accuracy: the right object is chosen. At IoU 0.25 and 0.5: the box of the chosen object overlaps the right "
    "one's, boxes along the axes around the points. An object that no view sees counts as missed.",
    "The last epoch is measured; nothing is selected.",
)


@dataclass(frozen=True, kw_only=True)
class Config(ReaderConfig):
    """See `ReaderConfig`; nothing is generated, so beams and new tokens do not matter."""


def check(config: Config) -> None:
    """Raise ValueError for data that lack something, NotMeasurable without a language model."""
    check_reader(config, "scene_grounding")
    load_questions(config)


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Train one reader per seed on the train descriptions and measure its choices for the test descriptions.

    Raises:
        ValueError: the data lack something, or the encoder does not suit the resolution.
    """
    data = load_questions(config)
    resolution = encoder.fit_resolution(config.resolution or encoder.input_size_px)
    scenes = list(data.scenes.values())
    points = read_points(scenes, config.max_points or 0)
    fused = fuse_points(encoder, scenes, points, config.max_views, resolution, config.cache_dir)
    tokens = {scene.id: object_tokens(part, features) for scene, part, features in zip(scenes, points, fused)}
    blind = {name: one._replace(features=torch.zeros_like(one.features)) for name, one in tokens.items()}
    by_id = dict(zip((scene.id for scene in scenes), points))
    truths = [object_box(by_id[one.scene_id], one.object_id) for one in data.test]
    described = data.describe()
    key = config.blind_key(described, encoder.hidden_size, "choices")
    position_only = cached_value(
        config.cache_dir, key, partial(_items, encoder, config, data, blind, truths, config.seeds[0])
    )
    return {
        "protocol": {
            "id": "scene-grounding/1",
            "notes": list(NOTES),
            "settings": config.settings(),
            "differs": config.why_not_comparable(),
        },
        "data": described,
        "encoder": {**encoder.describe(), "resolution_px": list(resolution)},
        "seeds": list(config.seeds),
        "items": [_items(encoder, config, data, tokens, truths, seed) for seed in config.seeds],
        "controls": {
            "chance": aggregate(_chance(data, tokens, truths)),
            "position_only": aggregate(position_only.numpy()),
        },
        "examples": [],
    }


def aggregate(items: np.ndarray) -> dict[str, float]:
    """Per cent of the (num_descriptions, 3) items: right object, IoU of at least 0.25, of at least 0.5."""
    accuracy, at_25, at_50 = 100 * items.mean(0)
    return {"accuracy": float(accuracy), "accuracy_25": float(at_25), "accuracy_50": float(at_50)}


def choice_item(tokens: Tokens, choice: int, object_id: int, truth_m: np.ndarray) -> np.ndarray:
    """(3,) of one chosen token; `truth_m` is the (2, 3) box of the object that is meant."""
    iou = box_iou(tokens.boxes_m[choice], truth_m)
    return np.array([tokens.object_ids[choice] == object_id, iou >= 0.25, iou >= 0.5], np.float64)


def _items(
    encoder: Encoder,
    config: Config,
    data: QuestionData,
    tokens: dict[str, Tokens],
    truths: list[np.ndarray],
    seed: int,
) -> np.ndarray:
    seen = [one for one in data.train if one.object_id in tokens[one.scene_id].object_ids]
    if not seen:
        raise ValueError(f"data {config.data!r}: no view sees any object that a train description means")
    make = partial(SceneReader, config, encoder.hidden_size, 6, encoder.dtype)
    *_, reader = train_reader(make, partial(_loss, seen, tokens), len(seen), config, seed, encoder.device)
    rows = []
    for start in range(0, len(data.test), config.batch_size):
        batch = data.test[start : start + config.batch_size]
        with torch.inference_mode():
            choices = [int(scores.argmax()) if len(scores) else -1 for scores in _scores(reader, batch, tokens)]
        for question, choice, truth in zip(batch, choices, truths[start:]):
            missed = np.zeros(3)  # the views see no object at all
            found = tokens[question.scene_id]
            rows.append(missed if choice < 0 else choice_item(found, choice, question.object_id, truth))
    return np.stack(rows)


def _chance(data: QuestionData, tokens: dict[str, Tokens], truths: list[np.ndarray]) -> np.ndarray:
    """What choosing blindly gives on average."""
    rows = []
    for question, truth in zip(data.test, truths):
        one = tokens[question.scene_id]
        each = [choice_item(one, choice, question.object_id, truth) for choice in range(len(one.object_ids))]
        rows.append(np.mean(each, axis=0) if each else np.zeros(3))
    return np.stack(rows)


def _scores(reader: SceneReader, batch: Sequence[Question], tokens: dict[str, Tokens]) -> list[torch.Tensor]:
    """Per description the scores of its scene's objects, (T,)."""
    texts = [reader.text(f"Find the object: {one.text}\nObjects:", begins=True)[0] for one in batch]
    objects = [reader.scene(tokens[one.scene_id]) for one in batch]
    inputs, mask = pad([torch.cat(pair) for pair in zip(texts, objects)])
    output = reader.language_model(inputs_embeds=inputs, attention_mask=mask, output_hidden_states=True)
    scores = reader.score(output.hidden_states[-1].float())[..., 0]  # (B, L)
    return [row[len(text) : len(text) + len(part)] for row, text, part in zip(scores, texts, objects)]


def _loss(
    questions: Sequence[Question],
    tokens: dict[str, Tokens],
    reader: SceneReader,
    batch: list[int],
    generator: torch.Generator,
) -> torch.Tensor:
    """Cross-entropy of the right object among those of its scene."""
    asked = [questions[place] for place in batch]
    losses = []
    for question, scores in zip(asked, _scores(reader, asked, tokens)):
        right = int(np.flatnonzero(tokens[question.scene_id].object_ids == question.object_id)[0])
        losses.append(functional.cross_entropy(scores[None], torch.tensor([right], device=scores.device)))
    return torch.stack(losses).mean()
