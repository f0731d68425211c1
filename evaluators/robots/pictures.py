"""Rollout strips: what the robot did under each encoder."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

SUCCESS, FAILURE = "#2a9d4a", "#c0392b"


def save_strips(
    file: Path, base_examples: list[dict[str, np.ndarray]], boosted_examples: list[dict[str, np.ndarray]]
) -> None:
    """Draw every rollout as two rows of pictures, base above boosted, framed by whether it succeeded.

    Args:
        file: PNG.
        base_examples: per rollout `strip` (K, H, W, 3) uint8 and `score` in [0, 1]: success, or the mean reward.
        boosted_examples: the same rollouts, from the same seeds.
    """
    num_pictures = len(base_examples[0]["strip"])
    figure = Figure(figsize=(1.5 * num_pictures + 1.4, 3.1 * len(base_examples)), layout="constrained")
    axes = figure.subplots(2 * len(base_examples), num_pictures, squeeze=False)
    for number, pair in enumerate(zip(base_examples, boosted_examples)):
        for side, (name, example) in enumerate(zip(("base", "boosted"), pair)):
            row, score = axes[2 * number + side], float(example["score"])
            colour = SUCCESS if score >= 0.5 else FAILURE
            for axis, picture in zip(row, example["strip"]):
                axis.imshow(picture)
                axis.set(xticks=[], yticks=[])
                for edge in axis.spines.values():
                    edge.set(color=colour, linewidth=2.5)
            verdict = {1.0: "✓ success", 0.0: "✗ failure"}.get(score, f"{score:.0%} of return")
            row[0].set_ylabel(
                f"rollout {number}\n{name}\n{verdict}",
                rotation=0,
                ha="right",
                va="center",
                color=colour,
            )
    figure.savefig(file, dpi=100)
