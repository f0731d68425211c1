"""Monocular depth through a head on frozen features: DINOv3's public NYU recipe, also for KITTI and built rooms."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from evaluators.contract import Result
from evaluators.dense_heads import UpsampledDepthHead
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
from evaluators.dense_protocols import DEPTH, crop_truth
from evaluators.dense_views import Slide
from evaluators.encoders import Encoder
from evaluators.heads import FitConfig, LinearDepthHead, Loss, SigLoss
from evaluators.metrics import DEPTH_METRICS, depth_errors
from evaluators.pictures import save_picture

__all__ = ["METRICS", "Config", "aggregate", "check", "draw", "evaluate"]

METRICS = DEPTH_METRICS
FIT_PRESETS = {
    "full": FitConfig(
        38_400, 16, learning_rate=3e-4, weight_decay=1e-4, beta2=0.99, warmup_steps=12_800, gradient_clip=35.0
    ),
    "cpu": FitConfig(300, 16, learning_rate=1e-2, weight_decay=1e-4, beta2=0.99, warmup_steps=100, gradient_clip=35.0),
}
# DINOv2's released configurations of its linear heads
UPSTREAM_FIT = FitConfig(
    38_400, 16, learning_rate=1e-4, weight_decay=1e-2, beta2=0.999, warmup_steps=12_800, gradient_clip=35.0
)


@dataclass(frozen=True, kw_only=True)
class Config(DenseProbeConfig):
    """A depth probe with a linear head.

    Attributes:
        min_depth_m: nearest depth that counts; the bins begin there.
        max_depth_m: farthest depth that counts; 0 = the protocol's, 10 m or 80 m (KITTI).
        crop: what of the truth counts: "eigen", "garg" or "none"; "" = the protocol's.
        flip: average with the mirror image; None = as the protocol says.
        num_bins: of depth, between the nearest and the farthest.
    """

    min_depth_m: float = 1e-3
    max_depth_m: float = 0.0
    crop: str = ""
    flip: bool | None = None
    num_bins: int = 256

    def __post_init__(self) -> None:
        """Fill in the protocol and check the range."""
        protocol = DEPTH.get(self.data_set, DEPTH["rooms"])
        size = protocol.size
        if size and self.preset == "cpu":
            size = size[0] // 2, size[1] // 2
        self._fill(
            protocol.augmentation is not None,
            max_depth_m=protocol.max_depth_m,
            crop=protocol.crop,
            flip=protocol.flip,
            resolution=size,
        )
        if not 0 < self.min_depth_m < self.max_depth_m:
            raise ValueError(f"max_depth_m {self.max_depth_m} is not above {self.min_depth_m} m: pass a larger one")
        if self.crop not in protocol.crops:
            raise ValueError(
                f"crop {self.crop!r} is not defined for {self.data_set}: pass {', '.join(protocol.crops)}"
            )


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Probe depth: RMSE (mean of per-image), AbsRel, delta1, with constant and position-only controls.

    Raises:
        ValueError: if the data is not in its layout or has no depth within the range.
    """
    upstream = config.upstream_compat and config.preset == "full"
    fit = config.fit or (UPSTREAM_FIT if upstream else FIT_PRESETS[config.preset])
    make_head = UpsampledDepthHead if config.upstream_compat else LinearDepthHead
    notes = (
        "Frozen encoder, patch tokens of the last layer after the final norm"
        + (" with the class token beside each; " if config.upstream_compat else "; BatchNorm, ")
        + f"1x1 convolution to {config.num_bins} uniform depth bins, expectation, bilinear upsampling to the truth's "
        "size; SigLoss."
    )
    return probe_depth(encoder, config, fit, "linear", make_head, notes, (-1,))


def probe_depth(
    encoder: Encoder,
    config: Config,
    fit: FitConfig,
    kind: str,
    make_head: Callable[[int, int, float, float], nn.Module],
    note: str,
    layers: tuple[int, ...],
) -> Result:
    """Probe depth with any head of (channels, bins, nearest, farthest depth) on any layers; see `evaluate`."""
    protocol, data = DEPTH[config.data_set], load_data(config)
    size = config.resolution or encoder.input_size_px
    training_size = size
    if protocol.augmentation and protocol.size:  # a part of the image, as large as the published one in proportion
        height, width = (
            round(part * new / old) for part, new, old in zip(protocol.augmentation.crop, size, protocol.size)
        )
        training_size = height, width
    frame, training_frame = frames_of(encoder, config, training_size, stretch=config.upstream_compat)
    recipe = Recipe(
        Slide(frame.size, frame.size, flip=bool(config.flip)),
        frame,
        training_frame,
        protocol.augmentation,
        layers,
        class_token=kind == "linear" and config.upstream_compat,
        loss_stride=loss_stride(config),
    )
    return run_probe(encoder, config, fit, data, DepthTask(config, fit, data.source, kind, make_head, note), recipe)


