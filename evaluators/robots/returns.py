"""Normalised return of cloned policies in the DeepMind Control suite."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluators.contract import Result
from evaluators.encoders import Encoder
from evaluators.metrics import Metric
from evaluators.robots.cloning import check, run_cloning
from evaluators.robots.pictures import save_strips
from evaluators.robots.protocol import CloningConfig
from evaluators.robots.rollouts import Outcome
from evaluators.robots.simulators import RobotTask

__all__ = ["METRICS", "Config", "aggregate", "check", "draw", "evaluate"]

METRICS = (
    Metric("return_last", "return, last (% of the maximum)", higher_is_better=True),
    Metric("return_best", "return, best (% of the maximum, optimistic)", higher_is_better=True),
)


@dataclass(frozen=True, kw_only=True)
class Config(CloningConfig):
    """Behaviour cloning of a task that is rewarded step by step."""


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Clone the demonstrations on the encoder's features and add up rewards, each in [0, 1] per step.

    Raises:
        ValueError: for demonstrations that cannot be read, or without a renderer.
    """
    return run_cloning(encoder, config, items_of, aggregate, "return_last")


def items_of(outcomes: list[Outcome], task: RobotTask) -> np.ndarray:
    """Return (num_rollouts, evaluations) mean rewards."""
    return np.stack([outcome.rewards.mean(1) for outcome in outcomes], axis=1)


def aggregate(items: np.ndarray) -> dict[str, float]:
    """Return the share of the largest possible return, per cent: CortexBench's return / 10 for 1,000 steps."""
    returns = 100 * items.mean(0)  # (evaluations,)
    return {"return_last": float(returns[-1]), "return_best": float(returns.max())}


def draw(file: Path, base: Result, boosted: Result) -> None:
    """Draw rollouts from begin to end, base above boosted."""
    save_strips(file, base["examples"], boosted["examples"])
