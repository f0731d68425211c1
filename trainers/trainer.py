"""TRL's `SFTTrainer` with one learning rate per parameter group."""

from typing import Any

import torch
from torch import nn
from trl import SFTTrainer

from trainers.config import TrainingConfig
from trainers.feature_cache import CachedFeatureCollator
from trainers.feature_shards import FeatureCache
from trainers.stages import Stage


class StageTrainer(SFTTrainer):
    """Trains one stage; the loop, the loss and the collation are TRL's."""

    args: TrainingConfig

    def __init__(
        self, stage: Stage, args: TrainingConfig, features: FeatureCache | None = None, **kwargs: Any
    ) -> None:
        """Build the trainer.

        Args:
            stage: the row of `STAGES`, already applied to the model with `apply_stage`.
            args: optimisation.
            features: of the images, if the data set holds numbers in their place (`cache_features`).
            kwargs: of `SFTTrainer`: model, train_dataset, processing_class, callbacks.
        """
        self.stage = stage
        self.learning_rates = {group.name: args.learning_rate_of(group) for group in stage.groups}
        args.learning_rate = self.learning_rates[stage.groups[0].name]  # transformers wants one for its optimizer
        super().__init__(args=args, **kwargs)
        if features is not None:
            self.data_collator = CachedFeatureCollator(self.data_collator, features)  # type: ignore[has-type]

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Optimizer groups of the trainable parameters: `name`, `params`, `lr`, `weight_decay`.

        Norms and biases do not decay, as in transformers, and alpha never does.
        """
        decaying = set(self.get_decay_parameter_names(model))
        rows: list[dict[str, Any]] = []
        for group in self.stage.groups:
            decayed: list[nn.Parameter] = []
            undecayed: list[nn.Parameter] = []
            for name, parameter in model.named_parameters():
                if self.stage.group_of(name) == group:
                    (decayed if group.decays and name in decaying else undecayed).append(parameter)
            settings = {"name": group.name, "lr": self.learning_rates[group.name]}
            rows.append(settings | {"params": decayed, "weight_decay": self.args.weight_decay})
            rows.append(settings | {"params": undecayed, "weight_decay": 0.0})
        return [row for row in rows if row["params"]]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer that `args.optim` names, over `parameter_groups`."""
        if self.optimizer_cls_and_kwargs is None:  # type: ignore[has-type]
            model = self.model if model is None else model
            optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer_cls_and_kwargs = optimizer_class, settings | {"params": self.parameter_groups(model)}
        return super().create_optimizer(model)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the learning rate of each group; a schedule scales all of them alike."""
        if "learning_rate" in logs:
            factor = logs["learning_rate"] / self.learning_rates[self.stage.groups[0].name]
            logs |= {f"learning_rate/{name}": factor * rate for name, rate in self.learning_rates.items()}
        super().log(logs, start_time)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: TRL's would call the model a text generator; ours is rendered when it is published."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load weights by `from_pretrained`, which knows the names that they were saved under.

        `Trainer` would compare raw names, and skip without an error the layers of encoders that transformers saves
        under other names than the modules have, DINOv3 among them: a resumed stage 3 would start from scratch.
        """
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        model = self.model if model is None else model
        saved = type(model).from_pretrained(resume_from_checkpoint, dtype=torch.float32)
        model.load_state_dict(saved.state_dict())
