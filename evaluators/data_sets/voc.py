"""Pascal VOC 2012 segmentation: 1,464 training and 1,449 validation images, 20 classes and the background.

    ROOT/ImageSets/Segmentation/train.txt, val.txt
    ROOT/JPEGImages/2007_000032.jpg
    ROOT/SegmentationClass/2007_000032.png    palette, 0 = background, 255 = ignored

The release unpacks as VOCdevkit/VOC2012; its parent folders do, too. The split is `train`, without the additional
annotations of "trainaug", and the background counts as a class.
"""

from functools import partial
from pathlib import Path

from evaluators.dense_data import DenseData
from evaluators.dense_files import FileSplit, Pair, class_ids, make_data, read_list

TITLE = "VOC 2012"
LAYOUT = "ImageSets/Segmentation/, JPEGImages/ and SegmentationClass/"
PUBLISHED = (1_464, 1_449)
CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def load(root: str, limit: int | None = None) -> DenseData:
    """Read both splits, at most `limit` items of each.

    Raises:
        ValueError: the layout is another, or files are missing.
    """
    below = (Path(root) / part for part in ("VOCdevkit/VOC2012", "VOC2012"))
    folder = next((candidate for candidate in below if candidate.is_dir()), Path(root))
    read_ids = partial(class_ids, num_classes=len(CLASSES), background_is_ignored=False)
    train, test = (
        FileSplit("segmentation", _listed(folder, name)[:limit], read_ids) for name in ("train.txt", "val.txt")
    )
    return make_data(TITLE, root, (train, test), PUBLISHED, CLASSES)


def _listed(folder: Path, name: str) -> list[Pair]:
    ids = [line.strip() for line in read_list(TITLE, folder, f"ImageSets/Segmentation/{name}", LAYOUT)]
    return [Pair(folder / "JPEGImages" / f"{id_}.jpg", folder / "SegmentationClass" / f"{id_}.png") for id_ in ids]
