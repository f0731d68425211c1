"""Both channels as one attention with twice the heads, for inference.

They see the same input, so their six input projections are one matrix product, their heads lie side by side in one
attention call, and eq. 1 goes into one output projection:

`alpha * (W h + b) + (1 - alpha) * (W+ h+ + b+) = [alpha W, (1 - alpha) W+] [h; h+] + alpha b + (1 - alpha) b+`
"""

import copy
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.utils import logging

logger = logging.get_logger(__name__)

HEAD_COUNTS = ("num_heads", "num_attention_heads", "num_kv_heads", "attn_dim")  # what doubles with the heads


class FusionReport(NamedTuple):
    """Outcome of `fuse_channels`: the layers that were fused, and why each other boosted layer was not."""

    fused: list[int]
    refused: dict[int, str]


class FoldedLinear(nn.Linear):
    """A linear layer made from other weights: buffers that are never saved and never train."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Args are (out, in) and (out,)."""
        nn.Module.__init__(self)
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)


class Columns(nn.Module):
    """In the place of an input projection: its share of what was projected already, without a copy."""

    def __init__(self, start: int, stop: int) -> None:
        """The share is `[start, stop)` of the last axis."""
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, projected: torch.Tensor) -> torch.Tensor:
        """(B, N, all) -> (B, N, stop - start)."""
        return projected[..., self.start : self.stop]


class FusedChannels(nn.Module):
    """What a boosted attention computes, in one pass through its own class' forward with 2H heads."""

    @torch.no_grad()
    def __init__(self, attention: Any) -> None:
        """Take over the weights of a boosted `attention`; its q, k and v weights become views of the joined matrix."""
        super().__init__()
        channels = (attention, attention.attn_plus)
        *inputs, output = projection_names(attention)
        self.trainable = [name for name, parameter in attention.named_parameters() if parameter.requires_grad]
        self.projection = joined_inputs(channels, inputs)
        self.attention = copy.copy(attention.attn_plus)
        self.attention._modules = dict(attention.attn_plus._modules)
        for name in HEAD_COUNTS:
            if hasattr(self.attention, name):
                setattr(self.attention, name, 2 * getattr(self.attention, name))
        start = 0
        for name in inputs:
            stop = start + 2 * getattr(attention, name).out_features
            setattr(self.attention, name, Columns(start, stop))
            start = stop
        setattr(self.attention, output, mixed_outputs(channels, output, attention.alpha_logit))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Same inputs and outputs as the boosted attention; attention weights are the base channel's."""
        if args:
            args = (self.projection(args[0]), *args[1:])
        else:
            kwargs["hidden_states"] = self.projection(kwargs["hidden_states"])
        outputs = self.attention.forward(*args, **kwargs)  # not __call__: its hooks would record it as a layer
        if isinstance(outputs, tuple) and outputs[1] is not None:
            return outputs[0], outputs[1].chunk(2, dim=1)[0]
        return outputs


def projection_names(attention: nn.Module) -> list[str]:
    """Attributes of the input projections and, last, of the output projection; empty where they are not known."""
    inputs = ["qkv"] if getattr(attention, "qkv", None) is not None else ["q_proj", "k_proj", "v_proj"]
    # an attention of timm that does not know its width by itself takes the input's for the output
    outputs = ["o_proj", "out_proj"] + ["proj"] * hasattr(attention, "attn_dim")
    names = inputs + [name for name in outputs if hasattr(attention, name)]
    return names if len(names) > len(inputs) and all(getattr(attention, name, None) for name in names) else []


