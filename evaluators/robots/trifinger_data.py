"""CortexBench's TriFinger demonstrations, read from their folder without running any pickle."""

import hashlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

TRAIN_SHARE = 0.8  # 100 of CortexBench's 125 demonstrations, in the order of their numbers
CAMERA = "image_60"
COLUMNS = (CAMERA, "ft_pos_cur", "delta_ftpos")
LAYOUT = (
    "pass CortexBench's folder trifinger-demos, which holds reach/demo-0000/dts-0p4/downsample.pth and "
    "move/demo-0000/dts-0p4/downsample.pth"
)
_DTYPES = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "uint8", "bool")]
_ARRAYS = [np.ndarray, np.dtype, *_DTYPES] + [
    (getattr(importlib.import_module("numpy._core.multiarray"), name), f"{module}.multiarray.{name}")
    for module in ("numpy.core", "numpy._core")
    for name in ("_reconstruct", "scalar")
]


@dataclass(frozen=True)
class FingerSteps(Sequence[Image.Image]):
    """Steps of several demonstrations laid end to end; as a sequence, their pictures, then each one's goal picture.

    Attributes:
        pictures: (N + num_demonstrations, H, W, 3) uint8; the last ones are the goals.
        goals: (N,) index of the goal picture of a step.
        fingertips_cm: (N, 9) positions of three fingertips.
        actions_cm: (N, A) displacements of the fingertips that move.
        demonstrations: (N,) number of the demonstration.
        fingerprint: of the content.
    """

    pictures: np.ndarray
    goals: np.ndarray
    fingertips_cm: np.ndarray
    actions_cm: np.ndarray
    demonstrations: np.ndarray
    fingerprint: str

    @property
    def states(self) -> np.ndarray:
        """(N + num_demonstrations, 0): what is known of a picture but itself."""
        return np.empty((len(self.pictures), 0), np.float32)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.pictures)

    def __getitem__(self, index: int) -> Image.Image:  # type: ignore[override]
        """A picture."""
        return Image.fromarray(self.pictures[index])


def load_fingers(root: Path, folder: str, num_moving: int, limit: int | None) -> tuple[FingerSteps, FingerSteps]:
    """Return the training and the test demonstrations.

    Args:
        root: CortexBench's folder `trifinger-demos`.
        folder: "reach" or "move".
        num_moving: fingers that move; their displacements are the actions.
        limit: at most so many demonstrations of each split.

    Raises:
        ValueError: for another layout, or files that hold other things than arrays.
    """
    files = sorted((root / folder).glob("demo-*/dts-*/downsample.pth"))
    cut = round(TRAIN_SHARE * len(files))
    if not 0 < cut < len(files):
        raise ValueError(f"demonstrations {str(root)!r} hold {len(files)} in {folder}/: {LAYOUT}")
    train, test = (_lay_out([_read(file) for file in part[:limit]], num_moving) for part in (files[:cut], files[cut:]))
    return train, test


def _read(file: Path) -> dict[str, np.ndarray]:
    with torch.serialization.safe_globals(_ARRAYS):
        try:
            demonstration = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever torch makes of a file that is none of its own
            raise ValueError(f"demonstration {str(file)!r} is no file of arrays: {LAYOUT}") from error
    if absent := [name for name in COLUMNS if name not in demonstration]:
        raise ValueError(f"demonstration {str(file)!r} lacks {', '.join(absent)}: {LAYOUT}")
    return {name: np.asarray(demonstration[name]) for name in COLUMNS}


def _lay_out(demonstrations: list[dict[str, np.ndarray]], num_moving: int) -> FingerSteps:
    """Lay the steps end to end; the last one of a demonstration is its goal."""
    numbers = np.repeat(np.arange(len(demonstrations)), [len(one[CAMERA]) - 1 for one in demonstrations])

    def joined(name: str) -> np.ndarray:
        return np.concatenate([one[name][:-1] for one in demonstrations])

    goals = np.stack([one[CAMERA][-1] for one in demonstrations])
    pictures = np.concatenate([joined(CAMERA), goals]).astype(np.uint8)
    actions_cm = joined("delta_ftpos")[:, : 3 * num_moving].astype(np.float32)
    return FingerSteps(
        pictures=pictures,
        goals=len(numbers) + numbers,
        fingertips_cm=joined("ft_pos_cur").astype(np.float32),
        actions_cm=actions_cm,
        demonstrations=numbers,
        fingerprint=hashlib.sha256(pictures.tobytes() + actions_cm.tobytes()).hexdigest()[:16],
    )
