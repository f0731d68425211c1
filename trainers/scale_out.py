"""What a run on several processes needs beyond transformers and accelerate.

DDP needs nothing. FSDP2 and DeepSpeed split the weights: here is how the model is split, and how it becomes whole.
"""

import atexit
import gc
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import datasets
import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from transformers import Trainer
from transformers.integrations import deepspeed as deepspeed_integration
from transformers.utils import logging as transformers_logging

from modeling_spatialboost import SpatialBoostForConditionalGeneration
from modeling_spatialboost.modeling_spatialboost_vlm import SpatialBoostVLMModel

Result = TypeVar("Result")


def speak_once() -> None:
    """Let the first process alone tell how the run goes; `torchrun` and `accelerate launch` number the processes."""
    if int(os.environ.get("RANK", "0")) > 0:
        logging.getLogger("trainers").setLevel(logging.ERROR)
        transformers_logging.disable_progress_bar()
        datasets.disable_progress_bars()


def compute_once(compute: Callable[[], Result]) -> Result:
    """What a function returns in the main process, in every process; each must call it."""
    values = [compute() if PartialState().is_main_process else None]
    return broadcast_object_list(values)[0]


def leave_at_exit() -> None:
    """Have this process leave the groups that a finished run shared with others, when it exits."""
    if dist.is_available() and dist.is_initialized():
        atexit.register(_leave)


def _leave() -> None:
    gc.collect()  # trainers hold groups in circles of references, and a group that is held keeps its threads
    if dist.is_initialized():
        dist.destroy_process_group()


def accumulation_steps(per_device: int, num_processes: int, total: int | None, given: int | None) -> int:
    """Batches that each process adds up before an optimizer step.

    Args:
        per_device: conversations of a batch.
        num_processes: that work on a step at the same time.
        total: conversations of a step over all processes (`total_batch_size`), None to leave it open.
        given: `gradient_accumulation_steps`, None to leave it open.

    Raises:
        ValueError: they do not agree, or the total cannot be made of whole batches.
    """
    if total is None:
        return 1 if given is None else given
    together = per_device * num_processes
    steps, rest = divmod(total, together)
    if rest or steps < 1:
        raise ValueError(
            f"total_batch_size={total} is no multiple of per_device_train_batch_size={per_device} times "
            f"{num_processes} processes, {together}: change one of the three."
        )
    if given not in (None, steps):
        raise ValueError(
            f"gradient_accumulation_steps={given} contradicts total_batch_size={total}, which takes {steps} with "
            f"per_device_train_batch_size={per_device} on {num_processes} processes: remove one of both."
        )
    return steps


