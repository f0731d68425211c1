"""AmsterTime: the same places in old photographs and today's street views, `old/0000.jpg` and `new/0000.png`."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from evaluators.data_sets.image_folder import SUFFIXES, PictureFiles
from evaluators.data_sets.rankings import Level, RankingData

NUM_PAIRS = 1_231


@lru_cache(maxsize=4)
def load_amstertime(data: str) -> RankingData:
    """Read the pairs; every picture is a query for its counterpart among all pictures of the other time.

    Both directions count alike, as in the benchmark's own evaluation (`amstertime/eval.py`, "All").

    Raises:
        ValueError: if a folder is missing, or a picture has no counterpart (all are named).
    """
    root = Path(data)
    sides = {}
    for side in ("old", "new"):
        files = [file for file in (root / side).glob("*") if file.suffix.lower() in SUFFIXES]
        sides[side] = {file.stem: f"{side}/{file.name}" for file in sorted(files)}
        if not files:
            raise ValueError(f"data {data!r} has no pictures in {side}/: pass the folder with old/ and new/")
    if alone := sorted(set(sides["old"]) ^ set(sides["new"])):
        raise ValueError(f"data {data!r} lacks the counterpart of {', '.join(alone)}: fetch old/ and new/ anew")
    names = sorted(sides["old"])
    count = len(names)
    pictures = PictureFiles(root, tuple(sides[side][name] for side in ("old", "new") for name in names))
    rows = np.arange(2 * count)
    truth = tuple(
        Level(np.array([(row + count) % (2 * count)]), rows[rows // count == row // count]) for row in range(2 * count)
    )
    return RankingData(
        source=data,
        queries=pictures,
        database=pictures,
        levels={"map": truth},
        trapezoidal=False,
        notes=(
            "Each old photograph searches among all street views and each street view among all old photographs; mAP "
            "is the mean of 1 / rank over both directions.",
        ),
        differs="" if count == NUM_PAIRS else f"{count} of the {NUM_PAIRS:,} pairs",
    )
