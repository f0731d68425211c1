"""BLINK's questions about space, answered by the vision-language model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluators.contract import Result
from evaluators.data_sets.blink import SUBTASKS, load_blink
from evaluators.encoders import Encoder
from evaluators.language.asking import per_cent, single_rows
from evaluators.language.config import LanguageConfig
from evaluators.language.pictures import save_answers
from evaluators.language.questions import WIDTH, ask_benchmark
from evaluators.metrics import Metric

METRICS = (
    Metric("mean", "mean of the subtasks (%)", higher_is_better=True),
    Metric("relative_depth", "relative depth (%)", higher_is_better=True),
    Metric("spatial_relation", "spatial relation (%)", higher_is_better=True),
    Metric("multi_view_reasoning", "multi-view reasoning (%)", higher_is_better=True),
    Metric("unreadable", "unreadable answers (%)", higher_is_better=False),
)
PROTOCOL = {
    "id": "blink-space/1",
    "notes": ["BLINK's own prompts, split val, whose answers are public; the score is the mean of three subtasks."],
    "differs": "three of BLINK's 14 subtasks, and not a benchmark of the paper's",
}


@dataclass(frozen=True, kw_only=True)
class Config(LanguageConfig):
    """Nothing of its own."""


def check(config: Config) -> None:
    """Find mistakes in the data before anything is measured.

    Raises:
        ValueError: no such data, or it has another layout.
    """
    assert config.data is not None  # the catalogue says that the data set has a place
    load_blink(config.data)


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Ask the model of this side.

    Raises:
        ValueError: no such data, or a model that cannot be loaded.
    """
    assert config.data is not None  # the catalogue says that the data set has a place
    return ask_benchmark(encoder, config, load_blink(config.data), SUBTASKS, METRICS[0], aggregate, PROTOCOL)


def aggregate(items: np.ndarray) -> dict[str, float]:
    """Return accuracies, per cent, NaN for a subtask that nothing was asked of."""
    subtask, score, readable, _ = single_rows(items, WIDTH).T
    accuracies = [per_cent(score[subtask == place]) for place in range(len(SUBTASKS))]
    asked = [accuracy for accuracy in accuracies if not np.isnan(accuracy)]
    names = [metric.name for metric in METRICS[1:-1]]
    return {"mean": float(np.mean(asked)), **dict(zip(names, accuracies)), "unreadable": per_cent(1 - readable)}


def draw(file: Path, base: Result, boosted: Result) -> None:
    """Draw questions with their images, the truth, and both answers."""
    save_answers(file, base["examples"], boosted["examples"])