def aggregate(items: np.ndarray) -> dict[str, float]:
    """Average per-image errors, (num_images, 3): the published RMSE is this mean, not the global one."""
    return dict(zip((metric.name for metric in METRICS), np.nanmean(items, axis=0).tolist()))


def draw(file: Path, base: Result, boosted: Result) -> None:
    """Image, truth, base and boosted; sparse truth (LiDAR) is thickened, or it could not be seen."""
    shown = [{**example, "truth": _thicken(example["truth"])} for example in base["examples"]]
    save_picture(file, shown, boosted["examples"], class_names=None)


def _thicken(truth_m: Map) -> Map:
    """(H, W) -> the same where most pixels have a reading, else every reading 7 x 7 pixels large."""
    if (truth_m > 0).mean() > 0.5:
        return truth_m
    return functional.max_pool2d(torch.from_numpy(truth_m)[None, None], 7, stride=1, padding=3)[0, 0].numpy()


class DepthTask:
    """The depth side of a dense probe."""

    column = "depth"
    softmax = False

    aggregate = staticmethod(aggregate)

    def __init__(self, config: Config, fit: FitConfig, source: str, kind: str, make_head: Any, note: str) -> None:
        """Keep the range of depth and tell the protocol."""
        self.source, self.range_m = source, (config.min_depth_m, config.max_depth_m)
        self.num_bins = config.num_bins
        self.shares, self.new_head = DEPTH[config.data_set].crops[config.crop], make_head
        name = "" if config.data_set == "rooms" else f"{config.data_set}-"
        self.protocol = f"{name}depth-{kind}/1"
        self.settings = {"crop": config.crop, "flip": config.flip, "max_depth_m": config.max_depth_m}
        crop = "no crop" if config.crop == "none" else f"the {config.crop.title()} crop"
        flip = "the mean of image and mirror image" if config.flip else "no flip at test time"
        self.notes: tuple[str, ...] = (
            note,
            "RMSE, AbsRel and δ1 are means of per-image values; truth outside "
            f"({config.min_depth_m:g}, {config.max_depth_m:g}) m does not count, predictions are clamped to it; "
            f"{crop} of the truth, {flip}.",
        )
        self.loss: Loss = SigLoss(*self.range_m, warmup_steps=min(100, fit.steps // 3))

    def make_head(self, channels: int) -> nn.Module:
        """Return a depth head."""
        return self.new_head(channels, self.num_bins, *self.range_m)

    def to_map(self, output: torch.Tensor) -> Map:
        """Return the (H, W) metres of a (1, H, W) prediction."""
        return output[0].cpu().numpy()

    def controls(self, targets: torch.Tensor) -> dict[str, MapOfSize]:
        """Return the mean training depth, once over everything and once per pixel position."""
        valid = (targets > self.range_m[0]) & (targets < self.range_m[1])  # (N, H, W)
        if not valid.any():
            raise self._no_depth("train")
        constant_m = targets[valid].mean()
        sums, counts = (targets * valid).sum(0), valid.sum(0)
        position_m = torch.where(counts > 0, sums / counts.clamp(min=1), constant_m)  # (H, W)

        def position_only(size: tuple[int, int]) -> Map:
            return functional.interpolate(position_m[None, None], size, mode="bilinear")[0, 0].numpy()

        return {"constant": lambda size: np.full(size, float(constant_m)), "position_only": position_only}

    def item(self, prediction: Map, truth: Map) -> np.ndarray:
        """Return the (3,) errors of an image, NaN without truth."""
        errors = depth_errors(prediction, crop_truth(truth, self.shares), *self.range_m)
        return np.array(list(errors.values()) if errors else [np.nan] * len(METRICS))

    def check_items(self, items: np.ndarray) -> None:
        """Raise ValueError if no image has truth."""
        if np.isnan(items).all():
            raise self._no_depth("test")

    def _no_depth(self, split: str) -> ValueError:
        low_m, high_m = self.range_m
        return ValueError(
            f"data {self.source!r} has no depth between {low_m} and {high_m} m in split {split!r}: pass another "
            "max_depth_m, or check that the depth is in millimetres"
        )
