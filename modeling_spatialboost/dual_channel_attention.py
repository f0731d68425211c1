"""Dual-channel attention: a frozen attention module and a trainable copy of it, mixed per channel.

`out = alpha * Attn(x) + (1 - alpha) * Attn_plus(x)`, `alpha = sigmoid(alpha_logit)` in (0, 1)^d
(SpatialBoost, arXiv 2603.22057, eq. 1).
"""

import copy
import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

from .channel_fusion import FusedChannels


class EncoderLayout(NamedTuple):
    """What must be known of an encoder to give its attention a second channel and to read its patch tokens.

    Attributes:
        attention: class names of its self-attention modules (pooling attention is left alone).
        final_norm: attribute of the norm behind the last layer, or None.
        normalised: whether `last_hidden_state` has already gone through that norm.
        any_size: whether it takes images of any size, by itself or with `interpolate_pos_encoding=True`.
        model_class: name of its transformers class where `AutoModel` does not know the type.
    """

    attention: tuple[str, ...]
    final_norm: str | None = None
    normalised: bool = True
    any_size: bool = True
    model_class: str | None = None


# The one table of where each encoder keeps its attention, by `config.model_type`.
ENCODERS = {
    "aimv2_vision_model": EncoderLayout(("Aimv2Attention",), "rms_norm", any_size=False),
    "clip_vision_model": EncoderLayout(("CLIPAttention",), "post_layernorm", normalised=False),
    "dinov2": EncoderLayout(("Dinov2Attention",), "layernorm"),
    "dinov2_with_registers": EncoderLayout(("Dinov2WithRegistersAttention",), "layernorm"),
    "dinov3_vit": EncoderLayout(("DINOv3ViTAttention",), "norm"),
    "ijepa": EncoderLayout(("IJepaAttention",), "layernorm"),
    "metaclip_2_vision_model": EncoderLayout(
        ("MetaClip2Attention",), "post_layernorm", normalised=False, model_class="MetaClip2VisionModel"
    ),
    "mlcd_vision_model": EncoderLayout(("MLCDAttention",), "post_layernorm", normalised=False),
    "pixio": EncoderLayout(("PixioAttention",), "layernorm"),
    "radio": EncoderLayout(("RadioAttention",)),
    "siglip_vision_model": EncoderLayout(("SiglipAttention",), "post_layernorm"),
    "siglip2_vision_model": EncoderLayout(("Siglip2Attention",), "post_layernorm"),
    "timm_wrapper": EncoderLayout(("Attention", "AttentionRope", "EvaAttention"), "timm_model.norm", any_size=False),
    "tipsv2_vision_model": EncoderLayout(("Tipsv2VisionAttention",), "layernorm"),
    "vit": EncoderLayout(("ViTAttention",), "layernorm"),
}


def encoder_layout(model_type: str) -> EncoderLayout:
    """The row of `ENCODERS` for `model_type`.

    Raises:
        ValueError: the type has no row: no attention (ConvNeXt), or windows that are not handled (Swin).
    """
    if model_type not in ENCODERS:
        raise ValueError(
            f"An encoder of model_type {model_type!r} cannot be boosted: it has no attention over all patches that we "
            f"know of. Use one of: {', '.join(ENCODERS)}."
        )
    return ENCODERS[model_type]


