"""LoRA on the encoder's attention (stage 3) or on the language model (stage 2), by peft.

The low-rank pairs are put into the model itself, without a wrapper around it, so that its class, its forward and the
names of all other weights stay; `take_out_adapters` and `merge_adapters` give the plain model back.
"""

import logging
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from modeling_spatialboost import SpatialBoostForConditionalGeneration, SpatialBoostModel
from modeling_spatialboost.channel_fusion import projection_names
from modeling_spatialboost.dual_channel_attention import attention_modules

logger = logging.getLogger(__name__)
ADAPTER = "default"  # peft's name of the one adapter


def adapt_encoder(model: SpatialBoostForConditionalGeneration, rank: int | None = None) -> None:
    """Put LoRA on q, k, v and o of every attention of the encoder.

    Args:
        model: its encoder has no second channel.
        rank: of the pairs; None = the one that trains as many parameters as the second channel would.

    Raises:
        ValueError: an attention whose projections LoRA would not reach.
    """
    linears = attention_linears(model.vision_tower)
    if rank is None:
        rank = matched_rank(model.vision_tower, linears)
        logger.info(f"LoRA of rank {rank} trains as many parameters of the encoder as its second channel would")
    _inject(model.vision_tower, list(linears), rank)


def adapt_language_model(model: SpatialBoostForConditionalGeneration, rank: int) -> None:
    """Put LoRA of that rank on every linear layer of the language model, without its head."""
    part = model.model.language_model
    _inject(part, [name for name, module in part.named_modules() if isinstance(module, nn.Linear)], rank)


def attention_linears(encoder: SpatialBoostModel) -> dict[str, nn.Linear]:
    """The projections of every attention of an encoder by their names in it.

    Raises:
        ValueError: an attention that uses the weights of a projection without calling it.
    """
    names = {module: name for name, module in encoder.named_modules()}
    linears: dict[str, nn.Linear] = {}
    for attention in attention_modules(encoder.backbone, encoder.config.backbone_config.model_type):
        projections = projection_names(attention)
        if not projections:
            raise ValueError(
                f"encoder_tuning='lora': {type(attention).__name__} has no q, k, v and output projections that LoRA "
                "could be put on; pass another encoder, or encoder_tuning='full'."
            )
        linears |= {f"{names[attention]}.{part}": attention.get_submodule(part) for part in projections}
    return linears


def matched_rank(encoder: SpatialBoostModel, linears: dict[str, nn.Linear]) -> int:
    """The rank whose number of trained parameters is nearest to that of Attn_plus and alpha on every layer."""
    attentions = attention_modules(encoder.backbone, encoder.config.backbone_config.model_type)
    second_channel = sum(
        sum(parameter.numel() for parameter in attention.parameters()) + (encoder.config.hidden_size or 0)
        for attention in attentions
    )
    per_rank = sum(linear.in_features + linear.out_features for linear in linears.values())
    return max(1, round(second_channel / per_rank))


def rank_of_adapters(model: nn.Module) -> int | None:
    """The rank of the low-rank pairs in a model, None where there are none."""
    return next((module.r[ADAPTER] for module in model.modules() if isinstance(module, LoraLayer)), None)


def take_out_adapters(model: nn.Module) -> dict[str, LoraLayer]:
    """Put the plain layers back; return what was taken out, by the layers' names."""
    adapters = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    for name, adapter in adapters.items():
        model.set_submodule(name, adapter.get_base_layer())
    for module in model.modules():
        module.__dict__.pop("peft_config", None)
    return adapters


@torch.no_grad()
def merge_adapters(model: nn.Module, adapters: dict[str, LoraLayer]) -> None:
    """Add the products of the low-rank pairs to the weights that now lie under their names, W + s B A in float32.

    Args:
        model: with plain, unquantised layers.
        adapters: what `take_out_adapters` gave.
    """
    for name, adapter in adapters.items():
        weight: Any = model.get_submodule(name).weight
        delta = adapter.get_delta_weight(ADAPTER).to(weight.device)
        weight.data = (weight.data.float() + delta).to(weight.dtype)


def _inject(part: nn.Module, names: list[str], rank: int) -> None:
    """Put pairs of that rank, scaled by 2, on the named linear layers; the second matrix of each starts at zero."""
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, bias="none", target_modules=names)
    inject_adapter_in_model(config, part, ADAPTER)
