"""Reads one configuration of a built data set: samples, numbers for the distributions, and failing checks."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tqdm import tqdm

from dataset_builders.configs import CONFIGS
from dataset_builders.scene import InputError

Record = dict[str, Any]
DEPTH_KINDS = ("point_depth", "depth_across_views", "object_depth")
DISTANCE_KINDS = ("surface_distance", "point_distance", "object_range")


@dataclass
class InspectedConfig:
    """What the page tells of a configuration.

    Attributes:
        name: of the configuration.
        rows: records per split.
        samples: records to show, spread evenly over the files; of a dialogue configuration.
        checked: how many records went through the configuration's check.
        failures: (id, first problem) of those that fail.
        depths_m: values of questions about a depth.
        distances_m: values of questions about a distance.
        kinds: how often each kind of turn occurs.
        answers: how often each short answer was given, per kind of question with few possible answers.
        views: how many records show so many images.
    """

    name: str
    rows: dict[str, int]
    samples: list[Record] = field(default_factory=list)
    checked: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    depths_m: list[float] = field(default_factory=list)
    distances_m: list[float] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    answers: dict[str, Counter[str]] = field(default_factory=dict)
    views: Counter[int] = field(default_factory=Counter)


def read_config(folder: Path, name: str, splits: dict[str, int], samples: int, check: int | None) -> InspectedConfig:
    """Read a configuration once, record by record.

    Raises:
        InputError: a file is missing or no Parquet.
    """
    found = InspectedConfig(name, splits)
    total = sum(splits.values())
    limit = total if check is None else min(check, total)
    shown = {round(place * (total - 1) / max(samples - 1, 1)) for place in range(min(samples, total))}
    checked = {place * total // limit for place in range(limit)}
    with tqdm(total=total, desc=f"inspect {name}", unit="record") as bar:
        for place, record in enumerate(_records(folder, name, splits)):
            if CONFIGS[name].is_dialogue:
                _count(found, record)
                if place in shown:
                    found.samples.append(record)
            if place in checked:
                found.checked += 1
                problems = CONFIGS[name].check(record)
                if problems:
                    found.failures.append((record["id"], problems[0]))
            bar.update()
    return found


def _records(folder: Path, name: str, splits: dict[str, int]) -> Iterator[Record]:
    """All records of a configuration, a few in memory at a time."""
    for split in splits:
        files = sorted((folder / name).glob(f"{split}-*.parquet"))
        if not files:
            raise InputError(f"{folder / name} holds no file of the split {split!r}; build the data set again.")
        for file in files:
            try:
                with pq.ParquetFile(file) as parquet:
                    for batch in parquet.iter_batches(batch_size=16):
                        yield from batch.to_pylist()
            except (OSError, ValueError) as error:
                raise InputError(f"{file} is no whole Parquet file ({error}); build the data set again.") from error


def _count(found: InspectedConfig, record: Record) -> None:
    found.views[len(record["images"])] += 1
    for turn in record["turns"]:
        kind = turn["kind"]
        found.kinds[kind] += 1
        if turn["value"] is not None and kind in DEPTH_KINDS:
            found.depths_m.append(turn["value"])
        if turn["value"] is not None and kind in DISTANCE_KINDS:
            found.distances_m.append(turn["value"])
        if turn["answer"] in ("yes", "no") or kind == "multiple_choice":
            found.answers.setdefault(kind, Counter())[turn["answer"]] += 1
        elif turn["template"].startswith("camera_side"):
            found.answers.setdefault("camera_side", Counter())[turn["answer"]] += 1
