"""Steps of stages 1 and 2 from cached features beside the same steps with the encoder, in one run.

python -m benchmarks.feature_cache --smallest           # seconds
python -m benchmarks.feature_cache                      # CPU: ViT-S at 224 px; GPU: ViT-L at 224 px
python -m benchmarks.feature_cache --output cache.json  # the rows, hardware and versions too

Both trainers take turns, step by step, over the same rows, from the stored JPEG to the optimiser; the ratio is the
median over the turns. What is gained depends on the share of the encoder in a step: one forward over the image tokens,
beside the language model's forward and backward over all tokens, two forwards' worth of work in stage 1 (no weight
gradients) and three in stage 2. So "expected" is 1 + encoder parameters x image tokens / (2 or 3 x language model's
parameters x all tokens); decoding and resizing images, which are saved too, come on top.
"""

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PillowImage
from torch import nn
from tqdm import tqdm
from transformers import DINOv3ViTImageProcessor

from benchmarks.encoder import random_encoder
from benchmarks.record import add_arguments, begin, save
from experiments.tiny_models import save_tiny_language_model
from trainers.sft import make_parser as make_training_parser
from trainers.sft import prepare
from trainers.stages import STAGES
from trainers.trainer import StageTrainer

AIM = 3.0  # times as many steps in the same time
Case = tuple[str, int, int, int]  # encoder size, side in pixels, language model's width and layers
SMALLEST: list[Case] = [("tiny", 64, 32, 2)]
ON_CPU: list[Case] = [("S", 224, 128, 2), ("S", 224, 256, 4)]
ON_GPU: list[Case] = [("L", 224, 512, 8), ("L", 224, 896, 24), ("L", 224, 2048, 24)]
PART = {"type": Value("string"), "text": Value("string")}
FEATURES = Features({"images": List(Image()), "messages": List({"role": Value("string"), "content": List(PART)})})
QUESTION = "What is nearer to the camera, the chair or the table?"
ANSWER = "The chair, at 1.34 m; the table is at 2.05 m."


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.feature_cache", description=__doc__.split("\n")[0])
    parser.add_argument("--smallest", action="store_true", help="a tiny encoder, 3 turns")
    parser.add_argument("--turns", type=int, default=12, help="steps of each form in each row")
    parser.add_argument("--batch", type=int, default=4, help="conversations in a step, an image each")
    add_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    arguments = make_parser().parse_args(argv)
    on_gpu = torch.cuda.is_available() and not arguments.smallest
    cases = SMALLEST if arguments.smallest else ON_GPU if on_gpu else ON_CPU
    about = begin(arguments.threads, on_gpu)
    turns = 3 if arguments.smallest else arguments.turns
    todo = [(case, stage) for case in cases for stage in (1, 2)]
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            measure(case, stage, turns, arguments.batch, Path(folder) / str(number), not on_gpu)
            for number, (case, stage) in enumerate(tqdm(todo, desc="pairs", disable=None))
        ]
    print(table(rows))
    save(arguments.output, "feature_cache", argv, {**about, "rows": rows})
    return 0


def measure(case: Case, stage: int, turns: int, batch: int, folder: Path, use_cpu: bool) -> dict[str, Any]:
    """One row: milliseconds of a step with the encoder and from the cache (median), and their ratio."""
    size, side_px, width, num_layers = case
    save_models(folder, size, side_px, width, num_layers)
    save_rows(folder / "data", (turns + 2) * batch)
    forms = {
        "with the encoder": make_step(folder, stage, batch, use_cpu, []),
        "cached": make_step(folder, stage, batch, use_cpu, ["--cache-features", str(folder / "features")]),
    }
    seconds, differences = [], []
    for turn in range(turns + 2):
        steps = [timed(step) for step, _ in forms.values()]
        differences.append(abs(steps[0][1] - steps[1][1]))
        if turn >= 2:  # the first steps choose kernels and make the optimiser's state
            seconds.append([taken for taken, _ in steps])
    trainer = forms["cached"][1]
    encoder, text = trainer.model.vision_tower, trainer.model.model.language_model
    shape = trainer.data_collator([trainer.train_dataset[0]])
    image_tokens, all_tokens = shape["vision_features"].shape[1], shape["input_ids"].shape[1]
    text_parameters = count(text) - count(text.get_input_embeddings())
    work = (2 if stage == 1 else 3) * text_parameters * all_tokens
    return {
        "encoder": f"ViT-{size}, {side_px} px",
        "encoder_parameters": count(encoder),
        "text_parameters": text_parameters,
        "stage": stage,
        "tokens": [image_tokens, all_tokens],
        "milliseconds": {name: 1e3 * statistics.median(times) for name, times in zip(forms, zip(*seconds))},
        "ratio": statistics.median(a / b for a, b in seconds),
        "expected": 1 + count(encoder) * image_tokens / work,
        "largest_difference_of_losses": max(differences),
        "kilobytes_per_image": shape["vision_features"].nbytes / 1e3,
    }


