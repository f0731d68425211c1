"""3DSRBench's questions, answered by the vision-language model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluators.contract import Result
from evaluators.data_sets.threedsrbench import CATEGORIES, load_threedsrbench
from evaluators.encoders import Encoder
from evaluators.language.asking import per_cent, single_rows
from evaluators.language.config import LanguageConfig
from evaluators.language.pictures import save_answers
from evaluators.language.questions import WIDTH, ask_benchmark
from evaluators.metrics import Metric

METRICS = (
    Metric("accuracy", "accuracy (%)", higher_is_better=True),
    Metric("flip", "right as it is and mirrored (%)", higher_is_better=True),
    Metric("circular", "right in every order of the options (%)", higher_is_better=True),
    Metric("flip_circular", "right in every order, as it is and mirrored (%)", higher_is_better=True),
    *(Metric(name, f"{name.replace('_', ' ')} (%)", higher_is_better=True) for name in CATEGORIES),
    Metric("unreadable", "unreadable answers (%)", higher_is_better=False),
)


@dataclass(frozen=True, kw_only=True)
class Config(LanguageConfig):
    """`circular`: ask each question with all orders of its options and mirrored; both rule out lucky letters."""

    circular: bool = False


def check(config: Config) -> None:
    """Find mistakes in the data before anything is measured.

    Raises:
        ValueError: no such data, or it has another layout.
    """
    assert config.data is not None  # the catalogue says that the data set has a place
    load_threedsrbench(config.data, config.circular)


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Ask the model of this side.

    Raises:
        ValueError: no such data, or a model that cannot be loaded.
    """
    assert config.data is not None  # the catalogue says that the data set has a place
    notes = ["Options by letter under the question. 3DSRBench's own score is the one of all orders and mirrored."]
    protocol = {
        "id": f"3dsrbench-{'circular' if config.circular else 'vanilla'}/1",
        "notes": notes,
        "differs": "not a benchmark of the paper's",
    }
    questions = load_threedsrbench(config.data, config.circular)
    return ask_benchmark(encoder, config, questions, CATEGORIES, METRICS[0], aggregate, protocol)


def aggregate(items: np.ndarray) -> dict[str, float]:
    """Return accuracies, per cent; those that need variants are NaN where there are none."""
    category, score, readable, _ = single_rows(items, WIDTH).T
    rows = items.reshape(len(items), -1, WIDTH)  # (things, variants, ...)
    right, variant = rows[..., 1] == 1, rows[..., 3]
    turn, mirrored = variant // 2, variant % 2
    groups = {
        "flip": [turn == place for place in np.unique(turn[~np.isnan(turn)])],
        "circular": [mirrored == 0, mirrored == 1],
        "flip_circular": [~np.isnan(variant)],
    }
    has_variants = bool(np.nanmax(variant))
    return {
        "accuracy": per_cent(score),
        **{name: _all_right(right, of_name) if has_variants else float("nan") for name, of_name in groups.items()},
        **{name: per_cent(score[category == place]) for place, name in enumerate(CATEGORIES)},
        "unreadable": per_cent(1 - readable),
    }


def _all_right(right: np.ndarray, groups: list[np.ndarray]) -> float:
    """Share of the groups in which all answers are right; each mask (things, variants) makes a group a thing."""
    passed = [(right | ~mask).all(1)[mask.any(1)] for mask in groups]
    return per_cent(np.concatenate(passed))


def draw(file: Path, base: Result, boosted: Result) -> None:
    """Draw questions with their images, the truth, and both answers."""
    save_answers(file, base["examples"], boosted["examples"])
