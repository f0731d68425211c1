"""CV-Bench's questions, answered by the vision-language model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluators.contract import Result
from evaluators.data_sets.cv_bench import CATEGORIES, SOURCES, TASKS, load_cv_bench
from evaluators.encoders import Encoder
from evaluators.language.asking import per_cent, single_rows
from evaluators.language.config import LanguageConfig
from evaluators.language.pictures import save_answers
from evaluators.language.questions import WIDTH, ask_benchmark
from evaluators.metrics import Metric

METRICS = (
    Metric("score", "CV-Bench (%)", higher_is_better=True),
    *(Metric(source.lower(), f"{source} (%)", higher_is_better=True) for source in SOURCES),
    *(Metric(task.lower(), f"{task.lower()} (%)", higher_is_better=True) for task in TASKS),
    Metric("unreadable", "unreadable answers (%)", higher_is_better=False),
)
PROTOCOL = {
    "id": "cv-bench/1",
    "notes": ["CV-Bench's own prompts; its score is ((ADE20K + COCO) / 2 + Omni3D) / 2."],
    "differs": "not a benchmark of the paper's",
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
    load_cv_bench(config.data)


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Ask the model of this side.

    Raises:
        ValueError: no such data, or a model that cannot be loaded.
    """
    assert config.data is not None  # the catalogue says that the data set has a place
    return ask_benchmark(encoder, config, load_cv_bench(config.data), CATEGORIES, METRICS[0], aggregate, PROTOCOL)


def aggregate(items: np.ndarray) -> dict[str, float]:
    """Return accuracies, per cent, and the score, NaN unless all three sources were asked about."""
    category, score, readable, _ = single_rows(items, WIDTH).T
    source, task = np.divmod(category, len(TASKS))
    of_source = [per_cent(score[source == place]) for place in range(len(SOURCES))]
    of_task = [per_cent(score[task == place]) for place in range(len(TASKS))]
    ade20k, coco, omni3d = of_source
    return {
        "score": ((ade20k + coco) / 2 + omni3d) / 2,
        **{name.lower(): value for name, value in zip((*SOURCES, *TASKS), (*of_source, *of_task))},
        "unreadable": per_cent(1 - readable),
    }


def draw(file: Path, base: Result, boosted: Result) -> None:
    """Draw questions with their images, the truth, and both answers."""
    save_answers(file, base["examples"], boosted["examples"])
