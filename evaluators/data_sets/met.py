"""The Met data set: `images/` and `ground_truth/{MET_database,valset,testset}.json`, as its site packs them."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from evaluators.data_sets.image_folder import LabelledPictures, PictureFiles
from evaluators.data_sets.rankings import ExhibitData

NUM_PICTURES = 397_121
DISTRACTOR = -1  # the label of a query that shows no exhibit
FILES = {"train": ("MET_database.json", "id"), "val": ("valset.json", "MET_id"), "test": ("testset.json", "MET_id")}


@lru_cache(maxsize=2)
def load_met(data: str) -> ExhibitData:
    """Read exhibits and queries.

    Raises:
        ValueError: if a list or pictures are missing (all are named).
    """
    root = Path(data)
    splits: dict[str, LabelledPictures] = {}
    names: list[str] = []
    for split, (name, key) in FILES.items():
        file = root / "ground_truth" / name
        if not file.is_file():
            raise ValueError(
                f"data {data!r} has no ground_truth/{name}: pass the folder in which Met's ground truth and images "
                "were unpacked"
            )
        rows = json.loads(file.read_text())
        labels = np.array([int(row.get(key, DISTRACTOR)) for row in rows], np.int64)
        paths = tuple(row["path"] for row in rows)
        splits[split] = LabelledPictures(PictureFiles(root / "images", paths), labels)
        names += paths
    PictureFiles(root / "images", tuple(dict.fromkeys(names))).require()
    count = len(splits["train"].labels)
    differs = "" if count == NUM_PICTURES else f"{count:,} of the {NUM_PICTURES:,} pictures of exhibits"
    return ExhibitData(data, **splits, differs=differs)
