"""The trainer of a baseline: as that of a stage, with checkpoints that also hold what changes without a gradient."""

import torch

from modeling_spatialboost.dual_channel_attention import is_second_channel
from trainers.parameter_groups import GroupedRatesTrainer


class BaselineTrainer(GroupedRatesTrainer):
    """Trains an encoder with the loss that its model computes; the loop is transformers'."""

    def checkpoint_tensors(self) -> dict[str, torch.Tensor]:
        """Decoder with its buffers, second channel and teacher: all but the frozen encoder."""
        state = self.accelerator.unwrap_model(self.model, keep_torch_compile=False).state_dict()
        return {
            name: tensor
            for name, tensor in state.items()
            if not name.startswith(("encoder.", "teacher_encoder.")) or is_second_channel(name)
        }
