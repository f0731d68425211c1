"""Samples a second that the data loader gives beside those that the training step takes.

python -m benchmarks.data_loading --smallest             # seconds
python -m benchmarks.data_loading --threads 1            # CPU: ViT-S; GPU: ViT-L and a language model of 0.5B
python -m benchmarks.data_loading --output loading.json  # the rows, hardware and versions too

A sample is a conversation of 12 turns about one or four JPEGs of 640x480, from its Parquet file to the batch:
decoding, resizing, chat template, tokens, marks of the answers. The loader is drained by itself; the step has its
batch in memory. A device never waits where the loader gives more than the step takes; the share of a run that was
spent waiting is in its own log (`data/waiting_share`). Below the table are the parts of a sample, in CPU time.
"""

import argparse
import io
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image as PillowImage
from tqdm import tqdm

from benchmarks.feature_cache import ANSWER, FEATURES, QUESTION, save_models
from benchmarks.record import add_arguments, begin, save
from trainers.sft import make_parser as make_training_parser
from trainers.sft import prepare
from trainers.trainer import StageTrainer

TURNS = 12  # of a conversation
Model = tuple[str, int, int, int]  # encoder size, side in pixels, language model's width and layers
SMALLEST: Model = ("tiny", 64, 32, 2)
ON_CPU: Model = ("S", 224, 256, 4)
ON_GPU: Model = ("L", 224, 896, 24)


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.data_loading", description=__doc__.split("\n")[0])
    parser.add_argument("--smallest", action="store_true", help="a tiny model, 3 batches, no or one worker")
    parser.add_argument("--batches", type=int, default=12, help="batches drawn from the loader, and steps")
    parser.add_argument("--batch", type=int, default=4, help="conversations in a batch")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="numbers of loader processes")
    add_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    arguments = make_parser().parse_args(argv)
    on_gpu = torch.cuda.is_available() and not arguments.smallest
    model = SMALLEST if arguments.smallest else ON_GPU if on_gpu else ON_CPU
    workers = [0, 1] if arguments.smallest else arguments.workers
    batches = 3 if arguments.smallest else arguments.batches
    about = begin(arguments.threads, on_gpu)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for views in tqdm((1, 4), desc="views", disable=None):
            rows += measure(model, views, workers, batches, arguments.batch, Path(folder) / str(views), not on_gpu)
    print(table(rows))
    about |= {"encoder": f"ViT-{model[0]}, {model[1]} px", "language_model": f"{model[3]} layers of {model[2]}"}
    save(arguments.output, "data_loading", argv, {**about, "rows": rows})
    return 0


def measure(
    model: Model, views: int, workers: list[int], batches: int, batch: int, folder: Path, use_cpu: bool
) -> list[dict[str, Any]]:
    """A row for each number of workers."""
    save_models(folder, *model)
    save_rows(folder / "data", (batches + 2) * batch, views)
    taken = batch / step_seconds(make_trainer(folder, batch, 0, use_cpu), batches)
    rows: list[dict[str, Any]] = []
    for number in workers:
        given = batch / loader_seconds(make_trainer(folder, batch, number, use_cpu), batches)
        rows.append({"views": views, "workers": number, "loader": given, "step": taken})
    rows[0]["parts_ms"] = parts(make_trainer(folder, batch, 0, use_cpu), batch)
    return rows


def save_rows(folder: Path, num_rows: int, views: int) -> None:
    """Conversations about `views` JPEGs of 640x480."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(num_rows):
        images = []
        for _ in range(views):
            picture, file = generator.integers(0, 256, (48, 64, 3), dtype=np.uint8), io.BytesIO()
            PillowImage.fromarray(picture).resize((640, 480)).save(file, "JPEG")
            images.append({"bytes": file.getvalue(), "path": None})
        messages = []
        for turn in range(TURNS):
            shown = [{"type": "image", "text": None}] * (views if turn == 0 else 0)
            messages.append({"role": "user", "content": [*shown, {"type": "text", "text": QUESTION}]})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": ANSWER}]})
        rows.append({"images": images, "messages": messages})
    folder.mkdir(parents=True)
    Dataset.from_list(rows, features=FEATURES).to_parquet(folder / "train.parquet")


def make_trainer(folder: Path, batch: int, workers: int, use_cpu: bool) -> StageTrainer:
    """A trainer of stage 1 over the rows."""
    argv = ["--stage", "1", "--encoder", folder / "encoder", "--language_model", folder / "text", "--datasets"]
    argv += [folder / "data", "--output_dir", folder / "out", "--per_device_train_batch_size", batch, "--use_cpu"]
    argv += [use_cpu, "--activation_checkpointing", "false", "--report_to", "none", "--disable_tqdm", "true"]
    argv += ["--dataloader_num_workers", workers, "--dataloader_pin_memory", str(not use_cpu).lower()]
    run = prepare(*make_training_parser().parse_args_and_config([str(text) for text in argv]))
    assert run is not None, "nothing was trained in this folder"
    model, processor = run.parts
    return StageTrainer(
        run.arguments.row, run.training, model=model, train_dataset=run.dataset, processing_class=processor
    )


def loader_seconds(trainer: StageTrainer, batches: int) -> float:
    """Seconds a batch, of many drawn one after the other; the first one, which starts the workers, apart."""
    loader: Iterator[Any] = iter(trainer.get_train_dataloader())
    next(loader)
    start = time.perf_counter()
    drawn = sum(1 for _ in itertools.islice(loader, batches))
    return (time.perf_counter() - start) / drawn


def step_seconds(trainer: StageTrainer, steps: int) -> float:
    """Median seconds of a step whose batch is in memory."""
    wrapped, optimizer = trainer.accelerator.prepare(trainer.model, trainer.create_optimizer())
    trainer.current_gradient_accumulation_steps = 1
    batch = next(iter(trainer.get_train_dataloader()))
    seconds = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        loss = trainer.training_step(wrapped, dict(batch))
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def parts(trainer: StageTrainer, batch: int) -> dict[str, float]:
    """Milliseconds of CPU time that the parts of a sample take in this process (median of 5)."""
    processor, dataset = trainer.processing_class, trainer.train_dataset
    numbers = list(range(batch))
    examples = dataset.__getitems__(numbers)
    images = [image for example in examples for image in example["images"]]
    steps: dict[str, Callable[[], Any]] = {
        "read and decode": lambda: dataset.__getitems__(numbers),
        "resize and normalise": lambda: processor.image_processor(images, return_tensors="pt"),
        "collate in all": lambda: trainer.data_collator(examples),
    }
    found = {}
    for name, step in steps.items():
        seconds = []
        for _ in range(5):
            start = time.process_time()
            step()
            seconds.append(time.process_time() - start)
        found[name] = 1e3 * statistics.median(seconds) / batch
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, and the parts of a sample."""
    lines = ["| views | workers | loader, samples/s | step, samples/s | loader / step |", "|---" * 5 + "|"]
    for row in rows:
        ratio = row["loader"] / row["step"]
        lines.append(f"| {row['views']} | {row['workers']} | {row['loader']:.1f} | {row['step']:.1f} | {ratio:.2f} |")
    for row in rows:
        if "parts_ms" in row:
            told = ", ".join(f"{name} {milliseconds:.1f}" for name, milliseconds in row["parts_ms"].items())
            lines += ["", f"A sample of {row['views']} views, CPU ms: {told}."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
