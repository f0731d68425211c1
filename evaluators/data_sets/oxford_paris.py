"""ROxford5k and RParis6k in revisitop's layout: `jpg/*.jpg` and `gnd_roxford5k.pkl`.

The pickle is read by an unpickler that builds nothing but arrays and plain containers. Whoever wants none at all
converts it once, in an environment of its own, to `gnd_roxford5k.json`:

    python -c "import json, pickle, sys; truth = pickle.load(sys.stdin.buffer); \
        json.dump(truth, sys.stdout, default=lambda array: array.tolist())" < gnd_roxford5k.pkl > gnd_roxford5k.json
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.array_pickle import load_arrays
from evaluators.data_sets.image_folder import Box, PictureFiles
from evaluators.data_sets.rankings import Level, RankingData

NAMES = {"roxford": "roxford5k", "rparis": "rparis6k"}
SIZES = {"roxford": (70, 4_993), "rparis": (70, 6_322)}


@lru_cache(maxsize=4)
def load_oxford_paris(data_set: str, data: str, crop_queries: bool = True) -> RankingData:
    """Read the queries, the pictures and the three levels of the revisited benchmarks.

    Easy: easy pictures are relevant, hard ones are junk. Medium: both are relevant. Hard: hard ones are relevant, easy
    ones are junk. What is marked as junk always is.

    Args:
        data_set: "roxford" or "rparis".
        data: the folder, revisitop's `data/datasets/roxford5k`.
        crop_queries: cut the queries to their boxes, as the protocol demands.

    Raises:
        ValueError: if the ground truth is missing or of another form, or pictures are missing (all are named).
    """
    root, name = Path(data), NAMES[data_set]
    truth = _read_truth(root, name)
    try:
        queries, database = ([f"{picture}.jpg" for picture in truth[key]] for key in ("qimlist", "imlist"))
        marks = [{key: _ids(row[key]) for key in ("easy", "hard", "junk")} for row in truth["gnd"]]
        boxes = tuple(_box(row["bbx"]) for row in truth["gnd"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"data {data!r}: the ground truth of {name} has not the keys imlist, qimlist and gnd with bbx, easy, hard "
            "and junk per query: fetch revisitop's own"
        ) from error
    listed = np.concatenate([ids for mark in marks for ids in mark.values()])
    if (wrong := listed[(listed < 0) | (listed >= len(database))]).size:
        raise ValueError(f"data {data!r} marks picture {wrong[0]} of {len(database)}: fetch gnd_{name}.pkl anew")
    pictures = PictureFiles(root / "jpg", tuple(database))
    asked = PictureFiles(root / "jpg", tuple(queries), boxes if crop_queries else None)
    PictureFiles(root / "jpg", tuple(dict.fromkeys((*queries, *database)))).require()
    levels = {
        "map_hard": tuple(Level(mark["hard"], np.union1d(mark["junk"], mark["easy"])) for mark in marks),
        "map_medium": tuple(Level(np.union1d(mark["easy"], mark["hard"]), mark["junk"]) for mark in marks),
        "map_easy": tuple(Level(mark["easy"], np.union1d(mark["junk"], mark["hard"])) for mark in marks),
    }
    whole = (len(queries), len(database)) == SIZES[data_set]
    return RankingData(
        source=data,
        queries=asked,
        database=pictures,
        levels=levels,
        trapezoidal=True,
        notes=(
            f"Queries are {'cut to their boxes' if crop_queries else 'NOT cut to their boxes, against the protocol'}; "
            "they are no part of the database.",
            "Easy pictures are junk at level hard and hard ones at level easy; junk is taken out of the ranking.",
        ),
        differs="" if whole else f"not the {SIZES[data_set][0]} queries and {SIZES[data_set][1]:,} pictures of {name}",
    )


def _read_truth(root: Path, name: str) -> Any:
    as_json, as_pickle = root / f"gnd_{name}.json", root / f"gnd_{name}.pkl"
    if as_json.is_file():
        return json.loads(as_json.read_text())
    if not as_pickle.is_file():
        raise ValueError(
            f"data {str(root)!r} has no gnd_{name}.pkl or gnd_{name}.json: pass revisitop's folder {name}, with jpg/ "
            "beside the ground truth"
        )
    return load_arrays(as_pickle)


def _box(sides: Any) -> Box:
    left, top, right, bottom = (float(side) for side in sides)
    return left, top, right, bottom


def _ids(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.int64).reshape(-1)
