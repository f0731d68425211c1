"""TRL's `SFTTrainer` with one learning rate per parameter group."""

from typing import Any

import torch
from torch import nn
from trl import SFTTrainer

from trainers.batching import LengthBatchedTrainer
from trainers.config import TrainingConfig
from trainers.feature_cache import CachedFeatureCollator
from trainers.feature_shards import FeatureCache
from trainers.parameter_groups import GroupedRatesTrainer
from trainers.stages import Stage


class StageTrainer(LengthBatchedTrainer, GroupedRatesTrainer, SFTTrainer):
    """Trains one stage; the loop, the loss and the collation are TRL's."""

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
        super().__init__(stage, args, **kwargs)
        if features is not None:
            self.data_collator = CachedFeatureCollator(self.data_collator, features)  # type: ignore[has-type]

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """TRL's, over the positions that carry loss only: the language head never sees the others.

        By itself TRL's fused head scores every position where there is no Triton, as on a CPU.
        """
        if not return_outputs and self.label_smoother is None:  # which both read all positions
            inputs = inputs | scored_positions(inputs["labels"])
        return super().compute_loss(model, inputs, return_outputs, **kwargs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: TRL's would call the model a text generator; ours is rendered when it is published."""


def scored_positions(labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """What makes the model give the K positions that carry loss only, and what follows each of them.

    Args:
        labels: (B, L), -100 where nothing is to be learned.

    Returns:
        `scored_positions` (B, L) and `shift_labels` (1, K).
    """
    following = labels[:, 1:]  # (B, L - 1); nothing follows the last position
    carries_loss = following != -100
    return {
        "scored_positions": nn.functional.pad(carries_loss, (0, 1)),
        "shift_labels": following[carries_loss][None],
    }
