"""What every log line of a run tells: speed, waiting, padding, memory, and how far the second channel has moved."""

import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from transformers import Trainer, TrainerCallback
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from modeling_spatialboost.dual_channel_attention import attention_modules
from modeling_spatialboost.modeling_spatialboost import SpatialBoostPreTrainedModel
from trainers.progress import show_progress

logger = logging.getLogger(__name__)


class Meters(TrainerCallback):
    """Counts what goes through the steps between two logs; only `read` waits for the device.

    The clock runs from the fetching of a step's batches to the end of the step: logging, evaluation and saving are
    left out, and a resumed run starts at zero.
    """

    def __init__(self, device: torch.device) -> None:
        """`device`: where the batches are."""
        self.device = device
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self.tokens = torch.zeros(2, dtype=torch.int64, device=self.device)  # all that are no padding, and answers
        self.positions = self.images = self.samples = 0
        self.seconds = self.waited_seconds = 0.0
        self._step_start = time.perf_counter()

    def start_step(self) -> None:
        """Start the clock; `on_step_end` stops it."""
        self._step_start = time.perf_counter()

    def fetch(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches, the time spent on getting them (with the copy to the device) counted as waiting."""
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.waited_seconds += time.perf_counter() - start
            yield batch

    def count(self, batches: list[dict[str, torch.Tensor]]) -> None:
        """Add up the batches of a step; what a kind of batch does not hold counts as none."""
        for batch in batches:
            images = batch.get("pixel_values", batch.get("vision_features"))  # (num_images, ...)
            self.images += 0 if images is None else len(images)
            text = batch.get("input_ids")  # (B, L)
            self.samples += len(next(iter(batch.values())) if text is None else text)
            if text is not None and "attention_mask" in batch and "labels" in batch:
                self.positions += text.numel()
                self.tokens += torch.stack([batch["attention_mask"].sum(), batch["labels"].ne(-100).sum()])

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start from zero, and note in the history where a run was resumed."""
        self.reset()
        if state.global_step:
            state.log_history.append({"resumed_at": state.global_step, "step": state.global_step})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the clock."""
        self.seconds += time.perf_counter() - self._step_start

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Rates of all processes together since the last call; every process must call it.

        Returns:
            `speed/*` per second; `data/waiting_share` of the time, in the process that waited longest for batches;
            `data/padding_share` of the positions; `memory/peak_gb` since the start, in the process with most:
            allocated on the accelerator, or resident where there is none.
        """
        own = [self.positions, self.images, self.samples, self.seconds, self.waited_seconds, peak_memory(self.device)]
        row = torch.cat([self.tokens.float(), torch.tensor(own, dtype=torch.float32, device=self.device)])
        rows = accelerator.gather(row[None]).cpu()  # (num_processes, 8)
        self.reset()
        tokens, answer_tokens, positions, images, samples = rows[:, :5].sum(dim=0).tolist()
        seconds, waited, memory = rows[:, 5:].amax(dim=0).tolist()
        if seconds == 0:
            return {}
        figures = {"speed/samples_per_second": samples / seconds, "speed/images_per_second": images / seconds}
        if positions:
            figures["speed/tokens_per_second"] = tokens / seconds
            figures["speed/answer_tokens_per_second"] = answer_tokens / seconds
            figures["data/padding_share"] = 1 - tokens / positions
        return figures | {"data/waiting_share": waited / seconds, "memory/peak_gb": memory / 1e9}


class WatchedTrainer(Trainer):
    """Adds the figures to every log line; TRL's trainers may come behind it as a second base."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Arguments are the trainer's own."""
        super().__init__(*args, **kwargs)
        self.meters = Meters(self.args.device)
        self.add_callback(self.meters)
        show_progress(self)
        self.channels = second_channels(self.model)  # before FSDP or DDP wraps the model
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        if self.channels and (is_deepspeed_zero3_enabled() or (plugin and plugin.fsdp_version == 1)):
            logger.warning("Alpha and distance per layer are not logged: ZeRO-3 and FSDP1 flatten the parameters.")
            self.channels = {}

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """As transformers', timed and counted."""
        self.meters.start_step()
        batches, num_items = super().get_batch_samples(self.meters.fetch(epoch_iterator), num_batches, device)
        self.meters.count(batches)
        return batches, num_items

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the figures where training is logged; evaluation and the summary at the end stay as they are."""
        if "loss" in logs:
            logs |= self.meters.read(self.accelerator) | channel_figures(self.channels)
        super().log(logs, start_time)


def second_channels(model: nn.Module) -> dict[int, Any]:
    """The boosted attention modules whose second channel trains, by the number of their layer."""
    for encoder in model.modules():
        if isinstance(encoder, SpatialBoostPreTrainedModel):
            attentions = attention_modules(encoder.backbone, encoder.config.backbone_config.model_type)
            numbered = {i: part for i, part in enumerate(attentions) if hasattr(part, "alpha_logit")}
            trained = {
                layer: attention for layer, attention in numbered.items() if attention.alpha_logit.requires_grad
            }
            if trained:
                return trained
    return {}


@torch.no_grad()
def channel_figures(channels: dict[int, Any]) -> dict[str, float]:
    """Where the second channel stands.

    Returns:
        For each layer `alpha/layer_NN/mean`, `min` and `max` over the channels of alpha = sigmoid(alpha_logit), and
        `distance/layer_NN` = ||W_plus - W|| / ||W||, Frobenius norms over the matrices of q, k, v and o together.
    """
    names, values = [], []
    for layer, attention in channels.items():
        alpha = torch.sigmoid(_whole(attention.alpha_logit).float())  # (d,)
        base = dict(attention.named_parameters())
        moved = size = alpha.new_zeros(())
        for name, plus in attention.attn_plus.named_parameters():
            if plus.ndim > 1:
                moved = moved + _whole((plus.float() - base[name].float()).square().sum())
                size = size + _whole(base[name].float().square().sum())
        names += [f"alpha/layer_{layer:02}/{figure}" for figure in ("mean", "min", "max")]
        values += [alpha.mean(), alpha.min(), alpha.max(), (moved / size).sqrt()]
        names.append(f"distance/layer_{layer:02}")
    return dict(zip(names, torch.stack(values).tolist())) if values else {}


def peak_memory(device: torch.device) -> int:
    """Peak memory of this process in bytes: allocated on a CUDA or XPU device, else resident."""
    if device.type in ("cuda", "xpu"):
        return torch.accelerator.max_memory_allocated(device)
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """What FSDP2 holds in shards, put together; every process must call it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
