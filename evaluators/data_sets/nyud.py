"""NYU Depth v2 as BTS and BinsFormer cut it: 24,231 training and 654 test images (Eigen's split).

ROOT/nyu_train.txt, ROOT/nyu_test.txt      lines "RGB DEPTH FOCAL", paths from ROOT
ROOT/bathroom_0001/rgb_00000.jpg           640 x 480
ROOT/bathroom_0001/sync_depth_00000.png    16 bits, millimetres, 0 = no reading
"""

from functools import partial
from pathlib import Path

from evaluators.dense_data import DenseData
from evaluators.dense_files import FileSplit, Pair, make_data, metres, plain_pairs, read_list

TITLE = "NYUd"
LAYOUT = "nyu_train.txt, nyu_test.txt and their images (BTS's or BinsFormer's subset), or ITEM/rgb.png and depth.png"
PUBLISHED = (24_231, 654)
UNITS_PER_METRE = 1000


def load(root: str, limit: int | None = None) -> DenseData:
    """Read both splits, at most `limit` items of each.

    Raises:
        ValueError: the layout is another, or files are missing.
    """
    folder = Path(root)
    splits = plain_pairs(folder, "depth.png")
    if splits is None:
        splits = _listed(folder, "nyu_train.txt"), _listed(folder, "nyu_test.txt")
    read_depth = partial(metres, units_per_metre=UNITS_PER_METRE)
    train, test = (FileSplit("depth", pairs[:limit], read_depth) for pairs in splits)
    return make_data(TITLE, root, (train, test), PUBLISHED, ())


def _listed(folder: Path, name: str) -> list[Pair]:
    lines = [line.split() for line in read_list(TITLE, folder, name, LAYOUT)]
    if any(len(line) < 2 for line in lines):
        raise ValueError(f"{TITLE}: a line of {folder / name} is not 'RGB DEPTH FOCAL': fetch the list again")
    return [Pair(*(folder / path.lstrip("/") for path in line[:2])) for line in lines]
