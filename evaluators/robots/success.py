"""Success of cloned policies in MetaWorld and with the Adroit hand."""

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
    Metric("success_last", "success, last (%)", higher_is_better=True),
    Metric("success_any", "success at any step, last (%)", higher_is_better=True),
    Metric("success_best", "success, best (%, optimistic)", higher_is_better=True),
)


@dataclass(frozen=True, kw_only=True)
class Config(CloningConfig):
    """Behaviour cloning of a task that can succeed."""


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Clone the demonstrations on the encoder's features and count successes.

    Success is what the suite's benchmark calls so: in MetaWorld the last step of the rollout is at the goal, the
    Adroit hand has been there for more than 20 (pen) or 25 (relocate) steps.

    Raises:
        ValueError: for demonstrations that cannot be read, or without a renderer.
    """
    return run_cloning(encoder, config, items_of, aggregate, "success_last")


def items_of(outcomes: list[Outcome], task: RobotTask) -> np.ndarray:
    """Return (num_rollouts, 2 * evaluations) of 0 and 1: success at every evaluation, then at any step of each."""
    goals = [outcome.at_goal for outcome in outcomes]  # each (N, steps)
    if task.steps_at_goal is None:
        success = [goal[:, -1] for goal in goals]
    else:
        success = [goal.sum(1) > task.steps_at_goal for goal in goals]
    return np.stack([*success, *(goal.any(1) for goal in goals)], axis=1).astype(np.float64)


def aggregate(items: np.ndarray) -> dict[str, float]:
    """Return rates, per cent, of the last evaluation and of the best one."""
    success, any_step = np.split(100 * items.mean(0), 2)  # (evaluations,) each
    return {
        "success_last": float(success[-1]),
        "success_any": float(any_step[-1]),
        "success_best": float(success.max()),
    }


def draw(file: Path, base: Result, boosted: Result) -> None:
    """Draw rollouts from begin to end, base above boosted."""
    save_strips(file, base["examples"], boosted["examples"])
