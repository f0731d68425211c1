"""The paper's published numbers, beside ours only where task, data set and backbone are the same (`paper.yaml`)."""

import functools
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import yaml

FILE = Path(__file__).with_name("paper.yaml")


class Published(NamedTuple):
    """A row of the paper's tables: a metric of one backbone, in the paper's units, and what is known to differ."""

    backbone: str
    base: float
    boosted: float
    differs: str


def published(entry: str, metric: str, encoder: dict[str, Any]) -> Published | None:
    """What the paper reports of an entry "TASK/DATA_SET" for the backbone of `encoder`, None if nothing.

    Args:
        entry: a key of results.json's tasks.
        metric: name of the metric.
        encoder: `Encoder.describe()`; compared by its architecture, for weights in a folder have no name.
    """
    tables = _tables()
    for row in tables["results"]:
        if row["metric"] != metric or not fnmatchcase(entry, row["entry"]):
            continue
        for name, backbone in tables["backbones"].items():
            same = all(encoder.get(key) == value for key, value in backbone["architecture"].items())
            if same and name in row:
                base, boosted = row[name]
                return Published(backbone["title"], base, boosted, row.get("differs", ""))
    return None


@functools.cache
def _tables() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())
