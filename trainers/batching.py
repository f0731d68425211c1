"""Which rows share a batch: those of similar length, in an order that follows from seed and epoch alone."""

from typing import Any

from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback
from transformers.trainer_pt_utils import BatchRebalanceSampler, DistributedLengthGroupedSampler, LengthGroupedSampler


class LengthBatchedTrainer(Trainer):
    """Gives transformers' samplers (`train_sampling_strategy`) the column `length`, and the run's seed.

    So a resumed run sees the rows in the order of an undisturbed one, in every epoch and in several processes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Arguments are the trainer's own."""
        super().__init__(*args, **kwargs)
        self.add_callback(_EpochTeller())

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        # `train_dataset` has lost the columns that the model does not read, `length` among them
        sampler = super()._get_train_sampler(self.train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if isinstance(sampler, BatchRebalanceSampler):
            sampler.seed = seed
        elif isinstance(sampler, LengthGroupedSampler):  # draws from the global generator; its sibling has a seed
            return DistributedLengthGroupedSampler(
                sampler.batch_size, num_replicas=1, rank=0, seed=seed, lengths=sampler.lengths
            )
        return sampler


class _EpochTeller(TrainerCallback):
    """Tells the epoch to the sampler, however deep it lies.

    transformers and accelerate do not reach it where a run of several processes is resumed within an epoch.
    """

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        """Walk from the loader down to the sampler."""
        part = train_dataloader
        while part is not None:
            if hasattr(part, "set_epoch"):
                part.set_epoch(int(state.epoch or 0))
            part = getattr(part, "batch_sampler", None) or getattr(part, "sampler", None)
