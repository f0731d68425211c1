"""Short questions about depth at points, and pictures of depth: grey that shows how far away things are.

What stage 3 teaches an encoder comes back through its language model, which must hence know how to read depth off
tokens that show it. The base's do not, and from them a language model only learns to answer without looking. A
picture of depth, light for near, shows it to any encoder, so a language model can learn on such pictures to read,
compare and reason while the encoder is frozen. The grey is wrong by a quarter from patch to patch, so that a model
learns how far to trust what it sees.
"""

import hashlib
import io
import random
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Image
from PIL import Image as Picture

from dataset_builders.configs import png
from dataset_builders.geometry import format_length
from dataset_builders.phrasings import ANSWERS, QUESTIONS
from experiments.pointing import NUM_QUESTIONS, Asked, conversation, point, wordings

Row = dict[str, Any]
Depths = dict[str, bytes]  # by `name_of` a picture, the depth map as a file
WRONG_BY = 0.25  # one standard deviation of the logarithm of what a patch shows
PATCH_PX = 8
NEAREST_M, FARTHEST_M = 0.4, 12.0  # white and black
DEPTH_ANSWERS = ANSWERS["point_depth"][::-1]  # the shortest is the first


def depths_of(data: Path, split: str) -> Depths:
    """All depth maps of a split of a world.

    Raises:
        ValueError: there are none.
    """
    if not (files := sorted(map(str, (data / "dense").glob(f"{split}-*.parquet")))):
        raise ValueError(
            f"data={str(data)!r} has no depth maps of split {split!r}: build it with config `dense`, too."
        )
    rows = Dataset.from_parquet(files)
    rows = rows.select_columns(["image", "depth"])
    rows = rows.cast_column("image", Image(decode=False)).cast_column("depth", Image(decode=False))
    return {name_of(row["image"]): row["depth"]["bytes"] for row in rows}


def name_of(image: Row) -> str:
    """What stands for a picture: the same in all configurations that show it."""
    return hashlib.sha256(image["bytes"]).hexdigest()


def depth_m(image: Row, depths: Depths) -> np.ndarray:
    """Of a row's image, (H, W) in metres, 0 where there is no reading."""
    return np.asarray(Picture.open(io.BytesIO(depths[name_of(image)])), np.float32) / 1000


def in_depth(row: Row, depths: Depths) -> Row:
    """A conversation under pictures of depth in place of its images."""
    chance = np.random.default_rng(random.Random(f"{row['seed']}:{row['id']}:depth").getrandbits(64))
    return row | {"images": [png(picture_of(depth_m(image, depths), chance)) for image in row["images"]]}


def picture_of(depth: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """(H, W) metres, 0 where there is no reading -> (H, W, 3) grey, logarithmic, wrong by `WRONG_BY` in each patch."""
    height, width = depth.shape
    patches = chance.normal(0, WRONG_BY, (-(-height // PATCH_PX), -(-width // PATCH_PX)))
    wrong = np.kron(patches, np.ones((PATCH_PX, PATCH_PX)))[:height, :width]
    shown = np.log(np.where(depth > 0, depth, FARTHEST_M) / NEAREST_M) + wrong
    grey = 255 * (1 - np.clip(shown / np.log(FARTHEST_M / NEAREST_M), 0, 1))
    return np.repeat(np.round(grey).astype(np.uint8)[..., None], 3, axis=2)


def depth_questions(row: Row, depths: Depths) -> Row:
    """A `grounding` row with `NUM_QUESTIONS` about depths at points of its image.

    As in `pointing`, most are put in one short wording, the others in those of the dialogues.
    """
    chance = random.Random(f"{row['seed']}:{row['id']}:depth_pointing")
    depth = depth_m(row["images"][0], depths)
    pixels = np.argwhere(depth > 0)

    def ask() -> Asked:
        kind = chance.choices(("plain", "worded"), (3, 1))[0]
        v, u = (int(one) for one in chance.choice(pixels))
        wording = wordings(QUESTIONS["point_depth"], DEPTH_ANSWERS, kind == "worded", chance)
        return Asked("depth", kind, point(u, v, depth), *wording, format_length(float(depth[v, u])))

    return conversation(row, [ask() for _ in range(NUM_QUESTIONS)])
