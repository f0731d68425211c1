"""Semantic segmentation through a linear head on frozen features: DINOv3's public recipe."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluators.contract import Result
from evaluators.dense_data import resize_nearest
from evaluators.dense_probe import (
    DenseProbeConfig,
    Map,
    MapOfSize,
    Recipe,
    check,
    frames_of,
    load_data,
    loss_stride,
    run_probe,
)
from evaluators.dense_protocols import SEGMENTATION, SegmentationProtocol
from evaluators.dense_views import Slide
from evaluators.encoders import Encoder
from evaluators.heads import FitConfig, LinearSegmentationHead, Loss, segmentation_loss
from evaluators.metrics import IGNORED_CLASS, SEGMENTATION_METRICS, overlap, segmentation_scores
from evaluators.pictures import save_picture

__all__ = ["METRICS", "Config", "aggregate", "check", "draw", "evaluate"]

METRICS = SEGMENTATION_METRICS
FIT_PRESETS = {
    "full": FitConfig(40_000, 16, learning_rate=1e-3, weight_decay=1e-3, beta2=0.999, warmup_steps=1_500),
    "cpu": FitConfig(300, 16, learning_rate=1e-2, weight_decay=1e-3, beta2=0.999, warmup_steps=30),
}
VOC_WEIGHT_DECAY = 1e-4  # as DINOv2's, where DINOv3 gives none


@dataclass(frozen=True, kw_only=True)
class Config(DenseProbeConfig):
    """A segmentation probe; the classes are the data's."""

    def __post_init__(self) -> None:
        """Fill in the protocol."""
        self.fill_in(SEGMENTATION.get(self.data_set, SEGMENTATION["rooms"]))

    def fill_in(self, protocol: SegmentationProtocol) -> None:
        """Set the window, halved in preset "cpu", unless another resolution is asked for."""
        side = protocol.window and (protocol.window // 2 if self.preset == "cpu" else protocol.window)
        self._fill(protocol.augmentation is not None, resolution=(side, side) if side else None)


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Probe segmentation: mIoU over the data set and pixel accuracy, with constant and position-only controls.

    Raises:
        ValueError: if the data is not in its layout or every pixel of a split is ignored.
    """
    fit = FIT_PRESETS[config.preset]
    if config.data_set == "voc" and config.preset == "full":
        fit = dataclasses.replace(fit, weight_decay=VOC_WEIGHT_DECAY)
    note = (
        "Frozen encoder, patch tokens of the last layer after the final norm; channel dropout 0.1, BatchNorm, 1x1 "
        "convolution to classes, bilinear upsampling of the logits; cross-entropy."
    )
    protocol = SEGMENTATION[config.data_set]
    return probe_segmentation(encoder, config, config.fit or fit, "linear", protocol, note, (-1,), (1.0,))


def probe_segmentation(
    encoder: Encoder,
    config: DenseProbeConfig,
    fit: FitConfig,
    kind: str,
    protocol: SegmentationProtocol,
    note: str,
    layers: tuple[int, ...],
    scales: tuple[float, ...],
) -> Result:
    """Probe segmentation with the linear head on any layers, at any scales, mirrored if there are several."""
    data, size = load_data(config), config.resolution or encoder.input_size_px
    frame, training_frame = frames_of(encoder, config, size, stretch=config.upstream_compat)
    several, on_windows = len(scales) > 1, protocol.window is not None
    rows, columns = (
        max(1, round(side * protocol.stride / protocol.window)) if protocol.window else max(1, side // 2)
        for side in frame.size
    )
    slide = Slide(frame.size, (rows, columns), scales, flip=several, keep_aspect=on_windows)
    recipe = Recipe(
        slide,
        frame,
        training_frame,
        protocol.augmentation,
        layers,
        cache_test=not several,
        loss_stride=loss_stride(config),
    )
    task = SegmentationTask(config, slide, data.source, len(data.class_names), kind, note)
    return run_probe(encoder, config, fit, data, task, recipe)


aggregate = segmentation_scores


def draw(file: Path, base: Result, boosted: Result) -> None:
    """Image, truth, base and boosted."""
    save_picture(file, base["examples"], boosted["examples"], base["data"]["classes"])


class SegmentationTask:
    """The segmentation side of a dense probe."""

    aggregate = staticmethod(segmentation_scores)
    column = "segmentation"
    softmax = True

    def __init__(
        self, config: DenseProbeConfig, slide: Slide, source: str, num_classes: int, kind: str, note: str
    ) -> None:
        """Keep the number of classes and tell the protocol."""
        self.source, self.num_classes = source, num_classes
        self.loss: Loss = segmentation_loss
        name = "" if config.data_set == "rooms" else f"{config.data_set}-"
        self.protocol = f"{name}segmentation-{kind}/1"
        self.settings: dict[str, Any] = {
            "window": "x".join(map(str, slide.window)),
            "stride": "x".join(map(str, slide.stride)),
            "scales": " ".join(f"{scale:g}" for scale in slide.scales),
            "flip": slide.flip,
        }
        whole = "whole image at once (no sliding window), one scale"
        sliding = "windows slide over the image, logits are averaged where they overlap, probabilities over passes"
        self.notes: tuple[str, ...] = (
            note,
            "mIoU is computed from pixel counts of the whole test split at the truth's own size, the mean over "
            "classes that occur in truth or prediction; id 255 does not count; "
            f"{sliding if slide.keep_aspect or len(slide.scales) > 1 else whole}.",
        )
        if not num_classes:
            raise self._no_class("train")

    def make_head(self, channels: int) -> LinearSegmentationHead:
        """Return a segmentation head."""
        return LinearSegmentationHead(channels, self.num_classes)

    def to_map(self, output: torch.Tensor) -> Map:
        """Return (H, W) class ids of (1, K, H, W) probabilities."""
        return output[0].argmax(0).cpu().numpy()

    def controls(self, targets: torch.Tensor) -> dict[str, MapOfSize]:
        """Return the most frequent training class, once over everything and once per pixel position."""
        counts = torch.stack([(targets == class_id).sum(0) for class_id in range(self.num_classes)])  # (K, H, W)
        if not counts.any():
            raise self._no_class("train")
        constant = int(counts.sum((1, 2)).argmax())
        position = torch.where(counts.sum(0) > 0, counts.argmax(0), constant).numpy()  # (H, W)
        return {
            "constant": lambda size: np.full(size, constant),
            "position_only": lambda size: resize_nearest(position, size),
        }

    def item(self, prediction: Map, truth: Map) -> np.ndarray:
        """Return the (3K,) pixel counts of an image, see `overlap`."""
        return overlap(prediction, truth, self.num_classes)

    def check_items(self, items: np.ndarray) -> None:
        """Raise ValueError if no pixel counts."""
        if not items[:, -self.num_classes :].any():
            raise self._no_class("test")

    def _no_class(self, split: str) -> ValueError:
        return ValueError(
            f"data {self.source!r} has only ignored pixels ({IGNORED_CLASS}) in split {split!r}: pass data with "
            "class maps, or leave the task 'segmentation' out"
        )
