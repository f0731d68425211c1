"""Bytes of a training step, counted while it runs: with real tensors, or with fake ones that take no memory."""

import weakref
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers.loss.loss_utils import ForCausalLMLoss
from trl.trainer.utils import add_fused_lm_head

from modeling_spatialboost import SpatialBoostForConditionalGeneration, SpatialBoostVLMConfig
from trainers.memory import Plan, Sample, meta_model
from trainers.stages import apply_stage


class Counted(NamedTuple):
    """Bytes that last from step to step, that are alive after the forward pass beside them, and at the peak."""

    lasting: int
    kept: int
    peak: int


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations made and that still live, and their peak."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        super().__init__()
        self.now, self.peak = 0, 0
        self.seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count what it made."""
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        if storage not in self.seen:
            self.seen.add(storage)
            size = storage.nbytes()
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.now -= size


class AnswerHead:
    """TRL's fused head over the answers only, as it scores them on a GPU; on a CPU it would score every token."""

    def __init__(self, model: SpatialBoostForConditionalGeneration) -> None:
        """`model` gives the weight of the head."""
        self.config, self.model = model.config, model
        add_fused_lm_head(self)

    def forward(self) -> None:
        """What TRL replaces."""

    def base_model(self, hidden_states: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        """What was computed before."""
        return SimpleNamespace(last_hidden_state=hidden_states)

    def get_output_embeddings(self) -> nn.Module:
        """The layer whose weight scores the vocabulary."""
        return self.model.lm_head


class FullLogits:
    """The loss of a plain model: all positions are scored, and accelerate returns the scores in float32."""

    def __init__(self, model: SpatialBoostForConditionalGeneration) -> None:
        """`model` gives the head."""
        self.model = model

    def forward(self, hidden_states: torch.Tensor, labels: torch.Tensor, **kwargs: Any) -> SimpleNamespace:
        """Scores are held in the dtype of autocast, in float32 and as their logarithms until the loss is there."""
        logits = self.model.lm_head(hidden_states)  # (1, L, vocabulary)
        loss = ForCausalLMLoss(logits, labels, logits.shape[-1])
        return SimpleNamespace(loss=loss, logits=logits.float())


def measure_on_gpu(config: SpatialBoostVLMConfig, plan: Plan, sample: Sample) -> int:
    """Peak bytes that torch's allocator gave out on the GPU in two accumulated batches and a step between them.

    Raises:
        ValueError: a quantised or a sharded plan.
    """
    if plan.quantize or plan.num_shards > 1:
        raise ValueError(f"{plan}: quantised and sharded plans are computed only.")
    torch.cuda.reset_peak_memory_stats()
    _two_batches(_trainable(config, plan), plan, sample, "cuda")
    return torch.cuda.max_memory_allocated()


def count_step(
    config: SpatialBoostVLMConfig, plan: Plan, sample: Sample, fake: bool, head: type = AnswerHead
) -> Counted:
    """Count the second step of a run on the CPU, in bf16 autocast, with gradients of the first one still there.

    Args:
        config: of the model, which gets random weights.
        plan: how it trains.
        sample: what a step works on.
        fake: count operations on tensors without memory; else compute in earnest.
        head: `AnswerHead`, or `FullLogits` for that of a plain model.
    """
    model = _trainable(config, plan)
    tensors = FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext()
    with tensors, LiveBytes() as live:
        return _two_batches(model, plan, sample, "cpu", live, head)


def _trainable(config: SpatialBoostVLMConfig, plan: Plan) -> SpatialBoostForConditionalGeneration:
    model = meta_model(config, plan)
    apply_stage(model, plan.stage)
    if plan.activation_checkpointing:
        older = "gradient_checkpointing_enable"  # its name in transformers 5.17
        enable = getattr(model, "activation_checkpointing_enable", None) or getattr(model, older)
        enable({"use_reentrant": False})
    return model.train()


def _two_batches(
    model: SpatialBoostForConditionalGeneration,
    plan: Plan,
    sample: Sample,
    device: str,
    live: LiveBytes | None = None,
    head_type: type = AnswerHead,
) -> Counted:
    live = LiveBytes() if live is None else live
    with torch.device(device):
        _materialise(model)
        head = head_type(model)
        optimizer = _optimizer(model, plan)
        _loss(model, head, sample, device).backward()
        optimizer.step()
        lasting = live.peak = live.now
        loss = _loss(model, head, sample, device)
        kept = live.now - lasting
        loss.backward()
    return Counted(lasting, kept, live.peak)


def _optimizer(model: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not plan.eight_bit_optimizer:
        return torch.optim.AdamW(parameters, fused=True)
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(parameters)


def _materialise(model: nn.Module) -> None:
    """Give a model on the meta device random tensors."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in made:
                values = torch.randn(parameter.shape, dtype=parameter.dtype).mul_(0.02)
                made[id(parameter)] = nn.Parameter(values, parameter.requires_grad)
            setattr(module, name, made[id(parameter)])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.ones(buffer.shape, dtype=buffer.dtype))


def _loss(model: SpatialBoostForConditionalGeneration, head: Any, sample: Sample, device: str) -> torch.Tensor:
    """Forward pass of one conversation, without the look at the text for places of image tokens."""
    side = sample.image_size_px
    with torch.autocast(device, torch.bfloat16):
        features = model.model.vision_features(torch.zeros(sample.num_images, 3, side, side))
        images = model.model.multi_modal_projector(features).flatten(0, 1)[None]
        words = torch.zeros(1, sample.num_tokens - images.shape[1], dtype=torch.long)
        text = model.get_input_embeddings()(words)
        tokens = torch.cat([images.to(text.dtype), text], dim=1)
        no_padding = {"full_attention": None}  # what transformers makes of a mask of ones, without looking at it
        text_model = model.model.language_model
        hidden = text_model(inputs_embeds=tokens, attention_mask=no_padding, use_cache=False).last_hidden_state
        scored = hidden if isinstance(head, FullLogits) else hidden[:, -sample.num_answer_tokens - 1 :]
        labels = torch.ones(scored.shape[:2], dtype=torch.long)
        output = head.forward(scored, labels=labels, fused_lm_head=True)
        return output.loss
