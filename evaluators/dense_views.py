"""How an image is shown to an encoder and its outputs become one map: padding, sliding windows, scales, flips."""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageOps
from torch.nn import functional

from evaluators.dense_data import DenseSplit, centre_box
from evaluators.encoders import Encoder, Preprocessing
from modeling_spatialboost.dense_heads import upsample


@dataclass(frozen=True)
class Frame:
    """An input of the encoder: `size` pixels of image, padded with zeros around the centre to whole patches.

    Attributes:
        size: (height, width) of the image's part.
        padded: (height, width) of the whole, multiples of the patch size.
        stretch: DINOv2's habit: the padding is not cut off again, so that the map is slightly shrunk.
    """

    size: tuple[int, int]
    padded: tuple[int, int]
    stretch: bool = False

    @property
    def corner(self) -> tuple[int, int]:
        """Top and left of the image's part."""
        return (self.padded[0] - self.size[0]) // 2, (self.padded[1] - self.size[1]) // 2

    def pad(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(..., H, W) of `size` -> the same of `padded`."""
        top, left = self.corner
        height, width = self.size
        return functional.pad(pixel_values, (left, self.padded[1] - width - left, top, self.padded[0] - height - top))

    def resize(self, output: torch.Tensor, size: Sequence[int] | None = None) -> torch.Tensor:
        """(B, K, h, w) or (B, h, w) of the padded input -> the image's part, at `size` or its own (H, W)."""
        if self.size == self.padded or self.stretch:
            return upsample(output, size or self.size)
        (top, left), (height, width) = self.corner, self.size
        part = upsample(output, self.padded)[..., top : top + height, left : left + width]
        return part if size is None or tuple(size) == self.size else upsample(part, size)


def make_frame(encoder: Encoder, size: tuple[int, int], pad: bool, stretch: bool = False) -> Frame:
    """Return the frame of images of `size` pixels: padded to whole patches, or rounded to them without `pad`.

    Raises:
        ValueError: the encoder takes images of one size only, and it is another.
    """
    if not pad:
        return Frame(encoder.fit_resolution(size), encoder.fit_resolution(size))
    height, width = (-(-side // encoder.patch_size_px) * encoder.patch_size_px for side in size)
    if not encoder.any_size and (height, width) != encoder.input_size_px:
        raise ValueError(
            f"encoder {encoder.name!r} takes images of one size only, not {(height, width)}: pass --resolution "
            f"{'x'.join(map(str, encoder.input_size_px))} and --set TASK.augment=false"
        )
    return Frame(size, (height, width), stretch)


@dataclass(frozen=True)
class PaddedPreprocessing(Preprocessing):
    """An encoder's preprocessing of an image to the size of a frame, padded after the normalisation."""

    frame: Frame

    def __call__(self, image: Image.Image, resolution: tuple[int, int]) -> torch.Tensor:
        """Return float32 (3, H, W) for `resolution` = (H, W), which is the frame's padded size."""
        assert tuple(resolution) == self.frame.padded
        return self.frame.pad(super().__call__(image, self.frame.size))


class Pass(NamedTuple):
    """The image once: resized to (height, width), mirrored or not, seen through windows at (top, left)."""

    size: tuple[int, int]
    mirrored: bool
    corners: list[tuple[int, int]]


@dataclass(frozen=True)
class Slide:
    """Windows over the image at every scale, mirrored or not; their outputs are averaged.

    Logits are averaged where windows overlap and resized to the truth's size, then the activation is taken, and the
    passes (scales, mirror images) are averaged, as in mmsegmentation and DINOv3.

    Attributes:
        window: (height, width) in pixels.
        stride: of the windows, (rows, columns) in pixels.
        scales: of the image; at 1 it just covers the window. None below 1.
        flip: whether the mirror image is shown, too.
        keep_aspect: whether the image keeps its aspect ratio, or is squashed to the window's.
    """

    window: tuple[int, int]
    stride: tuple[int, int]
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    keep_aspect: bool = False

    def passes(self, image_size: Sequence[int]) -> list[Pass]:
        """Return how an image of (height, width) pixels is shown."""
        zoom = max(side / old for side, old in zip(self.window, image_size)) if self.keep_aspect else 0.0
        passes = []
        for scale in self.scales:
            sides = [old * zoom for old in image_size] if self.keep_aspect else self.window
            height, width = (max(side, round(scale * old)) for side, old in zip(self.window, sides))
            starts = [_starts(*sides) for sides in zip((height, width), self.window, self.stride)]
            corners = [(top, left) for top in starts[0] for left in starts[1]]
            passes += [Pass((height, width), mirrored, corners) for mirrored in ((False, True)[: 1 + self.flip])]
        return passes

    def views(self, image: Image.Image, resample: int) -> Iterator[Image.Image]:
        """Yield all windows of an image, pass by pass."""
        for size, mirrored, corners in self.passes((image.height, image.width)):
            shown = image.resize(size[::-1], Image.Resampling(resample))
            shown = ImageOps.mirror(shown) if mirrored else shown
            for top, left in corners:
                yield shown.crop((left, top, left + self.window[1], top + self.window[0]))

    def merge(
        self, outputs: torch.Tensor, frame: Frame, image_size: Sequence[int], softmax: bool = False
    ) -> torch.Tensor:
        """Average what a head gave for the windows.

        Args:
            outputs: (V, K, h, w) or (V, h, w), in the order of `views`.
            frame: of a window.
            image_size: (height, width) in pixels of the image and of the map that is returned.
            softmax: over K, taken of each pass.

        Returns:
            (1, K, H, W) or (1, H, W).
        """
        passes, start, total = self.passes(image_size), 0, torch.zeros(1, device=outputs.device)
        for size, mirrored, corners in passes:
            windows = outputs[start : start + len(corners)]
            start += len(corners)
            if len(corners) == 1:
                merged = frame.resize(windows, image_size)
            else:
                merged = upsample(_overlay(frame.resize(windows), corners, size), image_size)
            merged = merged.softmax(1) if softmax else merged
            total = total + (merged.flip(-1) if mirrored else merged)
        return total / len(passes)


def _starts(side: int, window: int, stride: int) -> list[int]:
    """Where windows begin so that they cover `side` pixels; the last one ends with it."""
    count = -(-(side - window) // stride) + 1
    return [min(index * stride, side - window) for index in range(count)]


def _overlay(windows: torch.Tensor, corners: list[tuple[int, int]], size: tuple[int, int]) -> torch.Tensor:
    """(V, ..., wh, ww) maps of windows -> (1, ..., H, W) where they lie, averaged where they overlap."""
    height, width = windows.shape[-2:]
    total = windows.new_zeros((1, *windows.shape[1:-2], *size))
    counts = windows.new_zeros(size)
    for (top, left), window in zip(corners, windows):
        total[..., top : top + height, left : left + width] += window
        counts[top : top + height, left : left + width] += 1
    return total / counts


class Views(Sequence[Image.Image]):
    """All windows of all images of a split in one row; those of image i begin at `starts[i]`."""

    def __init__(self, split: DenseSplit, slide: Slide, resample: int) -> None:
        """Count the windows of every image."""
        self.split, self.slide, self.resample = split, slide, resample
        sizes = (split.image_size(i) if slide.keep_aspect else slide.window for i in range(len(split)))
        counts = [sum(len(part.corners) for part in slide.passes(size)) for size in sizes]
        self.starts = [0, *itertools.accumulate(counts)]
        self._last: tuple[int, list[Image.Image]] = (-1, [])

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, position: Any) -> Any:
        """Return one window; the windows of the image that was asked for last are kept."""
        index = bisect.bisect_right(self.starts, position) - 1
        if self._last[0] != index:
            self._last = index, list(self.slide.views(self.split[index], self.resample))
        return self._last[1][position - self.starts[index]]


@dataclass(frozen=True)
class CentreViews(Sequence[Image.Image]):
    """Images of a split cut to the aspect ratio of `size` around their centre, as cached training sees them."""

    split: DenseSplit
    size: tuple[int, int]
    resample: int

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: Any) -> Any:
        """Return one image at `size`."""
        image = self.split[index]
        top, left, height, width = centre_box((image.height, image.width), self.size)
        box = (left, top, left + width, top + height)
        return image.resize(self.size[::-1], Image.Resampling(self.resample), box=box)
