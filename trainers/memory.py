"""Bytes that a training step takes on each GPU, computed from the model's shapes; nothing is allocated.

`weights + gradients + optimizer states + kept activations + what comes and goes`, for bf16 mixed precision as
`spatialboost train` runs it: what trains and the whole encoder in float32, a frozen language model in bf16 or less.
Gradients are counted beside the activations, as they are from the second of several accumulated batches on.
`python -m benchmarks.memory` checks the formula against steps whose bytes are counted, and prints what fits where.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from modeling_spatialboost import SpatialBoostForConditionalGeneration, SpatialBoostVLMConfig
from trainers.low_rank import adapt_language_model
from trainers.stages import Stage

BITS_4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # NF4, a byte for each 64 weights, a float32 for each 256 of those bytes
EIGHT_BIT_STATE_FROM = 4096  # bitsandbytes keeps the states of smaller tensors in 32 bits
OWN_FLOAT32 = ("model.vision_tower.", "model.multi_modal_projector.")
HEAD_TILE = 32768  # words of the vocabulary that TRL's fused head scores at a time
HEAD_FORWARD, HEAD_BACKWARD = 22, 42  # bytes for each of these scores, counted without Triton, whose kernels save some


@dataclass(frozen=True)
class Sample:
    """What a GPU works on at a time: one conversation.

    Attributes:
        num_images: views.
        image_size_px: their side.
        num_tokens: of the whole text, image tokens included.
        num_answer_tokens: those that carry loss.
    """

    num_images: int = 4
    image_size_px: int = 224
    num_tokens: int = 2000
    num_answer_tokens: int = 400


@dataclass(frozen=True)
class Plan:
    """How a stage is run.

    Attributes:
        stage: what trains; in the encoder nothing, or the second channel of all layers.
        lora_rank: of the language model's LoRA, if the stage has one.
        quantize: 4bit, 8bit or None: of the frozen language model.
        eight_bit_optimizer: AdamW's states in 8 bits instead of float32.
        activation_checkpointing: keep the inputs of layers only.
        num_shards: GPUs that FSDP shards weights, gradients and states over.
    """

    stage: Stage
    lora_rank: int | None = None
    quantize: str | None = None
    eight_bit_optimizer: bool = False
    activation_checkpointing: bool = True
    num_shards: int = 1


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU: what stays, what a step keeps for its backward pass, and the most that comes and goes."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    passing: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.passing


def meta_model(config: SpatialBoostVLMConfig, plan: Plan) -> SpatialBoostForConditionalGeneration:
    """The model of a plan without memory."""
    with torch.device("meta"):
        model = SpatialBoostForConditionalGeneration(config)
        if plan.lora_rank is not None:
            adapt_language_model(model, plan.lora_rank)
    if not plan.stage.opens("language_model"):
        for name, parameter in model.named_parameters():
            if not name.startswith(OWN_FLOAT32) and plan.stage.group_of(name) is None:
                parameter.data = parameter.data.to(torch.bfloat16)
    return model


def compute_memory(config: SpatialBoostVLMConfig, plan: Plan, sample: Sample) -> Memory:
    """Bytes of a step.

    Raises:
        ValueError: the encoder trains in another way than through its second channel.
    """
    if plan.stage.trains("encoder"):
        raise ValueError(f"{plan.stage.description!r}: memory is computed for the second channel or a frozen encoder.")
    model = meta_model(config, plan)
    kept = _kept_in_projector(config, sample) + sum(
        layers.number * (layers.inputs if plan.activation_checkpointing else layers.kept + layers.copies)
        for layers in (_encoder(config, model, plan, sample), _text(config, model, plan, sample))
    )
    weights, gradients, optimizer = (part / plan.num_shards for part in _lasting(model, plan))
    return Memory(weights, gradients, optimizer, kept, _passing(config, model, plan, sample))


def _lasting(model: nn.Module, plan: Plan) -> tuple[float, float, float]:
    """Bytes of weights, gradients and optimizer states, unsharded."""
    weights = gradients = optimizer = 0.0
    for name, parameter in model.named_parameters():
        count = parameter.numel()
        if plan.stage.group_of(name) is not None:
            weights += 4 * count
            gradients += 4 * count
            small = count < EIGHT_BIT_STATE_FROM
            optimizer += count * (2 * (1 + 4 / 256) if plan.eight_bit_optimizer and not small else 8)
        else:
            weights += count * _frozen_bytes(name, parameter, plan)
    return weights, gradients, optimizer


def _frozen_bytes(name: str, parameter: torch.Tensor, plan: Plan) -> float:
    """Bytes for each number of a frozen parameter."""
    if name.startswith(OWN_FLOAT32):
        return 4
    if plan.quantize and ".layers." in name and parameter.ndim == 2:
        return BITS_4_BYTES if plan.quantize == "4bit" else 1 + 4 / parameter.shape[1]
    return 2


class _Layers(NamedTuple):
    """A stack of layers: how many, bytes that each keeps, of its input, of bf16 copies of its float32 weights."""

    number: int
    kept: float
    inputs: float
    copies: float


def _encoder(config: SpatialBoostVLMConfig, model: Any, plan: Plan, sample: Sample) -> _Layers:
    """Layers of the encoder, for each token of each image.

    With two channels, in units of d: inputs of two norms in float32 (8), q, k, v and result of both channels (16),
    inputs of the second channel's four projections (8), the difference of the channels (2). The MLP keeps what goes
    into its activation, and with a gate also both factors. Checkpointed, a frozen encoder keeps its inputs too.
    """
    vision = config.vision_config.backbone_config
    patches = (sample.image_size_px // vision.patch_size) ** 2
    tokens = sample.num_images * (patches + 1 + getattr(vision, "num_register_tokens", 0))
    inputs = 4 * vision.hidden_size * tokens
    if not plan.stage.trains("attn_plus"):
        return _Layers(vision.num_hidden_layers, 0, inputs, 0)
    hidden = 6 if getattr(vision, "use_gated_mlp", False) else 2
    kept = (34 * vision.hidden_size + hidden * vision.intermediate_size) * tokens
    return _Layers(
        vision.num_hidden_layers, kept, inputs, _copies(model.vision_tower, plan) / vision.num_hidden_layers
    )


def _text(config: SpatialBoostVLMConfig, model: Any, plan: Plan, sample: Sample) -> _Layers:
    """Layers of the language model, for each token.

    Frozen: inputs of two norms in float32 (8 d), q and result of the attention (4 d), its k and v; in the MLP the
    gate, its activation and the other factor (6 m). LoRA: also the input of each projection (12 d + 2 m). Whole
    weights: also these, and the results of the norms in float32 (8 d).
    """
    text = config.text_config
    heads = text.num_key_value_heads / text.num_attention_heads
    kept = (12 + 4 * heads) * text.hidden_size + 6 * text.intermediate_size
    whole = plan.stage.opens("language_model")
    if whole or plan.lora_rank is not None:
        kept += (20 if whole else 12) * text.hidden_size + 2 * text.intermediate_size
    inputs = (4 if whole else 2) * text.hidden_size
    copies = _copies(model.model.language_model, plan) / text.num_hidden_layers
    tokens = sample.num_tokens
    return _Layers(text.num_hidden_layers, kept * tokens, inputs * tokens, copies)


def _copies(part: nn.Module, plan: Plan) -> float:
    """Bytes of the bf16 copies that autocast makes of float32 matrices; FSDP2 gathers them in bf16 to begin with."""
    if plan.num_shards > 1:
        return 0
    linears = [module.weight for module in part.modules() if isinstance(module, nn.Linear)]
    return sum(2 * weight.numel() for weight in linears if weight.dtype == torch.float32)


def _kept_in_projector(config: SpatialBoostVLMConfig, sample: Sample) -> float:
    """Between encoder and language model, and behind it: inputs of the projector's layers, text, final norm."""
    width, text = config.vision_config.hidden_size, config.text_config.hidden_size
    vision = config.vision_config.backbone_config
    tokens = sample.num_images * (sample.image_size_px // vision.patch_size) ** 2
    copies = 2 * (width * text + text * text)
    return copies + tokens * (6 * width + 6 * text) + sample.num_tokens * 6 * text


def _passing(config: SpatialBoostVLMConfig, model: Any, plan: Plan, sample: Sample) -> float:
    """The most that comes and goes: at the end of the forward pass, in the head, or in the recomputed last layer."""
    text, answers = config.text_config, sample.num_answer_tokens
    words, whole = text.vocab_size * text.hidden_size, plan.stage.opens("language_model")
    layers = _text(config, model, plan, sample)
    trained = sum(
        2 * parameter.numel()
        for name, parameter in model.named_parameters()
        if plan.stage.group_of(name) and parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
    )
    cached = trained if plan.activation_checkpointing and plan.num_shards == 1 else 0
    tile = min(HEAD_TILE, text.vocab_size)
    forward = cached + tile * HEAD_FORWARD * answers
    head = tile * HEAD_BACKWARD * answers
    if whole:
        head += 4 * words + tile * 2 * text.hidden_size
    wide = 8 if whole or plan.lora_rank is not None else 4
    layer = layers.kept + layers.copies + wide * text.intermediate_size * sample.num_tokens
    if not plan.activation_checkpointing:
        layer = 0
    unpacked = 2 * text.hidden_size * text.intermediate_size if plan.quantize else 0
    return max(forward, head, layer + unpacked) + _gathered(config, model, plan)


def _gathered(config: SpatialBoostVLMConfig, model: Any, plan: Plan) -> float:
    """What FSDP2 puts together from all GPUs at a time: two layers and embeddings in bf16, the head as it is held."""
    if plan.num_shards == 1:
        return 0
    stacks = (
        (model.vision_tower, config.vision_config.num_hidden_layers),
        (model.model.language_model, config.text_config.num_hidden_layers),
    )
    layer = max(
        sum(p.numel() for name, p in part.named_parameters() if "embed" not in name) / count for part, count in stacks
    )
    words = config.text_config.vocab_size * config.text_config.hidden_size
    return 2 * (2 * layer + words) + (4 if plan.stage.opens("language_model") else 2) * words
