"""From measurements to a table: values per seed, paired differences, controls, admission of the base."""

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.catalogue import TASKS
from evaluators.comparison import INTERVAL, RESAMPLES, summary
from evaluators.metrics import Metric
from evaluators.report import verdict
from experiments.arms import ARMS
from experiments.measure import Reading, read_measure, read_start
from experiments.tables import MEASURES, TABLES, Measure

Aggregate = Callable[[np.ndarray], dict[str, float]]
Readings = dict[str, dict[str, dict[int, Reading]]]  # by measure, arm and seed
TIMES_CHANCE = 2.0  # what an admitted base must reach in classification


def findings_of(name: str, folders: dict[int, Path]) -> dict[str, Any]:
    """All that a table says, as its JSON holds it.

    Args:
        name: key of `TABLES`.
        folders: by seed, where its measurements lie.
    """
    table = TABLES[name]
    readings: Readings = {
        measure: {arm: _of_seeds(folders, arm, MEASURES[measure]) for arm in table.all_arms}
        for measure in table.measures
    }
    arms: dict[str, Any] = {}
    for arm in table.all_arms:
        cells = {}
        for measure in table.measures:
            ours, theirs = (readings[measure].get(one, {}) for one in (table.reference, arm))
            if theirs and ours.keys() >= theirs.keys():
                cells[measure] = compared(MEASURES[measure], ours, theirs, arm == table.reference)
                shuffled = readings[measure].get(dict(table.shuffled).get(arm, ""), {})
                if shuffled and shuffled.keys() >= theirs.keys():
                    cells[measure]["over_shuffled"] = compared(MEASURES[measure], shuffled, theirs, same=False)
        arms[arm] = {"label": ARMS[arm].label, "measures": cells, "paper": list(dict(table.paper).get(arm, ()))}
    shown = {measure: _described(measure) for measure in table.measures}
    found = {
        "table": name,
        "title": table.title,
        "note": table.note,
        "reference": table.reference,
        "seeds": sorted(folders),
        "measures": shown,
        "arms": arms,
        "paper_columns": list(table.paper_columns),
        "controls": {measure: controls_of(readings[measure]) for measure in table.measures},
    }
    found["gate"] = gate(found)
    found["reading"] = read_start(folders.values(), table.taught)
    return found


def compared(measure: Measure, ours: dict[int, Reading], theirs: dict[int, Reading], same: bool) -> dict[str, Any]:
    """Values of an arm per seed, and its differences from the reference.

    Args:
        measure: what is compared.
        ours: of the reference, by seed.
        theirs: of the arm, by seed.
        same: whether the arm is the reference, which differs from itself by nothing.
    """
    values = np.array([_number(reading.row["value"]) for reading in theirs.values()])
    cell = summary(values)
    if same:
        return cell
    reference = np.array([_number(ours[seed].row["value"]) for seed in theirs])
    difference = summary(values - reference) | {"interval": interval(measure, ours, theirs)}
    metric = Metric(measure.metric, measure.label, measure.higher_is_better)
    num_items = len(next(iter(theirs.values())).items[0])
    return cell | {"difference": difference, "verdict": verdict(metric, difference, num_items)}


def interval(measure: Measure, ours: dict[int, Reading], theirs: dict[int, Reading]) -> list[float]:
    """Percentile interval of the mean difference: seeds and, within all of them, the test items are drawn again.

    A seed is one training of both arms; the items are the same in all seeds. With one seed only the items are drawn,
    so that the interval says nothing of another training.
    """
    aggregate = _aggregate(measure)
    pairs = [(ours[seed].items, theirs[seed].items) for seed in theirs]
    random = np.random.default_rng(0)
    num_items = len(pairs[0][0][0])
    differences = []
    for _ in range(RESAMPLES):
        items = random.integers(0, num_items, num_items)
        drawn = random.integers(0, len(pairs), len(pairs)) if len(pairs) > 1 else [0]
        found = [
            np.mean([aggregate(array[items])[measure.metric] for array in pairs[seed][side]])
            for seed in drawn
            for side in (1, 0)
        ]
        differences.append(float(np.mean(found[::2]) - np.mean(found[1::2])))
    if not np.isfinite(differences).any():
        return [math.nan, math.nan]
    tail = 100 * (1 - INTERVAL) / 2
    return np.nanpercentile(differences, [tail, 100 - tail]).tolist()


def controls_of(by_arm: dict[str, dict[int, Reading]]) -> dict[str, float]:
    """What frames a measure: scores without an image, of chance, of a blind model; means over the seeds."""
    seeds = by_arm.get("language") or next(filter(None, by_arm.values()), {})  # they are the same beside every arm
    names = list(dict.fromkeys(name for reading in seeds.values() for name in reading.row["controls"]))
    return {
        name: float(np.mean([_number(reading.row["controls"].get(name)) for reading in seeds.values()]))
        for name in names
    }


def gate(found: dict[str, Any]) -> dict[str, Any]:
    """Whether the base is worth boosting: it sees depth better than position alone does, and tells classes.

    Returns:
        `admitted` (None where the table does not measure it) and `reasons`, sentences.
    """
    base, controls = found["arms"]["base"]["measures"], found["controls"]
    if not {"depth", "classification"} <= base.keys():
        return {"admitted": None, "reasons": ["depth and classes are not measured"]}
    depth, position = base["depth"]["mean"], controls["depth"].get("position_only", math.nan)
    top1, chance = base["classification"]["mean"], controls["classification"].get("constant", math.nan)
    checks = {
        f"depth RMSE {depth:.3f} m, of position alone {position:.3f} m": depth < position,
        f"classes {top1:.1f} %, {TIMES_CHANCE:g} times chance is {TIMES_CHANCE * chance:.1f} %": top1
        >= TIMES_CHANCE * chance,
    }
    reasons = [f"{sentence}: {'passed' if good else 'failed'}" for sentence, good in checks.items()]
    return {"admitted": all(checks.values()), "reasons": reasons}


def _of_seeds(folders: dict[int, Path], arm: str, measure: Measure) -> dict[int, Reading]:
    found = {seed: read_measure(folder, ARMS[arm], measure) for seed, folder in folders.items()}
    return {seed: reading for seed, reading in found.items() if reading is not None}


def _described(name: str) -> dict[str, Any]:
    row = MEASURES[name]
    return {
        "label": row.label,
        "higher_is_better": row.higher_is_better,
        "entry": row.entry,
        "metric": row.metric,
    }


def _aggregate(measure: Measure) -> Aggregate:
    task = TASKS[measure.entry.split("/")[0]]
    return importlib.import_module(f"evaluators.{task.module}").aggregate


def _number(value: float | None) -> float:
    return math.nan if value is None else value