def check_launch(optimizer: str) -> None:
    """Check what `accelerate launch` was told.

    Args:
        optimizer: name, as in `optim`.

    Raises:
        ValueError: settings with which a run would start from the wrong weights, or fail after loading.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise ValueError("fsdp_version=1: its flat parameters know no groups, set fsdp_version: 2.")
    if os.environ.get("FSDP_CPU_RAM_EFFICIENT_LOADING", "false").lower() == "true":
        raise ValueError(
            "fsdp_cpu_ram_efficient_loading=true leaves all processes but the first without the weights that a stage "
            "starts from: set it to false."
        )
    if "8bit" in optimizer or "paged" in optimizer:
        raise ValueError(f"optim={optimizer!r} cannot step split weights: pass --optim adamw_torch_fused.")


@contextmanager
def unsplit_loading() -> Iterator[None]:
    """Load models whole under ZeRO-3, which would split each weight as it is read.

    A second channel is a copy of the first, made on loading: there would be nothing to copy from. DeepSpeed splits the
    model when training starts, as it does under ZeRO-2.
    """
    reference = deepspeed_integration._hf_deepspeed_config_weak_ref
    deepspeed_integration.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed_integration._hf_deepspeed_config_weak_ref = reference


def settle_processes(trainer: Trainer) -> None:
    """Correct what accelerate would do with the model on several processes; call it before training."""
    model, arguments = trainer.model, trainer.args
    if arguments.world_size > 1 and isinstance(model, SpatialBoostForConditionalGeneration):
        model.model.register_forward_pre_hook(_use_projector, with_kwargs=True)
        # TRL has DDP look for unused parameters at each step; there are none but above a layer that is read in between
        trainer.accelerator.ddp_handler.find_unused_parameters = model.config.vision_feature_layer != -1
    if trainer.is_fsdp_enabled:
        _settle_fsdp(trainer.accelerator.state.fsdp_plugin, model)
    elif trainer.is_deepspeed_enabled and arguments.bf16:
        # By itself DeepSpeed rounds all weights to bf16, the frozen encoder's too. Autocast keeps them as they are.
        config = trainer.accelerator.state.deepspeed_plugin.deepspeed_config
        config |= {"bf16": {"enabled": False}, "torch_autocast": {"enabled": True, "dtype": "bfloat16"}}


def _use_projector(model: SpatialBoostVLMModel, inputs: Any, named: dict[str, Any]) -> Any:
    """Let the projector take part, with weight zero, in a batch without images.

    Processes wait for each other's gradients: what trains must have one in each of them.
    """
    projector = model.multi_modal_projector
    has_images = named.get("pixel_values") is not None or named.get("vision_features") is not None
    if has_images or not model.training or not projector.linear_1.weight.requires_grad:
        return None
    embeddings = model.get_input_embeddings()(named["input_ids"])  # (B, L, text hidden size)
    blank = embeddings.new_zeros(1, projector.shuffle**2, model.config.vision_config.hidden_size)
    nothing = 0 * projector(blank).sum().to(embeddings.dtype)
    return inputs, named | {"input_ids": None, "inputs_embeds": embeddings + nothing}


def _settle_fsdp(plugin: Any, model: nn.Module) -> None:
    modules = list(model.modules())
    layers = {name for module in modules for name in getattr(module, "_no_split_modules", None) or ()}
    # accelerate stops at a class that is named and not there, such as the text side of CLIP
    plugin.transformer_cls_names_to_wrap = sorted(layers & {type(module).__name__ for module in modules})
    policy = plugin.mixed_precision_policy
    if policy is not None:  # gradients are summed in float32, and losses do not pass through bf16
        plugin.mixed_precision_policy = MixedPrecisionPolicy(policy.param_dtype, torch.float32, None)
    model.register_forward_pre_hook(_gather_language_head)


def _gather_language_head(model: nn.Module, inputs: Any) -> None:
    """Gather the head before TRL's loss reads its weight: read while split, its gradient would not be summed."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if isinstance(head, FSDPModule):
        head.unshard()


@torch.no_grad()
def make_whole(trainer: Trainer) -> None:
    """Put whole weights on the CPU in the place of split ones, on the main process; training cannot go on.

    Every process must call it. Afterwards the model can be saved like any other; it is left alone where it is whole.
    """
    model = trainer.model
    zero_stage = trainer.accelerator.deepspeed_plugin.zero_stage if trainer.is_deepspeed_enabled else 0
    if not trainer.is_fsdp_enabled and zero_stage != 3:
        return
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    whole: dict[int, nn.Parameter] = {}  # a shared parameter stays shared
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in whole:
                tensor = _gather(parameter, trainer.is_world_process_zero())
                whole[id(parameter)] = nn.Parameter(tensor, parameter.requires_grad)
            module._parameters[name] = whole[id(parameter)]
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.__class__ = type(module).__mro__[2]  # its own class, under which it is saved


def _gather(parameter: nn.Parameter, keep: bool) -> torch.Tensor:
    """The whole of a split parameter on the CPU; an empty tensor where it is not kept."""
    if isinstance(parameter, DTensor):
        tensor = parameter.full_tensor()
        return tensor.cpu() if keep else tensor.new_empty(0)
    if not hasattr(parameter, "ds_id"):
        return parameter.detach().cpu()
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().cpu().clone() if keep else parameter.new_empty(0)
