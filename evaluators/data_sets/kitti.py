"""KITTI depth with Eigen's split: 23,158 training and 652 test images with LiDAR depth.

    ROOT/kitti_eigen_train.txt, ROOT/kitti_eigen_test.txt        lines "RGB DEPTH FOCAL"; DEPTH "None": not used
    ROOT/input/2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png
    ROOT/gt_depth/2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png    16 bits, metres * 256

Images and depth are cut to the bottom 352 rows and the middle 1,216 columns (KITTI's benchmark crop).
"""

from functools import partial
from pathlib import Path

from evaluators.dense_data import DenseData
from evaluators.dense_files import FileSplit, Pair, make_data, metres, plain_pairs, read_list

TITLE = "KITTI"
LAYOUT = "kitti_eigen_train.txt, kitti_eigen_test.txt, input/ and gt_depth/, or ITEM/rgb.png and depth.png"
PUBLISHED = (23_158, 652)
UNITS_PER_METRE = 256
NO_DEPTH = "None"


def benchmark_crop(height: int, width: int) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of the bottom 352 rows and the middle 1,216 columns, in pixels."""
    rows, columns = min(352, height), min(1216, width)
    return height - rows, (width - columns) // 2, rows, columns


def load(root: str, limit: int | None = None) -> DenseData:
    """Read both splits, at most `limit` items of each; lines without depth are dropped and counted.

    Raises:
        ValueError: the layout is another, or files are missing.
    """
    folder = Path(root)
    plain = plain_pairs(folder, "depth.png")
    lists = [(pairs, 0) for pairs in plain] if plain else [_listed(folder, split) for split in ("train", "test")]
    read_depth = partial(metres, units_per_metre=UNITS_PER_METRE)
    train, test = (
        FileSplit("depth", pairs[:limit], read_depth, benchmark_crop, {"without_depth": without} if without else {})
        for pairs, without in lists
    )
    return make_data(TITLE, root, (train, test), PUBLISHED, ())


def _listed(folder: Path, split: str) -> tuple[list[Pair], int]:
    """Return the pairs of a file list and how many of its lines have no depth."""
    lines = [line.split() for line in read_list(TITLE, folder, f"kitti_eigen_{split}.txt", LAYOUT)]
    if any(len(line) < 2 for line in lines):
        raise ValueError(f"{TITLE}: a line of kitti_eigen_{split}.txt is not 'RGB DEPTH FOCAL': fetch the list again")
    pairs = [Pair(folder / "input" / line[0], folder / "gt_depth" / line[1]) for line in lines if line[1] != NO_DEPTH]
    return pairs, len(lines) - len(pairs)
