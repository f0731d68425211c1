"""What every task is told, what it gives back, and what its module holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

import numpy as np

from evaluators.encoders import Encoder
from evaluators.metrics import Metric


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What every task is told; a task's own class adds its settings, all with defaults.

    Attributes:
        data_set: key of `catalogue.DATA_SETS`.
        data: folder or Hub id of it; None for one that needs none (simulators).
        cache_dir: where features and whatever else is slow to make are kept.
        preset: "full", the real protocol, or "cpu", a small one for two cores.
        seeds: one head (or policy) each.
        limit: at most so many items of each split, for a quick look.
        resolution: (height, width) in pixels, rounded to the patch size; None = what the protocol says.
        num_examples: items that are returned for the picture.
        upstream_compat: repeat the habits of the public code that cannot be recommended, such as selection on the
            reported split.
    """

    data_set: str
    data: str | None
    cache_dir: Path
    preset: str = "full"
    seeds: tuple[int, ...] = (0, 1, 2)
    limit: int | None = None
    resolution: tuple[int, int] | None = None
    num_examples: int = 4
    upstream_compat: bool = False


class NotMeasurable(ValueError):
    """The data or the settings lack what a task needs; with `--tasks all` it is listed as not measured."""


class Result(TypedDict):
    """What `evaluate` returns for one encoder.

    Attributes:
        protocol: `id` ("depth-linear/1"), `notes` (sentences for the report), `settings`, and `differs`: why the
            numbers cannot be put beside the paper's, "" if they can.
        data: `source`, `splits` (per split `items`, `fingerprint` and `dropped`, the counted reasons), and what the
            task's own pictures and warnings need.
        encoder: `Encoder.describe()` and `resolution_px`.
        seeds: of the heads.
        items: per seed a float (num_items, D) array, what the scores are made of by the module's `aggregate`; the
            same items in the same order for every encoder, so that differences are paired.
        controls: scores of what sees no image, or too much, by name: what frames the encoders' scores.
        examples: whatever the module's `draw` wants.
    """

    protocol: dict[str, Any]
    data: dict[str, Any]
    encoder: dict[str, Any]
    seeds: list[int]
    items: list[np.ndarray]
    controls: dict[str, dict[str, float]]
    examples: list[dict[str, np.ndarray]]


class TaskModule(Protocol):
    """The names in the module of a task; `draw` and `check` may be absent."""

    METRICS: tuple[Metric, ...]  # the one that decides first
    Config: type[TaskConfig]

    def evaluate(self, encoder: Encoder, config: TaskConfig) -> Result:
        """Measure one encoder."""

    def aggregate(self, items: np.ndarray) -> dict[str, float]:
        """Turn (num_items, D) into a number per metric; called again on resampled items by the bootstrap."""

    def check(self, config: TaskConfig) -> None:
        """Raise ValueError for data or packages that are missing, before anything is measured."""

    def draw(self, file: Path, base: Result, boosted: Result) -> None:
        """Write the picture of the task, PNG."""
