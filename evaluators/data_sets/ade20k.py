"""ADE20K SceneParse150: 20,210 training and 2,000 validation images, 150 classes.

    ROOT/images/training/ADE_train_00000001.jpg         ROOT/images/validation/ADE_val_00000001.jpg
    ROOT/annotations/training/ADE_train_00000001.png    0 = no class, 1 to 150
    ROOT/objectInfo150.txt                              class names (optional)

The release unpacks as ADEChallengeData2016; its parent folder does, too.
"""

from functools import partial
from pathlib import Path

from evaluators.dense_data import DenseData
from evaluators.dense_files import FileSplit, Pair, class_ids, make_data, plain_pairs

TITLE = "ADE20K"
LAYOUT = "images/ and annotations/, each with training/ and validation/, or ITEM/rgb.jpg and semantic.png"
PUBLISHED = (20_210, 2_000)
NUM_CLASSES = 150


def load(root: str, limit: int | None = None) -> DenseData:
    """Read both splits, at most `limit` items of each.

    Raises:
        ValueError: the layout is another, or files are missing.
    """
    folder = Path(root)
    if (folder / "ADEChallengeData2016").is_dir():
        folder = folder / "ADEChallengeData2016"
    splits = plain_pairs(folder, "semantic.png") or (_listed(folder, "training"), _listed(folder, "validation"))
    read_ids = partial(class_ids, num_classes=NUM_CLASSES, background_is_ignored=True)
    train, test = (FileSplit("segmentation", pairs[:limit], read_ids) for pairs in splits)
    return make_data(TITLE, root, (train, test), PUBLISHED, class_names(folder))


def class_names(folder: Path) -> list[str]:
    """Return the 150 names of objectInfo150.txt (the last column, after a line of titles), or numbers."""
    file = folder / "objectInfo150.txt"
    if not file.is_file():
        return [f"class {index + 1}" for index in range(NUM_CLASSES)]
    names = [line.split("\t")[-1].split(",")[0].strip() for line in file.read_text().splitlines()[1:] if line.strip()]
    if len(names) != NUM_CLASSES:
        raise ValueError(f"{TITLE}: {file} names {len(names)} classes, not {NUM_CLASSES}: fetch it again")
    return names


def _listed(folder: Path, split: str) -> list[Pair]:
    images, annotations = folder / "images" / split, folder / "annotations" / split
    if not images.is_dir() or not annotations.is_dir():
        raise ValueError(f"{TITLE} at {str(folder)!r} has no {split} images: pass a folder that holds {LAYOUT}")
    return [Pair(image, annotations / f"{image.stem}.png") for image in sorted(images.glob("*.jpg"))]
