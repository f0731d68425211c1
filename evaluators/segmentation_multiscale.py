"""Semantic segmentation with the last four layers, at several scales and mirrored: DINOv2's public "+ms" recipe."""

import dataclasses
from dataclasses import dataclass

from evaluators import segmentation
from evaluators.contract import Result
from evaluators.dense_heads import last_layers
from evaluators.dense_probe import DenseProbeConfig
from evaluators.dense_protocols import MULTISCALE, MULTISCALE_SCALES
from evaluators.encoders import Encoder
from evaluators.segmentation import METRICS, aggregate, check, draw, probe_segmentation

__all__ = ["METRICS", "Config", "aggregate", "check", "draw", "evaluate"]

FIT_PRESETS = {
    "full": dataclasses.replace(segmentation.FIT_PRESETS["full"], weight_decay=1e-4),
    "cpu": segmentation.FIT_PRESETS["cpu"],
}
SCALES = {"full": MULTISCALE_SCALES, "cpu": MULTISCALE_SCALES[:2]}


@dataclass(frozen=True, kw_only=True)
class Config(segmentation.Config):
    """A segmentation probe of the last four layers; test scales are those of the preset."""

    def __post_init__(self) -> None:
        """Fill in the protocol."""
        self.fill_in(MULTISCALE.get(self.data_set, MULTISCALE["rooms"]))


def evaluate(encoder: Encoder, config: DenseProbeConfig) -> Result:
    """Probe segmentation at several scales; see `segmentation.evaluate`."""
    note = (
        "Frozen encoder, patch tokens of the last four layers, each after the final norm, beside each other; channel "
        "dropout 0.1, BatchNorm, 1x1 convolution to classes, bilinear upsampling of the logits; cross-entropy."
    )
    fit, protocol = config.fit or FIT_PRESETS[config.preset], MULTISCALE[config.data_set]
    layers, scales = last_layers(encoder.num_layers), SCALES[config.preset]
    return probe_segmentation(encoder, config, fit, "multiscale", protocol, note, layers, scales)
