"""Monocular depth through a DPT head on four layers of a frozen encoder: DINOv2's and DINOv3's public recipe."""

import dataclasses
from dataclasses import dataclass
from functools import partial

from evaluators import depth
from evaluators.contract import Result
from evaluators.dense_heads import DPTDepthHead, even_layers
from evaluators.depth import METRICS, aggregate, check, draw, probe_depth
from evaluators.encoders import Encoder

__all__ = ["METRICS", "Config", "aggregate", "check", "draw", "evaluate"]

FIT_PRESETS = {
    "full": dataclasses.replace(depth.FIT_PRESETS["full"], learning_rate=1e-4),
    "cpu": dataclasses.replace(depth.FIT_PRESETS["cpu"], steps=100, batch_size=8, learning_rate=1e-3, warmup_steps=30),
}
WIDTHS, BINS = {"full": 256, "cpu": 32}, {"full": 256, "cpu": 32}


@dataclass(frozen=True, kw_only=True)
class Config(depth.Config):
    """A depth probe with a DPT head.

    Attributes:
        width: channels of the decoder, and depth bins; 0 = the preset's, 256 in the published recipe.
    """

    width: int = 0
    num_bins: int = 0

    def __post_init__(self) -> None:
        """Fill in the preset's width, too."""
        super().__post_init__()
        object.__setattr__(self, "width", self.width or WIDTHS[self.preset])
        object.__setattr__(self, "num_bins", self.num_bins or BINS[self.preset])


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Probe depth with a DPT head; see `depth.evaluate`."""
    layers = even_layers(encoder.num_layers, config.upstream_compat)
    note = (
        f"Frozen encoder, patch tokens of layers {', '.join(str(layer + 1) for layer in layers)} of "
        f"{encoder.num_layers}, each after the final norm; DPT decoder of width {config.width} (transformers' "
        "modules), {config.num_bins} uniform depth bins, expectation; SigLoss."
    )
    make_head = partial(DPTDepthHead, width=config.width)
    fit = config.fit or FIT_PRESETS[config.preset]
    return probe_depth(encoder, config, fit, "dpt", make_head, note, layers)
