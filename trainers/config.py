"""What a recipe may say: where a stage starts, its data, and its optimisation (TRL's `SFTConfig` with groups)."""

import os
from dataclasses import dataclass, field
from typing import Literal

from huggingface_hub.constants import HF_HOME
from transformers.utils import is_torch_bf16_gpu_available
from trl import SFTConfig

from trainers.alpha import ALPHA_SHARINGS
from trainers.checkpoints import check_checkpoint_settings
from trainers.progress import check_reporters
from trainers.quantization import CHOICES, require_bitsandbytes
from trainers.scale_out import accumulation_steps, check_launch
from trainers.stages import ENCODER_TUNINGS, ParameterGroup, Stage, get_stage

FEATURES_FOLDER = os.path.join(HF_HOME, "spatialboost", "features")


@dataclass
class StageArguments:
    """Where a stage starts and what it reads.

    Attributes:
        stage: 1, 2 or 3.
        objective: what the encoder learns from in stage 3; others than language have `BaselineArguments`.
        datasets: each "PATH[:CONFIG[:SPLIT]]"; PATH is a folder or a Hub id, SPLIT may be a slice ("train[:1000]").
        encoder, language_model: ids or folders that stage 1 joins by a new projector.
        image_size: side in pixels that stage 1 fixes for all stages.
        projector_shuffle: pixel shuffle of the projector that stage 1 fixes for all stages (default: 1, none).
        model: the vision-language model that stages 2 and 3 continue from.
        revision: of the encoder's repository (stage 1) or of the model's (stages 2, 3).
        boosted_layers: attention layers that stage 3 gives a second channel.
        encoder_tuning: what stage 3 trains of the encoder: dual_channel (default), full, lora, lora_matched (of the
            rank that trains as many parameters as the second channel would) or frozen.
        alpha_start: share of the first channel that stage 3 starts with, for every mixing weight (default: 0.5).
        alpha_sharing: what has a mixing weight of its own: each channel (default), head (as many neighbouring channels
            as a head is wide) or layer.
        lora_rank: of LoRA: on the encoder's attention in stage 3, on the language model in stage 2.
        quantize_language_model: 4bit or 8bit, where the language model's own weights are frozen.
        cache_features: stages 1 and 2: folder that keeps the frozen encoder's outputs, so that they are computed once;
            without a value, `spatialboost/features` in the Hub's cache folder.
        long_samples: what to do with rows that are longer than the language model's positions: refuse or drop.
        force: train again where `output_dir` holds a finished run, and start from a model that any stage trained.
    """

    stage: int = field(metadata={"help": "1 feature alignment, 2 visual instruction tuning, 3 encoder fine-tuning."})
    datasets: list[str] = field(
        metadata={"help": "One or more PATH[:CONFIG[:SPLIT]]; a split may be a slice such as train[:1000]."}
    )
    objective: str = field(
        default="language", metadata={"help": "language, or a baseline: depth, segmentation, masks, points, own."}
    )
    encoder: str | None = field(default=None, metadata={"help": "Stage 1: id or folder of the vision encoder."})
    language_model: str | None = field(default=None, metadata={"help": "Stage 1: id or folder of the language model."})
    image_size: int | None = field(
        default=None, metadata={"help": "Stage 1: side of the input images in pixels; null = the encoder's own."}
    )
    projector_shuffle: int | None = field(
        default=None, metadata={"help": "Stage 1: 2 joins each 2x2 patch tokens in front of the projector; null = 1."}
    )
    model: str | None = field(
        default=None, metadata={"help": "Stages 2 and 3: output folder (or id) of the stage before."}
    )
    revision: str | None = field(default=None, metadata={"help": "Revision of the encoder's or the model's Hub repo."})
    boosted_layers: list[int] | None = field(
        default=None, metadata={"help": "Stage 3: attention layers that get a second channel; null = all."}
    )
    encoder_tuning: str | None = field(
        default=None,
        metadata={"help": f"Stage 3: what of the encoder trains, {', '.join(ENCODER_TUNINGS)}; null = dual_channel."},
    )
    alpha_start: float | None = field(
        default=None, metadata={"help": "Stage 3: where the mixing weights start, between 0 and 1; null = 0.5."}
    )
    alpha_sharing: str | None = field(
        default=None,
        metadata={"help": f"Stage 3: one mixing weight for each {', '.join(ALPHA_SHARINGS)}; null = channel."},
    )
    lora_rank: int | None = field(
        default=None,
        metadata={"help": "Rank of LoRA on the language model (stage 2) or, by encoder_tuning, on the encoder."},
    )
    quantize_language_model: str | None = field(
        default=None, metadata={"help": "Stage 3, or stage 2 with lora_rank: hold it in 4bit or 8bit; null = neither."}
    )
    cache_features: str | None = field(
        default=None,
        metadata={
            "help": f"Stages 1 and 2: compute the frozen encoder's outputs once and keep them in this folder; without "
            f"a value: {FEATURES_FOLDER}.",
            "nargs": "?",
            "const": "true",
        },
    )
    long_samples: str = field(
        default="refuse",
        metadata={"help": "Rows longer than the language model's positions: refuse or drop. None is ever cut."},
    )
    force: bool = field(
        default=False,
        metadata={"help": "Train again where output_dir holds a finished run; start from a model of any stage."},
    )

    def __post_init__(self) -> None:
        """Check that the stage has what it starts from, and nothing that it would ignore."""
        if self.objective != "language":
            raise ValueError(f"objective={self.objective!r}: pass `BaselineArguments` for a baseline.")
        self._check_tuning()
        self._check_long_samples()
        if isinstance(self.datasets, str):  # a single entry in the YAML file
            self.datasets = [self.datasets]
        if str(self.cache_features).lower() in ("true", "false"):
            self.cache_features = FEATURES_FOLDER if str(self.cache_features).lower() == "true" else None
        if self.cache_features is not None and self.stage == 3 and self.encoder_tuning != "frozen":
            raise ValueError(
                f"cache_features={self.cache_features!r}: stage 3 trains the encoder, so its outputs change with "
                "every step: remove it."
            )
        needed = ("encoder", "language_model") if self.stage == 1 else ("model",)
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"{name}=None: stage {self.stage} starts from it, pass an id or a folder.")
        unused = ["model"] if self.stage == 1 else ["encoder", "language_model", "image_size", "projector_shuffle"]
        for name in [*unused, *(["boosted_layers"] if self.stage != 3 else [])]:
            if getattr(self, name) is not None:
                raise ValueError(f"{name}={getattr(self, name)!r} has no effect in stage {self.stage}: remove it.")

    @property
    def row(self) -> Stage:
        """What trains: the row of the stage."""
        return get_stage(self.stage, self.encoder_tuning, self.lora_rank)

    def _check_long_samples(self) -> None:
        if self.long_samples not in ("refuse", "drop"):
            raise ValueError(f"long_samples={self.long_samples!r}: pass refuse or drop.")

    def _check_alpha(self, tuning: str) -> None:
        for name in ("alpha_start", "alpha_sharing"):
            if getattr(self, name) is not None and (self.row.number != 3 or tuning != "dual_channel"):
                raise ValueError(
                    f"{name}={getattr(self, name)!r} has no effect without a second channel that trains: remove it."
                )
        if self.alpha_start is not None and not 0 < self.alpha_start < 1:
            raise ValueError(f"alpha_start={self.alpha_start}: pass a share between 0 and 1, such as 0.5.")
        if self.alpha_sharing not in (None, *ALPHA_SHARINGS):
            raise ValueError(f"alpha_sharing={self.alpha_sharing!r}: pass one of {', '.join(ALPHA_SHARINGS)}.")

    def _check_tuning(self) -> None:
        tuning = self.encoder_tuning or "dual_channel"
        if self.row.number != 3 and self.encoder_tuning is not None:
            raise ValueError(f"encoder_tuning={tuning!r} has no effect in stage {self.stage}: remove it.")
        if tuning != "dual_channel" and self.boosted_layers is not None:
            raise ValueError(
                f"boosted_layers={self.boosted_layers}: encoder_tuning={tuning!r} gives no layer a second channel, "
                "remove one of both."
            )
        self._check_alpha(tuning)
        if tuning == "lora" and self.lora_rank is None:
            raise ValueError("lora_rank=None: encoder_tuning='lora' needs one, such as 16.")
        if self.lora_rank is not None and (self.stage == 1 or (self.stage == 3 and tuning != "lora")):
            where = f"stage {self.stage}" + (f" with encoder_tuning={tuning!r}" if self.stage == 3 else "")
            raise ValueError(f"lora_rank={self.lora_rank} has no effect in {where}: remove it.")
        if self.lora_rank is not None and self.lora_rank < 1:
            raise ValueError(f"lora_rank={self.lora_rank}: pass at least 1.")
        quantize = self.quantize_language_model
        if quantize is None:
            return
        if quantize not in CHOICES:
            raise ValueError(f"quantize_language_model={quantize!r}: pass one of {', '.join(CHOICES)}.")
        if self.stage == 1 or self.row.opens("language_model"):
            remedy = "set lora_rank, or remove it" if self.stage == 2 else "remove it"
            raise ValueError(f"quantize_language_model={quantize!r}: not in a plain stage {self.stage}: {remedy}.")
        require_bitsandbytes(f"quantize_language_model={quantize!r}")