def save_models(folder: Path, size: str, side_px: int, width: int, num_layers: int) -> None:
    """A random ViT and a random language model with a small vocabulary."""
    random_encoder("dinov3", size, side_px, "sdpa").save_pretrained(folder / "encoder")
    DINOv3ViTImageProcessor(size={"height": side_px, "width": side_px}).save_pretrained(folder / "encoder")
    save_tiny_language_model(folder / "text", [QUESTION, ANSWER], 1024, width, num_layers)


def save_rows(folder: Path, num_rows: int) -> None:
    """Conversations of three turns about one JPEG of 640x480."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(num_rows):
        picture, file = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8), io.BytesIO()
        PillowImage.fromarray(picture).resize((640, 480)).save(file, "JPEG")
        messages = []
        for turn in range(3):
            view = [{"type": "image", "text": None}] if turn == 0 else []
            messages.append({"role": "user", "content": [*view, {"type": "text", "text": QUESTION}]})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": ANSWER}]})
        rows.append({"images": [{"bytes": file.getvalue(), "path": None}], "messages": messages})
    folder.mkdir(parents=True)
    Dataset.from_list(rows, features=FEATURES).to_parquet(folder / "train.parquet")


def make_step(
    folder: Path, stage: int, batch: int, use_cpu: bool, more: list[str]
) -> tuple[Callable[[], float], StageTrainer]:
    """A step, loading included, that returns its loss, and the trainer that it belongs to."""
    argv = ["--stage", "1", "--encoder", folder / "encoder", "--language_model", folder / "text", "--datasets"]
    argv += [folder / "data", "--output_dir", folder / "out", "--per_device_train_batch_size", batch, "--use_cpu"]
    argv += [use_cpu, "--activation_checkpointing", "false", "--report_to", "none", "--disable_tqdm", "true", *more]
    run = prepare(*make_training_parser().parse_args_and_config([str(text) for text in argv]))
    assert run is not None, "nothing was trained in this folder"
    model, processor = run.parts
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():  # stage 2's freezing on stage 1's parts: no run in between
        parameter.requires_grad_(STAGES[stage].group_of(name) is not None)
    trainer = StageTrainer(
        STAGES[stage], run.training, run.features, model=model, train_dataset=run.dataset, processing_class=processor
    )
    wrapped, optimizer = trainer.accelerator.prepare(trainer.model, trainer.create_optimizer())
    trainer.current_gradient_accumulation_steps = 1
    batches: Iterator[dict[str, Any]] = iter(trainer.get_train_dataloader())

    def step() -> float:
        loss = trainer.training_step(wrapped, next(batches))
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step, trainer


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def timed(step: Callable[[], float]) -> tuple[float, float]:
    """Seconds that a step takes, and its loss, whose reading waits for a GPU."""
    start = time.perf_counter()
    loss = step()
    return time.perf_counter() - start, loss


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| encoder | encoder / language model, M parameters | stage | image / all tokens | with the encoder, ms | "
        f"cached, ms | ratio (aim {AIM:g}) | expected | losses differ by | kB an image |",
        "|---" * 10 + "|",
    ]
    for row in rows:
        times = row["milliseconds"]
        lines.append(
            f"| {row['encoder']} | {row['encoder_parameters'] / 1e6:.3g} / {row['text_parameters'] / 1e6:.3g} | "
            f"{row['stage']} | {row['tokens'][0]} / {row['tokens'][1]} | {times['with the encoder']:.1f} | "
            f"{times['cached']:.1f} | {row['ratio']:.2f} | {row['expected']:.2f} | "
            f"{row['largest_difference_of_losses']:.1g} | {row['kilobytes_per_image']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
