"""What the published dense protocols fix, by data set: sizes, ranges, crops, augmentations."""

from dataclasses import dataclass

import numpy as np

from evaluators.dense_augmentation import DepthAugmentation, SegmentationAugmentation

CPU_LIMIT = 256  # images of each split in preset "cpu"
MULTISCALE_SCALES = (1.0, 1.32, 1.73, 2.28, 3.0)
# top, bottom, left and right of what counts, as shares of the truth's height and width
NO_CROP = (0.0, 1.0, 0.0, 1.0)
GARG = (0.40810811, 0.99189189, 0.03594771, 0.96405229)
NYU_EIGEN = (45 / 480, 471 / 480, 41 / 640, 601 / 640)
KITTI_EIGEN = (0.3324324, 0.91351351, 0.03594771, 0.96405229)


@dataclass(frozen=True)
class DepthProtocol:
    """How depth is measured on a data set.

    Attributes:
        size: (height, width) in pixels of the input, padded to whole patches; None: the encoder's own, not padded.
        max_depth_m: truth beyond it does not count, and the bins end there.
        crop: key of `crops`, the published one.
        flip: whether predictions for the image and its mirror image are averaged.
        augmentation: of the training with the encoder in the loop; None: only cached training.
        crops: the parts of the truth that may count, by name.
    """

    size: tuple[int, int] | None
    max_depth_m: float
    crop: str
    flip: bool
    augmentation: DepthAugmentation | None
    crops: dict[str, tuple[float, float, float, float]]


@dataclass(frozen=True)
class SegmentationProtocol:
    """How segmentation is measured on a data set.

    Attributes:
        window: side in pixels of the sliding window, and of the image's short side; None: the encoder's own input,
            the image squashed to it.
        stride: of the window in pixels.
        augmentation: of the training with the encoder in the loop; None: only cached training.
    """

    window: int | None
    stride: int
    augmentation: SegmentationAugmentation | None


DEPTH = {
    "rooms": DepthProtocol(None, 10.0, "none", False, None, {"none": NO_CROP}),
    "nyud": DepthProtocol(
        size=(480, 640),
        max_depth_m=10.0,
        crop="eigen",
        flip=True,
        augmentation=DepthAugmentation((416, 544), (0.75, 1.25), box=(45, 43, 427, 565)),
        crops={"eigen": NYU_EIGEN, "none": NO_CROP},
    ),
    "kitti": DepthProtocol(
        size=(352, 1216),
        max_depth_m=80.0,
        crop="garg",
        flip=True,
        augmentation=DepthAugmentation((352, 704)),
        crops={"garg": GARG, "eigen": KITTI_EIGEN, "none": NO_CROP},
    ),
}
SEGMENTATION = {
    "rooms": SegmentationProtocol(None, 0, None),
    "ade20k": SegmentationProtocol(512, 341, SegmentationAugmentation()),
    "voc": SegmentationProtocol(512, 341, SegmentationAugmentation()),
}
MULTISCALE = {
    "rooms": SegmentationProtocol(None, 0, None),
    "ade20k": SegmentationProtocol(640, 320, SegmentationAugmentation((1.0, 3.0))),
    "voc": SegmentationProtocol(640, 320, SegmentationAugmentation((1.0, 3.0))),
}


def crop_truth(truth_m: np.ndarray, shares: tuple[float, float, float, float]) -> np.ndarray:
    """Return (H, W) metres with 0 outside the part that counts: rows int(top * H) to int(bottom * H), and so on."""
    rows, columns = truth_m.shape
    # the shares of whole pixels, such as 45 / 480, must not fall below them by rounding
    top, bottom, left, right = (
        int(share * side + 1e-6) for share, side in zip(shares, (rows, rows, columns, columns))
    )
    cropped = np.zeros_like(truth_m)
    cropped[top:bottom, left:right] = truth_m[top:bottom, left:right]
    return cropped
