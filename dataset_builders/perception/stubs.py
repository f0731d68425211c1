"""Stand-ins for the models: quick, pure functions of the image, for tests and for measuring everything else."""

import random
import zlib
from collections.abc import Sequence

import numpy as np

from dataset_builders.perception import Array, Box, DepthEstimate, Detection, PerceptionOptions, Region
from dataset_builders.perception.vocabulary import VOCABULARY

FOCAL_LENGTH_IN_WIDTHS = 0.9
NEAREST_M, FARTHEST_M = 1.0, 8.0
RELIEF_M = 0.3  # between a black and a white pixel
GRID = 3  # things stand in the cells of a grid of 3 x 3, so that they do not overlap


class StubDepth:
    """A floor that rises towards the horizon, with the image's brightness as relief."""

    relative_noise = 0.05

    def __init__(self, name: str, options: PerceptionOptions) -> None:
        """Nothing to load."""

    def estimate(self, images: Sequence[Array], focal_lengths_px: Sequence[float | None]) -> list[DepthEstimate]:
        """Metres between 1 and 8, as if at 0.9 widths of focal length; in proportion to another focal length."""
        estimates = []
        for image, known in zip(images, focal_lengths_px):
            height, width = image.shape[:2]
            focal_length_px = known or FOCAL_LENGTH_IN_WIDTHS * width
            ramp = np.linspace(FARTHEST_M, NEAREST_M, height, dtype=np.float32)[:, None]
            depth_m = ramp + np.float32(RELIEF_M / 255) * image[..., 1]
            scale = np.float32(focal_length_px / (FOCAL_LENGTH_IN_WIDTHS * width))
            estimates.append(DepthEstimate(scale * depth_m, focal_length_px))
        return estimates


class StubDetector:
    """Four to six things of the vocabulary, of different names."""

    def __init__(self, name: str, options: PerceptionOptions) -> None:
        """Nothing to load."""

    def detect(self, images: Sequence[Array], vocabulary: Sequence[str]) -> list[list[Detection]]:
        """Boxes in cells of a grid, the surest first."""
        return [self._detect(image, list(dict.fromkeys(vocabulary or VOCABULARY))) for image in images]

    def _detect(self, image: Array, vocabulary: list[str]) -> list[Detection]:
        boxes = _boxes(image)
        names = random.Random(_fingerprint(image)).sample(vocabulary, min(len(boxes), len(vocabulary)))
        return [Detection(box, name, 0.9 - 0.05 * k) for k, (box, name) in enumerate(zip(boxes, names))]


class StubSegmenter:
    """Ellipses: one in each box, or four to six of them."""

    def __init__(self, name: str, options: PerceptionOptions) -> None:
        """Nothing to load."""

    def segment(
        self, images: Sequence[Array], boxes: Sequence[Sequence[Box]] | None, vocabulary: Sequence[str]
    ) -> list[list[Region]]:
        """The ellipse that touches the four sides of each box."""
        chosen = [_boxes(image) for image in images] if boxes is None else boxes
        return [
            [Region(_ellipse(box, image.shape[:2]), 0.95) for box in boxes_of_image]
            for image, boxes_of_image in zip(images, chosen)
        ]


class StubNamer:
    """Different nouns for the regions of an image."""

    def __init__(self, name: str, options: PerceptionOptions) -> None:
        """Nothing to load."""

    def name(self, images: Sequence[Array], boxes: Sequence[Sequence[Box]]) -> list[list[str]]:
        """Nouns of `VOCABULARY`, as many different ones as there are."""
        names = []
        for image, boxes_of_image in zip(images, boxes):
            order = random.Random(_fingerprint(image)).sample(VOCABULARY, len(VOCABULARY))
            names.append([order[k % len(order)] for k in range(len(boxes_of_image))])
        return names


def _fingerprint(image: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(image[::16, ::16]).tobytes(), image.shape[0] * 65536 + image.shape[1])


def _boxes(image: Array) -> list[Box]:
    """Four to six boxes of different sizes, each inside its own cell of the grid."""
    generator = random.Random(_fingerprint(image))
    height, width = (side / GRID for side in image.shape[:2])
    boxes = []
    for cell in generator.sample(range(GRID * GRID), generator.randint(4, 6)):
        row, column = divmod(cell, GRID)
        left, top = generator.uniform(0.05, 0.25), generator.uniform(0.05, 0.25)
        right, bottom = generator.uniform(0.7, 0.95), generator.uniform(0.7, 0.95)
        boxes.append(
            ((column + left) * width, (row + top) * height, (column + right) * width, (row + bottom) * height)
        )
    return boxes


def _ellipse(box: Box, shape: tuple[int, ...]) -> Array:
    """Bool, `shape`; only the box's own pixels are computed."""
    height, width = shape
    x0, y0 = max(0, int(box[0])), max(0, int(box[1]))
    x1, y1 = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    columns, rows = np.arange(x0, x1)[None] + 0.5, np.arange(y0, y1)[:, None] + 0.5
    across = (2 * columns - box[0] - box[2]) / max(box[2] - box[0], 1e-6)
    down = (2 * rows - box[1] - box[3]) / max(box[3] - box[1], 1e-6)
    mask = np.zeros(shape, dtype=bool)
    mask[y0:y1, x0:x1] = across**2 + down**2 <= 1
    return mask