@dataclass
class TrainingConfig(SFTConfig):
    """TRL's `SFTConfig` with a rate for each group, and with what this project's conversations need as defaults.

    `learning_rate` is the peak rate of every group without a rate of its own; None takes the stage's from `STAGES`.
    `total_batch_size` is the number of conversations in an optimizer step, whatever the number of processes.
    bf16 mixed precision is used where the device has it, float32 elsewhere.
    """

    learning_rate: float | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Peak rate of every group without its own; null = the stage's own rates."}
    )
    projector_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak rate of the projector; null = learning_rate."}
    )
    alpha_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak rate of the mixing weights (stage 3); null = learning_rate."}
    )
    total_batch_size: int | None = field(
        default=None,
        metadata={"help": "Conversations of an optimizer step, over all processes; sets gradient_accumulation_steps."},
    )
    gradient_accumulation_steps: int | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Batches of a process in an optimizer step; null = as total_batch_size asks."}
    )
    max_length: int | None = field(default=None, metadata={"help": "Must stay null: cutting would drop image tokens."})
    assistant_only_loss: bool = field(default=True, metadata={"help": "Loss on the answers only."})
    gradient_checkpointing: bool | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Deprecated name of activation_checkpointing."}
    )
    activation_checkpointing: bool = field(
        default=True, metadata={"help": "Recompute activations in the backward pass, to save memory."}
    )
    logging_nan_inf_filter: bool = field(  # a loss that is no number stops the run, with the names of its rows
        default=False, metadata={"help": "Leave NaN losses out of the logs (they stop the run all the same)."}
    )
    report_to: list[str] = field(  # type: ignore[assignment]
        default_factory=lambda: ["trackio"],
        metadata={"help": "Where curves go: trackio (on this machine), tensorboard, wandb, several of them, or none."},
    )
    project: str = field(default="spatialboost", metadata={"help": "Name of the project in trackio."})
    # the order of the union is what transformers' parser of arguments can read
    trackio_static_space_id: str | None | Literal[False] = field(  # type: ignore[assignment]  # noqa: RUF036
        default=False, metadata={"help": "Static Space for the curves of a pushed model; false = they stay here."}
    )

    def __post_init__(self) -> None:
        """Settle precision by the device, then let TRL check the rest."""
        if self.output_dir is None:
            raise ValueError("output_dir=None: pass the folder that the trained model is saved in.")
        if self.max_length is not None:
            raise ValueError(
                f"max_length={self.max_length} would cut image tokens off long conversations: leave it null."
            )
        if self.push_to_hub:
            raise ValueError(
                f"push_to_hub={self.push_to_hub} would send weights unchecked: remove it, and afterwards run "
                f"`spatialboost publish model {self.output_dir} --repo-id ORG/NAME`."
            )
        check_checkpoint_settings(self)
        if self.dataloader_num_workers == 0:  # a recipe's workers may be turned off alone
            self.dataloader_prefetch_factor, self.dataloader_persistent_workers = None, False
        if self.bf16 is None:  # type: ignore[has-type]
            self.bf16 = not self.fp16 and not self.use_cpu and is_torch_bf16_gpu_available()
        if "8bit" in str(self.optim):
            require_bitsandbytes(f"optim={str(self.optim)!r}")
        check_launch(str(self.optim))
        given = self.gradient_accumulation_steps
        self.gradient_accumulation_steps = given or 1
        super().__post_init__()  # which finds out how many processes there are
        self.gradient_accumulation_steps = accumulation_steps(
            self.per_device_train_batch_size, self.world_size, self.total_batch_size, given
        )
        check_reporters(self.report_to)

    def learning_rate_of(self, group: ParameterGroup) -> float:
        """Peak learning rate of a group: its own, else `learning_rate`, else the stage's."""
        own = {"projector": self.projector_learning_rate, "alpha": self.alpha_learning_rate}.get(group.name)
        rates = (own, self.learning_rate, group.learning_rate)
        return next(rate for rate in rates if rate is not None)
