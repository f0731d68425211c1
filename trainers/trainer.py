"""TRL's `SFTTrainer` with one learning rate per parameter group."""

from typing import Any

from trl import SFTTrainer

from trainers.config import TrainingConfig
from trainers.feature_cache import CachedFeatureCollator
from trainers.feature_shards import FeatureCache
from trainers.parameter_groups import GroupedRatesTrainer
from trainers.stages import Stage


class StageTrainer(GroupedRatesTrainer, SFTTrainer):
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

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: TRL's would call the model a text generator; ours is rendered when it is published."""
