"""How the miniature's starting models are trained: transformers' loop, and a record of it beside the weights."""

import hashlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from trainers.models import provenance
from trainers.run_record import git_commit, package_versions, read_record, write_record


class Optimisation(NamedTuple):
    """What the two starting models are trained with: AdamW, a warm-up of 10 % and a cosine to zero."""

    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    device: str


class Course(NamedTuple):
    """How a training went: mean losses of its twentieths, and its seconds."""

    losses: list[float]
    seconds: float


def fit(
    model: nn.Module,
    num_items: int,
    optimisation: Optimisation,
    callbacks: Iterable[TrainerCallback] = (),
    collate: Callable[[list[int]], dict[str, Any]] | None = None,
) -> Course:
    """Train a module whose `forward(items=...)` gives `{"loss": ...}`; the loop and its bar are transformers'.

    Args:
        model: holds the data itself (as buffers, so that they are on its device) unless `collate` reads them.
        num_items: how many items it knows; a batch is numbers below that, (B,) int64.
        optimisation: its numbers.
        callbacks: of the trainer.
        collate: numbers of items -> what `forward` takes; None = the numbers themselves, as `items`.
    """
    on_cpu = optimisation.device == "cpu"
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        settings = TrainingArguments(
            output_dir=scratch,
            max_steps=optimisation.steps,
            per_device_train_batch_size=optimisation.batch_size,
            learning_rate=optimisation.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            weight_decay=0.05,
            seed=optimisation.seed,
            use_cpu=on_cpu,
            bf16=not on_cpu and torch.cuda.is_bf16_supported(),
            logging_steps=max(1, optimisation.steps // 20),
            save_strategy="no",
            report_to=[],
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            dataloader_drop_last=num_items >= optimisation.batch_size,
            label_names=[],
        )
        trainer = Trainer(
            model,
            settings,
            train_dataset=range(num_items),  # type: ignore[arg-type]
            data_collator=collate or (lambda items: {"items": torch.tensor(items)}),
            callbacks=[*callbacks],
        )
        trainer.train()
    losses = [round(entry["loss"], 4) for entry in trainer.state.log_history if "loss" in entry]
    return Course(losses, round(time.monotonic() - start, 1))


def command(main: Callable[[], int]) -> int:
    """Exit code of a command; a user's mistake is one sentence, without a traceback."""
    try:
        return main()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def start_weights(seed: int) -> None:
    """Make all random weights and draws that follow repeatable."""
    set_seed(seed)


def is_made(folder: Path, recipe: dict[str, Any]) -> bool:
    """Whether a folder holds the model of that recipe, finished; says so.

    Raises:
        ValueError: it holds that of another one.
    """
    record = read_record(folder)
    if record is None:
        return False
    differing = sorted(k for k in recipe.keys() | record["recipe"].keys() if recipe.get(k) != record["recipe"].get(k))
    if differing:
        raise ValueError(
            f"folder={str(folder)!r} holds a model whose recipe differs in {', '.join(differing)}: pass another "
            "folder, or remove this one."
        )
    print(f"Reusing {folder}")
    return True


def leave_record(folder: Path, recipe: dict[str, Any], course: Course, **findings: Any) -> None:
    """Write `run.json`, last of all: a folder that has it is finished."""
    record = {
        "status": "finished",
        "recipe": recipe,
        "losses": course.losses,
        "final_loss": course.losses[-1],
        "seconds": course.seconds,
        "hardware": hardware(recipe["device"]),
        "git_commit": git_commit(),
        "versions": package_versions(),
        "weights_sha256": provenance(str(folder)),
    }
    write_record(folder, record | findings)


def hardware(device: str) -> str:
    """The processor that trained, with the number of threads it was given."""
    if device != "cpu":
        return torch.cuda.get_device_name(torch.device(device))
    names = [line.split(":")[1] for line in _cpu_lines() if line.startswith("model name")]
    name = names[0].strip() if names else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} threads"


def _cpu_lines() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.is_file() else []


def fingerprint(data: Path, configs: Iterable[str]) -> str:
    """SHA-256 of the training files of some configurations of a data set."""
    digest = hashlib.sha256()
    for config in configs:
        for file in sorted((data / config).glob("train-*.parquet")):
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]
