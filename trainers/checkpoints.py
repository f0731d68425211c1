"""Checkpoints: what they hold, how they appear on disk whole or not at all, and which of them a run goes on from.

A `checkpoint-N` holds the parameters that train, under the names that their modules have (`trained.safetensors`), and
the state of optimizer, schedule, random numbers and trainer. It is written to `.partial` beside it, and renamed.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import TrainingArguments
from transformers.trainer_utils import sort_checkpoints

TRAINED_FILE = "trained.safetensors"
STATE_FILE = "trainer_state.json"
PARTIAL = ".partial"  # folder in output_dir for what is not whole: being written, or being removed
NAMES_SHOWN = 3
NO_EVALUATION = "a stage has no evaluation set, `spatialboost evaluate` compares encoders"
REFUSED = {
    "eval_strategy": ("steps", "epoch", NO_EVALUATION),
    "save_strategy": ("best", NO_EVALUATION),
    "load_best_model_at_end": ("True", NO_EVALUATION),
    "save_only_model": ("True", "no run could go on from such a checkpoint"),
    "enable_jit_checkpoint": ("True", "SIGTERM saves a checkpoint anyway"),
}


def check_checkpoint_settings(training: TrainingArguments) -> None:
    """Refuse settings of transformers that this project's checkpoints cannot honour.

    Raises:
        ValueError: one is set.
    """
    for name, (*values, reason) in REFUSED.items():
        value = getattr(training, name)
        if str(getattr(value, "value", value)) in values:
            raise ValueError(f"{name}={value!r}: {reason}: remove it.")


def trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that train, by name; one that several modules share comes once."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_tensors(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Write the `trained.safetensors` of a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / TRAINED_FILE, metadata={"format": "pt"})


@torch.no_grad()
def load_tensors(tensors: dict[str, torch.Tensor], checkpoint: str | Path) -> None:
    """Copy a checkpoint into `tensors`.

    Raises:
        ValueError: it was cut off, or holds other parameters: it is of another stage or other settings.
    """
    path = Path(checkpoint) / TRAINED_FILE
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            wanted = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            if shapes != wanted:
                raise ValueError(_mismatch(checkpoint, shapes, wanted))
            for name, tensor in tensors.items():
                tensor.copy_(file.get_tensor(name))
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"resume_from_checkpoint={str(checkpoint)!r}: {TRAINED_FILE} cannot be read ({error}): go on from another "
            "checkpoint-N folder, or remove the argument to start from the beginning."
        ) from error


def find_checkpoint(training: TrainingArguments) -> str | None:
    """The checkpoint that `resume_from_checkpoint` names.

    "true" is the last whole one in `output_dir`, "auto" the same or, where there is none, a start from the beginning.

    Raises:
        ValueError: there is none.
    """
    wanted = str(training.resume_from_checkpoint or "false")
    if wanted.lower() == "false":
        return None
    if wanted.lower() in ("true", "auto"):
        folder = last_checkpoint(str(training.output_dir))
        if folder is None and wanted.lower() == "auto":
            return None
        place = f"in output_dir={training.output_dir!r}"
    else:
        folder, place = (wanted if is_whole(wanted) else None), "there"
    if folder is None:
        raise ValueError(
            f"resume_from_checkpoint={training.resume_from_checkpoint!r}: no checkpoint {place}; pass the path of a "
            "checkpoint-N folder, or remove the argument to start from the beginning."
        )
    return folder


def last_checkpoint(output_dir: str | Path) -> str | None:
    """The whole checkpoint of the highest step in a folder, None if there is none."""
    return next((folder for folder in reversed(sort_checkpoints(str(output_dir))) if is_whole(folder)), None)


def is_whole(checkpoint: str | Path) -> bool:
    """Whether a folder is a checkpoint that training can go on from."""
    names = {path.name for path in Path(checkpoint).iterdir()} if Path(checkpoint).is_dir() else set()
    # FSDP and DeepSpeed keep optimizer and weights in files and folders of their own
    sharded = any(name.startswith(("pytorch_model", "optimizer_", "global_step")) for name in names)
    return STATE_FILE in names and (sharded or {TRAINED_FILE, "optimizer.pt", "scheduler.pt"} <= names)


def partial_folder(output_dir: str | Path) -> Path:
    """Where a checkpoint, or the result of a run, is written before it gets its name."""
    return Path(output_dir) / PARTIAL


def remove_partial(output_dir: str | Path) -> None:
    """Remove what killed runs left behind."""
    shutil.rmtree(partial_folder(output_dir), ignore_errors=True)


def publish_checkpoint(written: Path, output_dir: Path) -> None:
    """Give a written checkpoint its name, in place of one that has it; it stays, also if the machine fails now."""
    _flush(written)
    target, replaced = output_dir / written.name, written.parent / "replaced"
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        os.rename(target, replaced)
    os.rename(written, target)
    _flush_folder(output_dir)
    remove_partial(output_dir)


def publish_result(written: Path, output_dir: Path) -> None:
    """Move what a finished run saved from `written` into `output_dir`, file by file, whole each.

    Weights that an earlier run left there under other names are removed: they would be read first.
    """
    _flush(written)
    names = {path.name for path in written.iterdir()}
    for path in output_dir.glob("model*.safetensors*"):
        if path.name not in names:
            path.unlink()
    for path in sorted(written.iterdir()):
        target = output_dir / path.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(path, target)
    _flush_folder(output_dir)
    remove_partial(output_dir)


def rotate(output_dir: Path, limit: int | None) -> None:
    """Keep the `limit` checkpoints that were written last (None or 0: all)."""
    if not limit:
        return
    for folder in sort_checkpoints(str(output_dir), use_mtime=True)[:-limit]:
        doomed = partial_folder(output_dir) / Path(folder).name
        doomed.parent.mkdir(exist_ok=True)
        os.rename(folder, doomed)  # so that half a checkpoint never has a checkpoint's name
    remove_partial(output_dir)


def is_write_error(error: Exception) -> bool:
    """Whether an error says that a file could not be written."""
    return isinstance(error, OSError | SafetensorError) or "PytorchStreamWriter" in str(error)


@contextmanager
def write_errors(output_dir: str | Path, what: str) -> Iterator[None]:
    """Turn a file that cannot be written into one sentence.

    Raises:
        ValueError: a disk is full, or forbids writing.
    """
    try:
        yield
    except Exception as error:
        if not is_write_error(error):
            raise
        remove_partial(output_dir)
        problem = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(not_written(output_dir, what, problem)) from error


def not_written(output_dir: str | Path, what: str, problem: str) -> str:
    """The sentence about something that could not be written, and from where to go on."""
    free = gigabytes(shutil.disk_usage(output_dir).free)
    return (
        f"output_dir={str(output_dir)!r}: {what} cannot be written ({problem}; {free} free): make space, and "
        f"{go_on(output_dir)}."
    )


def go_on(output_dir: str | Path) -> str:
    """How to resume the run in a folder."""
    last = last_checkpoint(output_dir)
    return f"go on with --resume_from_checkpoint {last}" if last else "start again"


def checkpoint_bytes(model: nn.Module, training: TrainingArguments) -> int:
    """Size of a checkpoint: what trains, and the two moments of AdamW (in 8 bits where `optim` says so)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    eight_bit = "8bit" in str(training.optim).lower()
    return sum(p.numel() * (p.element_size() + (2 if eight_bit else 2 * p.element_size())) for p in trained)