def joined_inputs(channels: tuple[Any, Any], names: list[str]) -> FoldedLinear:
    """The input projections of both channels as one: q, q+, k, k+, v, v+."""
    parts = 3 if names == ["qkv"] else 1
    linears = [[getattr(channel, name) for name in names] for channel in channels]
    weights = [[part for linear in row for part in linear.weight.chunk(parts)] for row in linears]
    weight = torch.cat([part for pair in zip(*weights) for part in pair])
    bias = None
    if any(linear.bias is not None for row in linears for linear in row):
        biases = [[part for linear in row for part in bias_of(linear).chunk(parts)] for row in linears]
        bias = torch.cat([part for pair in zip(*biases) for part in pair])
    if parts == 1:  # the weights lie there only once
        shares = iter(weight.split([linear.out_features for pair in zip(*linears) for linear in pair]))
        for pair in zip(*linears):
            for linear in pair:
                linear.weight.data = next(shares)
    return FoldedLinear(weight, bias)


def mixed_outputs(channels: tuple[Any, Any], name: str, alpha_logit: torch.Tensor) -> FoldedLinear:
    """The output projections of both channels as one, with alpha folded in at no less than fp32."""
    base, plus = (getattr(channel, name) for channel in channels)
    alpha = torch.sigmoid(alpha_logit.to(torch.promote_types(alpha_logit.dtype, torch.float32)))
    weight = torch.cat([alpha[:, None] * base.weight, (1 - alpha)[:, None] * plus.weight], dim=1)
    bias = None
    if base.bias is not None:
        bias = (alpha * base.bias + (1 - alpha) * plus.bias).to(base.bias.dtype)
    return FoldedLinear(weight.to(base.weight.dtype), bias)


def bias_of(linear: nn.Linear) -> torch.Tensor:
    """(out,); zeros where there is none, as for DINOv3's keys."""
    return linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias


def obstacle(attention: Any) -> str:
    """Why a boosted `attention` cannot be fused; empty where it can."""
    kind, names = type(attention.attn_plus).__name__, projection_names(attention)
    if not names:
        return f"{kind} has no q, k, v and output projections that could be joined"
    others = [name for name, _ in attention.attn_plus.named_parameters() if name.rpartition(".")[0] not in names]
    if others:
        return f"{kind} has parameters besides its projections: {', '.join(others)}"
    linears = [getattr(channel, name) for channel in (attention, attention.attn_plus) for name in names]
    for linear in linears:
        if type(linear) is not nn.Linear:  # quantised, or with an adapter
            return f"a projection is a {type(linear).__name__} instead of a plain Linear"
    if any("forward" in vars(module) for module in attention.modules()):
        return "its forward was replaced, as accelerate does for a model on several devices"
    if any(type(parameter.data) is not torch.Tensor or parameter.is_meta for parameter in attention.parameters()):
        return "its weights are sharded, offloaded or on the meta device"
    if len({linear.weight.dtype for linear in linears}) > 1:
        return "its channels have different dtypes"
    return ""


def fuse(attentions: Iterable[Any]) -> FusionReport:
    """Fuse the boosted ones among an encoder's attention modules, in place; see `SpatialBoostModel.fuse_channels`."""
    report = FusionReport([], {})
    for layer, attention in enumerate(attentions):
        if not hasattr(attention, "attn_plus"):
            continue
        unfuse(attention)
        reason = obstacle(attention)
        if reason:
            report.refused[layer] = reason
            continue
        attention.fused_channels = FusedChannels(attention)
        attention.requires_grad_(False)
        report.fused.append(layer)
    if report.refused:
        logger.warning(
            f"{len(report.refused)} of {len(report.refused) + len(report.fused)} boosted layers stay on the path with "
            f"two passes: {'; '.join(sorted(set(report.refused.values())))}."
        )
    return report


def unfuse(attention: Any) -> None:
    """Undo `fuse` for one boosted attention: the same parameters, bit for bit, in memory of their own."""
    fused = attention.fused_channels
    if fused is None:
        return
    attention.fused_channels = None
    for name, parameter in attention.named_parameters():
        if parameter.untyped_storage().nbytes() != parameter.nbytes:
            parameter.data = parameter.data.clone()
        parameter.requires_grad_(name in fused.trainable)
