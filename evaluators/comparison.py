"""Two results of one task become one entry of results.json: scores, paired differences and their intervals."""

from collections.abc import Callable
from typing import Any

import numpy as np

from evaluators.contract import Result
from evaluators.metrics import Metric

RESAMPLES = 1000
INTERVAL = 0.95
Aggregate = Callable[[np.ndarray], dict[str, float]]


def compare(metrics: tuple[Metric, ...], aggregate: Aggregate, base: Result, boosted: Result) -> dict[str, Any]:
    """Put the results of one task for two encoders side by side.

    Args:
        metrics: of the task, the one that decides first.
        aggregate: of the task's module.
        base: what the task's `evaluate` returned for the base encoder.
        boosted: the same for the boosted encoder, with the same configuration.

    Returns:
        The task's entry in results.json; differences are boosted - base, paired by seed and by item.
    """
    scores = {side: [aggregate(items) for items in result["items"]] for side, result in sides(base, boosted)}
    metrics = tuple(metric for metric in metrics if metric.name in scores["base"][0])  # a data set may have some only
    intervals = bootstrap(aggregate, base["items"], boosted["items"])
    controls = boosted["controls"] | base["controls"]  # a side may have some of its own
    rows: dict[str, Any] = {}
    for metric in metrics:
        ours, theirs = (np.array([seed[metric.name] for seed in scores[side]]) for side in ("base", "boosted"))
        if rows and np.isnan([ours, theirs]).all():
            continue  # of a kind of question or class that the data has not
        rows[metric.name] = {
            "label": metric.label,
            "higher_is_better": metric.higher_is_better,
            "base": summary(ours),
            "boosted": summary(theirs),
            "difference": summary(theirs - ours) | {"interval": intervals[metric.name]},
            "controls": {name: values[metric.name] for name, values in controls.items()},
        }
    return {
        "protocol": base["protocol"],
        "data": base["data"],
        "seeds": base["seeds"],
        "num_items": len(base["items"][0]),
        "base": base["encoder"],
        "boosted": boosted["encoder"],
        "metrics": rows,
        "warnings": warnings_of(metrics[0], rows[metrics[0].name], base, boosted),
    }


def bootstrap(aggregate: Aggregate, base: list[np.ndarray], boosted: list[np.ndarray]) -> dict[str, list[float]]:
    """Percentile intervals of boosted - base, the mean over seeds, under resampling of the items.

    Args:
        aggregate: of (num_items, D) into a number per metric.
        base: per seed (num_items, D).
        boosted: the same items in the same order.

    Returns:
        Per metric the two ends of the 95 % interval.
    """
    random = np.random.default_rng(0)
    num_items = len(base[0])
    differences: dict[str, list[float]] = {}
    for _ in range(RESAMPLES):
        chosen = random.integers(0, num_items, num_items)
        pairs = [(aggregate(ours[chosen]), aggregate(theirs[chosen])) for ours, theirs in zip(base, boosted)]
        for name in pairs[0][0]:
            differences.setdefault(name, []).append(float(np.mean([b[name] - a[name] for a, b in pairs])))
    tail = 100 * (1 - INTERVAL) / 2
    return {
        name: np.nanpercentile(values, [tail, 100 - tail]).tolist() if np.isfinite(values).any() else [np.nan] * 2
        for name, values in differences.items()
    }


def sides(base: Result, boosted: Result) -> tuple[tuple[str, Result], ...]:
    """Both results with their names."""
    return ("base", base), ("boosted", boosted)


def summary(values: np.ndarray) -> dict[str, Any]:
    """Return the values over seeds, their mean and sample standard deviation (None for one seed)."""
    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"per_seed": values.tolist(), "mean": float(values.mean()), "deviation": deviation}


def warnings_of(metric: Metric, row: dict[str, Any], base: Result, boosted: Result) -> list[str]:
    """What a reader must know before believing the difference."""
    lines = []
    controls = row["controls"]
    blind = next(
        (controls[name] for name in ("position_only", "constant", "proprioception") if name in controls), None
    )
    if blind is not None and not metric.is_better(row["base"]["mean"] - blind):
        lines.append(
            f"the base encoder does not beat a control that sees no image in {metric.label}: it is too weak for its "
            "difference to mean anything."
        )
    found = [line for result in (base, boosted) for line in result["data"].get("warnings", [])]
    lines += dict.fromkeys(found)  # what the task has found, mostly the same of both
    if shared := base["data"].get("images_in_both_splits"):
        lines.append(f"{shared} images are in both splits.")
    for key in ("patch_size_px", "hidden_size", "resolution_px", "preprocessing", "feature", "framing"):
        ours, theirs = base["encoder"].get(key), boosted["encoder"].get(key)
        if ours != theirs:
            lines.append(f"the encoders differ in {key}: {ours} (base), {theirs} (boosted).")
    return lines