class DualChannelMixin:
    """Eq. 1, mixed into the class of a loaded attention module.

    The module itself stays the base channel, so that every weight of the encoder keeps its name and a plain
    checkpoint of the encoder loads unchanged; only `attn_plus.*` and `alpha_logit` (d,) are new.
    """

    attn_plus: nn.Module
    alpha_logit: nn.Parameter
    fused_channels: FusedChannels | None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Same inputs and outputs as the base channel; attention weights, where returned, are the base channel's.

        Raises:
            RuntimeError: the channels are fused and are to be trained.
        """
        if self.fused_channels is not None:
            if torch.is_grad_enabled() and any(
                parameter.requires_grad
                for parameter in self.parameters()  # type: ignore[attr-defined]
            ):
                raise RuntimeError("The channels are fused, for inference only: train after model.unfuse_channels().")
            return self.fused_channels(*args, **kwargs)
        base = super().forward(*args, **kwargs)  # type: ignore[misc]
        plus = self.attn_plus.forward(*args, **kwargs)  # not __call__: its hooks would record every attention twice
        alpha = torch.sigmoid(self.alpha_logit)
        if isinstance(base, tuple):
            return (mix(base[0], plus[0], alpha), *base[1:])
        return mix(base, plus, alpha)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        if self.fused_channels is not None:
            raise RuntimeError("The channels are fused: load weights after model.unfuse_channels(), then fuse again.")
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[misc]

    def __reduce__(self) -> tuple:
        """Pickle by the base class, since the mixed class is made at run time and has no importable name."""
        return _rebuild, (_base_class(self),), self.__dict__


def mix(base: torch.Tensor, plus: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """`alpha * base + (1 - alpha) * plus`, (B, N, d) each, exact where both are equal, also in bf16.

    Only the difference is kept for the backward pass; torch.lerp would keep both outputs.
    """
    return torch.addcmul(plus, base - plus, alpha.to(base.dtype))


def _rebuild(base_class: type) -> Any:
    return object.__new__(dual_channel_class(base_class))


@functools.cache
def dual_channel_class(base_class: Any) -> type:
    """The class of a boosted attention module whose base channel is of `base_class`."""
    return type(f"DualChannel{base_class.__name__}", (DualChannelMixin, base_class), {"__module__": __name__})


def attention_modules(encoder: nn.Module, model_type: str) -> list[nn.Module]:
    """The self-attention modules of `encoder`, first layer first, boosted ones included.

    Raises:
        ValueError: unknown `model_type`, or no such module inside (a convolutional timm model).
    """
    layout = encoder_layout(model_type)
    found = []
    for module in encoder.modules():
        base_class = _base_class(module)
        is_timm = model_type != "timm_wrapper" or base_class.__module__.startswith("timm.")
        if base_class.__name__ in layout.attention and is_timm:
            found.append(module)
    inner = {id(part) for module in boosted_modules(encoder) for part in module.modules() if part is not module}
    found = [module for module in found if id(module) not in inner]
    if not found:
        raise ValueError(
            f"This {model_type!r} encoder has no attention of class {' or '.join(layout.attention)}, so there is "
            f"nothing to boost. Use a vision transformer; these types work: {', '.join(ENCODERS)}."
        )
    return found


def _base_class(module: Any) -> type:
    mro = type(module).__mro__
    return mro[mro.index(DualChannelMixin) + 1] if DualChannelMixin in mro else mro[0]


def boost(attention: Any, hidden_size: int, alpha_logit_init: float = 0.0) -> None:
    """Give `attention` its second channel, an exact copy of itself, in place.

    Args:
        attention: a self-attention module, on any device, also meta.
        hidden_size: d, the size of its output.
        alpha_logit_init: start of `alpha_logit`; 0 mixes half and half. The output does not change whatever it is.
    """
    reference = next(p for p in attention.parameters() if p.is_floating_point())
    # one configuration for both channels, so that set_attn_implementation reaches the second one too
    config = getattr(attention, "config", None)
    attn_plus = copy.deepcopy(attention, {id(config): config})
    attention.__class__ = dual_channel_class(attention.__class__)
    attention.attn_plus = attn_plus
    attention.register_module("fused_channels", None)
    attention.alpha_logit = nn.Parameter(
        torch.full((hidden_size,), alpha_logit_init, device=reference.device, dtype=reference.dtype)
    )


def boosted_modules(model: nn.Module) -> list[Any]:
    """All boosted attention modules below `model`, first layer first."""
    return [module for module in model.modules() if isinstance(module, DualChannelMixin)]


def is_second_channel(parameter_name: str) -> bool:
    """Whether a parameter belongs to the trainable second channel (`attn_plus.*` or `alpha_logit`)."""
    return ".attn_plus." in parameter_name or parameter_name.endswith("alpha_logit")


def resolve_layers(boosted_layers: Iterable[int] | None, num_layers: int) -> list[int]:
    """Indices of the layers to boost: all for None; negative ones count from the end.

    Raises:
        ValueError: an index outside the encoder, or one named twice.
    """
    if boosted_layers is None:
        return list(range(num_layers))
    requested = list(boosted_layers)
    outside = [layer for layer in requested if not -num_layers <= layer < num_layers]
    layers = sorted({layer % num_layers for layer in requested if layer not in outside})
    if outside or len(layers) != len(requested):
        raise ValueError(
            f"boosted_layers={requested} does not fit an encoder of {num_layers} layers: "
            f"give each of 0..{num_layers - 1} at most once, or None for all."
        )
    return layers