def model_bytes(model: nn.Module) -> int:
    """Size of a model's weights as they are saved: what is quantised is written in the head's dtype, unquantised."""
    sizes: dict[int, int] = {}  # a shared parameter is written once
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            sizes[id(parameter)] = parameter.numel() * parameter.element_size()
            if not parameter.is_floating_point():
                linear, head = cast(Any, module), cast(Any, model).lm_head
                sizes[id(parameter)] = linear.in_features * linear.out_features * head.weight.element_size()
    return sum(sizes.values())


def run_bytes(model: nn.Module, training: TrainingArguments, beside: nn.Module | None = None) -> int:
    """What a run writes at least: a checkpoint, the model at its end, and `beside`, a part that is saved once more."""
    checkpoint = checkpoint_bytes(model, training) if training.save_strategy != "no" else 0
    return checkpoint + model_bytes(model) + (model_bytes(beside) if beside is not None else 0)


def check_space(output_dir: str | Path, num_bytes: int, what: str) -> None:
    """Check that a disk can hold what will be written.

    Raises:
        ValueError: it cannot.
    """
    folder = Path(output_dir).absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise ValueError(
            f"output_dir={str(output_dir)!r}: {what} take {gigabytes(num_bytes)} and {gigabytes(free)} are free: make "
            "space there, or name a folder on another disk."
        )


def gigabytes(num_bytes: int) -> str:
    """A size for people."""
    return f"{num_bytes / 1e9:.3g} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.3g} MB"


def _mismatch(checkpoint: str | Path, found: dict[str, tuple], wanted: dict[str, tuple]) -> str:
    extra = sorted(found.keys() - wanted.keys())
    missing = sorted(wanted.keys() - found.keys())
    other = sorted(name for name in found.keys() & wanted.keys() if found[name] != wanted[name])
    parts = [
        f"{text} {', '.join(names[:NAMES_SHOWN])}" + (", ..." if len(names) > NAMES_SHOWN else "")
        for text, names in (("it holds", extra), ("it lacks", missing), ("it has other shapes of", other))
        if names
    ]
    return (
        f"resume_from_checkpoint={str(checkpoint)!r} does not fit what trains here ({'; '.join(parts)}): resume with "
        "the stage, tuning and boosted layers of the run that wrote it, or remove the argument to start anew."
    )


def _flush(folder: Path) -> None:
    """Wait until the disk has the files of a folder, and their names."""
    for path in folder.rglob("*"):
        _flush_folder(path)
    _flush_folder(folder)


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
