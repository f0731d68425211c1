"""The two forms of a stage-3 step: plain TRL with LLaVA and a naive second channel, and this project's trainer.

Both read the same batches, start from the same weights, train the same parameters with the same optimizer in the same
number formats (the frozen language model, which they share, in bf16 on a GPU), and give the same loss.
"""

import contextlib
import copy
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset, load_dataset
from torch import nn
from transformers import (
    AutoTokenizer,
    Dinov2Config,
    Dinov2Model,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Trainer,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector
from trl import SFTTrainer

from experiments.tiny_models import save_tiny_language_model
from modeling_spatialboost import (
    SpatialBoostForConditionalGeneration,
    SpatialBoostImageProcessor,
    SpatialBoostModel,
    SpatialBoostProcessor,
)
from trainers.config import TrainingConfig
from trainers.stages import STAGES, apply_stage
from trainers.trainer import StageTrainer

PLAIN, OURS, COMPILED = "plain TRL", "ours", "ours compiled"
SIDE_PX, PATCH_PX = 224, 14
QWEN2 = {  # width, MLP width, layers, heads, key/value heads, vocabulary
    "1.5B": (1536, 8960, 28, 12, 2, 151936),
    "7B": (3584, 18944, 28, 28, 4, 152064),
}


class Case(NamedTuple):
    """A pair of models, ViT-L/14 (DINOv2) and a Qwen2, and what is put in.

    Attributes:
        language_model: key of `QWEN2`.
        narrower, shallower: what widths and depths of both are divided by, and the vocabulary by both, for a CPU: the
            head's share of the work, and the logits' size beside that of the layers' inputs, stay those of full size.
        views: of 224 px, per sample.
        batch: samples per step.
        micro_batch: samples in memory at once where activations are kept.
    """

    language_model: str
    narrower: int
    shallower: int
    views: int
    batch: int
    micro_batch: int

    @property
    def name(self) -> str:
        """For a table."""
        size = f" ({self.narrower} x narrower, {self.shallower} x shallower)" if self.narrower > 1 else ""
        return f"ViT-L + Qwen2-{self.language_model}{size}"


class TwoPassAttention(nn.Module):
    """Eq. 1 as a first reading of the paper gives it."""

    def __init__(self, attn: nn.Module, hidden_size: int) -> None:
        """`attn` is the encoder's own attention."""
        super().__init__()
        self.attn = attn
        self.attn_plus = copy.deepcopy(attn)
        self.alpha_logit = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """(B, N, d) -> (B, N, d), and the base channel's attention weights."""
        base, weights = self.attn(*args, **kwargs)
        plus, _ = self.attn_plus(*args, **kwargs)
        alpha = torch.sigmoid(self.alpha_logit)
        return alpha * base + (1 - alpha) * plus, weights


class PlainTrainer(SFTTrainer):
    """TRL's trainer with the loss that a model computes from all its logits: `model(..., labels=...)`."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """That of transformers' `Trainer`."""
        return Trainer.compute_loss(self, *args, **kwargs)


class Parts(NamedTuple):
    """What both forms share."""

    encoder: Dinov2Model
    language_model: Qwen2ForCausalLM
    processor: SpatialBoostProcessor
    dataset: Dataset


def make_parts(case: Case, samples: Path, device: str) -> Parts:
    """Random models, made on `device`, and the samples: `samples` is a folder that `save_samples` wrote."""
    config = "single_view" if case.views == 1 else "multi_view"
    dataset = load_dataset(str(samples / f"{case.views}_views"), config, split="train")
    dataset = dataset.select_columns(["images", "messages"])
    with tempfile.TemporaryDirectory() as folder:
        texts = [part["text"] or "" for row in dataset for turn in row["messages"] for part in turn["content"]]
        save_tiny_language_model(folder, texts, 2000, 32, 1)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    image_processor = SpatialBoostImageProcessor(size={"height": SIDE_PX, "width": SIDE_PX})
    processor = SpatialBoostProcessor.from_components(image_processor, tokenizer, PATCH_PX)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device(device):
        torch.manual_seed(0)
        encoder = Dinov2Model(encoder_config(case))
        language_model = Qwen2ForCausalLM._from_config(language_config(case, tokenizer), dtype=dtype)
    return Parts(encoder, language_model, processor, dataset)


def encoder_config(case: Case) -> Dinov2Config:
    """ViT-L/14's shapes, divided."""
    return Dinov2Config(
        hidden_size=1024 // case.narrower,
        num_hidden_layers=24 // case.shallower,
        num_attention_heads=max(1, 16 // case.narrower),
        image_size=SIDE_PX,
        patch_size=PATCH_PX,
        attn_implementation="sdpa",
    )


def language_config(case: Case, tokenizer: Any) -> Qwen2Config:
    """Qwen2's shapes, divided."""
    width, mlp_width, layers, heads, key_value_heads, vocabulary = QWEN2[case.language_model]
    num_heads = max(2, heads // case.narrower // 2 * 2)
    return Qwen2Config(
        hidden_size=width // case.narrower,
        intermediate_size=mlp_width // case.narrower,
        num_hidden_layers=layers // case.shallower,
        num_attention_heads=num_heads,
        num_key_value_heads=max(1, key_value_heads // case.narrower),
        vocab_size=max(vocabulary // case.narrower // case.shallower, len(tokenizer)),
        attn_implementation="sdpa",
        max_position_embeddings=32768,
        tie_word_embeddings=case.language_model != "7B",
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def save_samples(folder: Path, views: int, num_scenes: int) -> None:
    """Conversations of 12 turns about synthetic rooms, as `spatialboost build` makes them."""
    from dataset_builders.build import main as build  # needs the extra `data`, ready samples do not

    config = "single_view" if views == 1 else "multi_view"
    argv = ["--source", "synthetic", "--num-scenes", num_scenes, "--views", max(views, 2), "--configs", config]
    with contextlib.redirect_stdout(io.StringIO()):
        build([str(text) for text in [*argv, "--output", folder / f"{views}_views"]])


def own_modules(language_model: Qwen2ForCausalLM) -> Qwen2ForCausalLM:
    """The same weights in memory, in modules of their own, so that each form has its switches for itself."""
    return copy.deepcopy(language_model, {id(tensor): tensor for tensor in language_model.parameters()})


def plain_model(parts: Parts, projector: Any) -> LlavaForConditionalGeneration:
    """LLaVA around the encoder with a naive second channel; `projector` gives the weights."""
    encoder = copy.deepcopy(parts.encoder)
    for layer in encoder.encoder.layer:
        layer.attention = TwoPassAttention(layer.attention, encoder.config.hidden_size)
    config = LlavaConfig(
        vision_config=encoder.config,
        text_config=parts.language_model.config,
        image_token_index=parts.processor.image_token_id,
        vision_feature_layer=-1,
        attn_implementation="sdpa",
    )
    language_model = own_modules(parts.language_model)
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    model.model.vision_tower, model.model.language_model = encoder, language_model.model
    model.model.multi_modal_projector = LlavaMultiModalProjector(config).to(projector.linear_1.weight)
    model.model.multi_modal_projector.load_state_dict(projector.state_dict())
    model.lm_head = language_model.lm_head
    model.model.get_image_features = PatchFeatures(model.model)
    return model


class PatchFeatures:
    """Projected patch tokens behind the encoder's final norm, which LLaVA leaves out and this project reads."""

    def __init__(self, model: nn.Module) -> None:
        """`model` is a `LlavaModel`."""
        self.model = model

    def __call__(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """(num_images, 3, H, W) -> `pooler_output`: one (N, text hidden size) tensor an image."""
        tokens = self.model.vision_tower(pixel_values).last_hidden_state[:, 1:]  # without [CLS]
        return BaseModelOutputWithPooling(pooler_output=list(self.model.multi_modal_projector(tokens)))


def our_model(parts: Parts) -> SpatialBoostForConditionalGeneration:
    """This project's model around the boosted encoder."""
    encoder = SpatialBoostModel.from_encoder(copy.deepcopy(parts.encoder))
    model = SpatialBoostForConditionalGeneration.from_components(
        encoder, own_modules(parts.language_model), parts.processor
    )
    model.model.multi_modal_projector.float()  # as the recipe has it: what trains is kept in float32
    return model


class Form:
    """A trainer and its step."""

    def __init__(self, parts: Parts, device: str, name: str) -> None:
        """Build the model, freeze as stage 3 does, build the trainer and its optimizer.

        Args:
            parts: what the forms share.
            device: "cuda" or "cpu".
            name: `PLAIN`, `OURS` or `COMPILED`: ours with each layer of the language model compiled.
        """
        ours = name != PLAIN
        torch.manual_seed(0)  # of the projector
        model: PreTrainedModel = our_model(parts)
        model = model if ours else plain_model(parts, model.model.multi_modal_projector)
        apply_stage(model, 3)
        config = TrainingConfig(
            output_dir=tempfile.gettempdir(),  # nothing is written
            learning_rate=1e-5,
            bf16=device == "cuda",
            use_cpu=device == "cpu",
            report_to=["none"],
            disable_tqdm=True,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        settings = {"args": config, "train_dataset": parts.dataset, "processing_class": parts.processor}
        self.trainer = (
            StageTrainer(STAGES[3], model=model, **settings) if ours else PlainTrainer(model=model, **settings)
        )
        if name == COMPILED:
            for layer in model.model.language_model.layers:
                layer.compile(dynamic=True)
        self.model = model
        self.collate = self.trainer.data_collator
        self.wrapped, self.optimizer = self.trainer.accelerator.prepare(model, self.trainer.create_optimizer())

    def step(self, batch: dict[str, torch.Tensor], micro_batch: int, views: int) -> float:
        """Forward and backward, `micro_batch` samples at a time, and one optimizer step; returns the loss."""
        parts = list(split(batch, micro_batch, views))
        self.trainer.current_gradient_accumulation_steps = len(parts)
        tokens = (batch["labels"][:, 1:] != -100).sum()
        losses = [self.trainer.training_step(self.wrapped, part, num_items_in_batch=tokens) for part in parts]
        self.optimizer.step()
        self.optimizer.zero_grad()
        return sum(loss.item() for loss in losses)

    def checkpointing(self, on: bool) -> None:
        """Recompute activations in the backward pass, or keep them."""
        if on:
            self.model.activation_checkpointing_enable()
        else:
            self.model.activation_checkpointing_disable()

    def resident_bytes(self) -> int:
        """Weights and optimizer state."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        tensors += [x for state in self.optimizer.state.values() for x in state.values() if torch.is_tensor(x)]
        storages = {x.untyped_storage().data_ptr(): x.untyped_storage() for x in tensors}  # tied weights count once
        return sum(storage.nbytes() for storage in storages.values())


def split(batch: dict[str, torch.Tensor], size: int, views: int) -> Iterator[dict[str, torch.Tensor]]:
    """Micro-batches of `size` samples of `views` images; padding stays as it is."""
    for start in range(0, len(batch["input_ids"]), size):
        rows, images = slice(start, start + size), slice(start * views, (start + size) * views)
        yield {name: x[images if name == "pixel_values" else rows] for name, x in batch.items()}
