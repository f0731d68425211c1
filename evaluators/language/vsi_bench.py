"""VSI-Bench's questions about videos, answered by the vision-language model from frames."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluators.contract import Result
from evaluators.data_sets.vsi_bench import CATEGORIES, CHOICES, NUMBERS, load_vsi_bench
from evaluators.encoders import Encoder
from evaluators.language.asking import per_cent, single_rows
from evaluators.language.config import LanguageConfig
from evaluators.language.pictures import save_answers
from evaluators.language.questions import WIDTH, ask_benchmark
from evaluators.metrics import Metric

DIRECTIONS = tuple(name for name in CHOICES if name.startswith("object_rel_direction"))
OTHER_CHOICES = tuple(name for name in CHOICES if name not in DIRECTIONS)
METRICS = (
    Metric("overall", "VSI-Bench, mean of the tasks (%)", higher_is_better=True),
    *(Metric(name, f"{name.replace('_', ' ')}, MRA (%)", higher_is_better=True) for name in NUMBERS),
    *(Metric(name, f"{name.replace('_', ' ')} (%)", higher_is_better=True) for name in OTHER_CHOICES),
    Metric("object_rel_direction", "object rel direction (%)", higher_is_better=True),
    Metric("unreadable", "unreadable answers (%)", higher_is_better=False),
)
FRAMES = {"full": 32, "cpu": 4}


@dataclass(frozen=True, kw_only=True)
class Config(LanguageConfig):
    """Videos.

    Attributes:
        subset: "full", or another configuration of the data set, such as "debiased".
        frames: of a video, evenly spread; None = 32, and 4 in the preset "cpu".
    """

    subset: str = "full"
    frames: int | None = None
    batch_size: int = 1


def check(config: Config) -> None:
    """Find mistakes in the data before anything is measured.

    Raises:
        ValueError: no such data, or it has another layout.
    """
    assert config.data is not None  # the catalogue says that the data set has a place
    load_vsi_bench(config.data, config.subset, num_frames=1)


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Ask the model of this side.

    Raises:
        ValueError: no such folder, videos are missing, or a model that cannot be loaded.
    """
    assert config.data is not None  # the catalogue says that the data set has a place
    frames = config.frames or FRAMES[config.preset]
    notes = [
        f"{frames} evenly spread frames of each video, VSI-Bench's own prompts. Choices count by accuracy, numbers by "
        "mean relative accuracy (thresholds 0.50 to 0.95 by 0.05); the score is the mean of eight tasks, the three "
        "levels of relative direction being one of them."
    ]
    protocol = {
        "id": f"vsi-bench-{config.subset}-{frames}-frames/1",
        "notes": notes,
        "differs": "not a benchmark of the paper's",
    }
    questions = load_vsi_bench(config.data, config.subset, frames)
    return ask_benchmark(encoder, config, questions, CATEGORIES, METRICS[0], aggregate, protocol)


def aggregate(items: np.ndarray) -> dict[str, float]:
    """Return scores of the tasks, per cent, and the mean of those that something was asked of."""
    category, score, readable, _ = single_rows(items, WIDTH).T
    of_category = {name: per_cent(score[category == place]) for place, name in enumerate(CATEGORIES)}
    levels = [of_category.pop(name) for name in DIRECTIONS]
    levels = [level for level in levels if not np.isnan(level)]
    of_category["object_rel_direction"] = float(np.mean(levels)) if levels else float("nan")
    asked = [value for value in of_category.values() if not np.isnan(value)]
    return {"overall": float(np.mean(asked)), **of_category, "unreadable": per_cent(1 - readable)}


def draw(file: Path, base: Result, boosted: Result) -> None:
    """Draw questions with their frames, the truth, and both answers."""
    save_answers(file, base["examples"], boosted["examples"])
