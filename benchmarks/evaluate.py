"""Speed and memory of evaluation: features beside the bare encoder, cached probes, 13 heads beside one, peak memory.

python -m benchmarks.evaluate --smallest             # seconds; the test runs this
python -m benchmarks.evaluate                        # CPU: ViT-S at 224 px; GPU: ViT-S and ViT-L
python -m benchmarks.evaluate --output evaluate.json # the rows, hardware and versions too

What is compared takes turns, so that whatever else the machine does hits it alike; a ratio is the median over the
turns. Beside the ratio of times stands that of CPU times, all threads together: what a busy machine leaves to compare,
though on a CPU it counts work that runs beside the encoder, too.
"""

import argparse
import io
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from transformers import DINOv3ViTImageProcessor

from benchmarks.encoder import SIZES, random_encoder
from benchmarks.record import add_arguments, begin, save
from benchmarks.training import resident_mib
from evaluators.encoders import Encoder, load_encoder
from evaluators.features import extract
from evaluators.heads import FitConfig, LinearDepthHead, SigLoss, fit_head
from evaluators.joint_heads import LEARNING_RATES, LinearFit, fit_joint_heads

EXTRACTION_AIM, PROBE_AIM = 1.1, 5.0
MIB = 2**20
Case = tuple[str, int, int]  # encoder size, side in pixels, batch
SMALLEST: list[Case] = [("tiny", 64, 2)]
ON_CPU: list[Case] = [("S", 224, 8), ("S", 224, 16), ("S", 224, 32)]
ON_GPU: list[Case] = [("S", 224, 32), ("S", 224, 256), ("L", 224, 32), ("L", 512, 16)]
# classes of the joint heads, and how many rows a step has
HEADS = [(10, 128), (100, 128), (1000, 1024)]


class Jpegs(Sequence[Image.Image]):
    """Photographs of 640x480, decoded when they are asked for; 32 different ones again and again."""

    def __init__(self, count: int) -> None:
        """Encode what is decoded later."""
        generator, self.length, self.files = np.random.default_rng(0), count, []
        for _ in range(min(count, 32)):
            small, file = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8), io.BytesIO()
            Image.fromarray(small).resize((640, 480)).save(file, "JPEG")
            self.files.append(file.getvalue())

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        """Return one RGB image."""
        if not 0 <= index < self.length:
            raise IndexError(index)
        return Image.open(io.BytesIO(self.files[index % len(self.files)])).convert("RGB")


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("--smallest", action="store_true", help="a tiny encoder, 3 turns, 10 and 20 images")
    parser.add_argument("--turns", type=int, default=10, help="of each comparison")
    parser.add_argument("--remember", type=int, nargs=2, help=argparse.SUPPRESS)  # see `peak_memory`
    add_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    arguments = make_parser().parse_args(argv)
    if arguments.remember:
        print(json.dumps(remember(*arguments.remember)))
        return 0
    on_gpu = torch.cuda.is_available() and not arguments.smallest
    cases = SMALLEST if arguments.smallest else ON_GPU if on_gpu else ON_CPU
    about = begin(arguments.threads, on_gpu)
    turns, device = 3 if arguments.smallest else arguments.turns, "cuda" if on_gpu else "cpu"
    heads, counts = (HEADS[:1], (10, 20)) if arguments.smallest else (HEADS, (100, 1000))
    tables: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoder = make_encoder(folder, *cases[0][:2], device, torch.float32)
        parts: dict[str, list[Callable[[], dict[str, Any]]]] = {
            "features": [
                partial(features_row, case, dtype, device, turns, folder)
                for dtype in (torch.float32, torch.bfloat16)[: 1 + on_gpu]
                for case in cases
            ],
            "probe": [partial(probe_row, encoder, cases[0], turns)],
            "heads": [partial(heads_row, classes, rows, turns, device) for classes, rows in heads]
            + [partial(heads_with_encoder_row, encoder, cases[0], heads[-1][0], turns)],
            "memory": [partial(peak_memory, count, cases[0][1]) for count in counts],
        }
        for part, rows in parts.items():
            tables[part] = [row() for row in tqdm(rows, desc=part, disable=None)]
            print(f"\n{table(tables[part])}", flush=True)
    save(arguments.output, "evaluate", argv, {**about, **tables})
    return 0


def make_encoder(folder: Path, size: str, side_px: int, device: str, dtype: torch.dtype) -> Encoder:
    """A random ViT with its image processor."""
    place = folder / f"{size}_{side_px}"
    if not place.exists():
        random_encoder("dinov3", size, side_px, "sdpa").save_pretrained(place)
        DINOv3ViTImageProcessor(size={"height": side_px, "width": side_px}).save_pretrained(place)
    return load_encoder(str(place), None, device, dtype)


def compare(forms: dict[str, Callable[[], Any]], turns: int, on_gpu: bool) -> dict[str, Any]:
    """Median milliseconds of each form, and the median ratio of the second to the first, of time and of CPU time."""
    taken: list[list[tuple[float, float]]] = []
    for turn in range(turns + 1):
        times = []
        for form in forms.values():
            start, cpu_start = time.perf_counter(), time.process_time()
            form()
            if on_gpu:
                torch.cuda.synchronize()
            times.append((time.perf_counter() - start, time.process_time() - cpu_start))
        if turn:  # the first turn chooses kernels and warms caches
            taken.append(times)
    columns = [[times[place] for times in taken] for place in range(2)]
    ratios = [[second[kind] / max(first[kind], 1e-9) for first, second in taken] for kind in range(2)]
    return {
        **{f"{name}, ms": 1e3 * statistics.median(t[0] for t in column) for name, column in zip(forms, columns)},
        "ratio": statistics.median(ratios[0]),
        "ratio of CPU times": statistics.median(ratios[1]),
    }


def features_row(case: Case, dtype: torch.dtype, device: str, turns: int, folder: Path) -> dict[str, Any]:
    """Features of JPEGs into a file beside the bare encoder over pixels that are ready; per image."""
    size, side_px, batch = case
    on_gpu, encoder = device == "cuda", make_encoder(folder, size, side_px, device, dtype)
    images, resolution = Jpegs(64 * batch if on_gpu else max(2 * batch, 32)), (side_px, side_px)
    pixels = torch.stack([encoder.preprocessing(images[index], resolution) for index in range(batch)])
    pixels = pixels.to(encoder.device, encoder.dtype)

    def bare() -> None:
        with torch.inference_mode():
            for _ in range(len(images) // batch):
                encoder.model(pixel_values=pixels)

    forms = {
        "bare encoder": bare,
        "features": lambda: extract(encoder, images, resolution, batch, folder / "features.npy"),
    }
    label = {
        "encoder": f"ViT-{size}, {side_px} px, {str(dtype).removeprefix('torch.')}",
        "batch": batch,
        "images": len(images),
    }
    return label | compare(forms, turns, on_gpu) | {"aim": f"<= {EXTRACTION_AIM}"}


def probe_row(encoder: Encoder, case: Case, turns: int) -> dict[str, Any]:
    """A step of a linear depth head, with features made anew and with cached ones."""
    size, side_px, batch = case
    fit, resolution = FitConfig(4, batch, 1e-3, 1e-4, 0.99, warmup_steps=2), (side_px, side_px)
    images = Jpegs(fit.steps * batch)
    cached = extract(encoder, images, resolution)
    depth_m = torch.rand(len(images), side_px, side_px) * 9 + 0.5

    def train(features: torch.Tensor) -> None:
        loss, channels = SigLoss(1e-3, 10.0, 1), encoder.hidden_size
        fit_head(lambda: LinearDepthHead(channels, 256, 1e-3, 10.0), features, depth_m, loss, fit, 0, encoder.device)

    forms = {"cached": lambda: train(cached), "uncached": lambda: train(extract(encoder, images, resolution, batch))}
    label = {"encoder": f"ViT-{size}, {side_px} px", "batch": batch, "steps": fit.steps}
    return label | compare(forms, turns, encoder.device.type == "cuda") | {"aim": f">= {PROBE_AIM}"}


def heads_row(classes: int, rows: int, turns: int, device: str, width: int = 768, steps: int = 4) -> dict[str, Any]:
    """Steps of 13 linear heads beside as many of one, on cached features."""
    features, labels = torch.randn(rows, width), torch.randint(classes, (rows,))

    def train(rates: tuple[float, ...]) -> None:
        batches = itertools.repeat((features, labels), steps)
        fit_joint_heads(batches, width, classes, LinearFit(steps, rows, rates), 0, device)

    forms = {"one head": lambda: train(LEARNING_RATES[:1]), "13 heads": lambda: train(LEARNING_RATES)}
    label = {"features": f"cached, {width} wide", "classes": classes, "batch": rows, "steps": steps}
    return label | compare(forms, turns, device == "cuda") | {"aim": "about 1"}


def heads_with_encoder_row(encoder: Encoder, case: Case, classes: int, turns: int, steps: int = 2) -> dict[str, Any]:
    """The same with the encoder in the loop, as with augmentation."""
    size, side_px, batch = case
    images, labels = Jpegs(batch), torch.randint(classes, (batch,))

    def train(rates: tuple[float, ...]) -> None:
        def batches() -> Any:
            for _ in range(steps):
                pixels = torch.stack(
                    [encoder.preprocessing(images[index], (side_px, side_px)) for index in range(batch)]
                )
                yield encoder.pooled_features(pixels).flatten(1).clone(), labels

        fit_joint_heads(batches(), 2 * encoder.hidden_size, classes, LinearFit(steps, batch, rates), 0, encoder.device)

    forms = {"one head": lambda: train(LEARNING_RATES[:1]), "13 heads": lambda: train(LEARNING_RATES)}
    label = {"features": f"ViT-{size} in the loop, {side_px} px", "classes": classes, "batch": batch, "steps": steps}
    return label | compare(forms, turns, encoder.device.type == "cuda") | {"aim": "about 1"}


def peak_memory(count: int, side_px: int) -> dict[str, Any]:
    """What `remember` says in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.evaluate", "--remember", str(count), str(side_px)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def remember(count: int, side_px: int) -> dict[str, Any]:
    """Peak memory of extraction to disk and of training from there, above what the loaded encoder takes."""
    torch.set_num_threads(1)
    SIZES["one layer"] = (384, 1, 6)  # as wide as ViT-S, so that its features are as large
    with tempfile.TemporaryDirectory() as folder:
        encoder, size = make_encoder(Path(folder), "one layer", side_px, "cpu", torch.float32), (side_px, side_px)
        extract(encoder, Jpegs(16), size, 16, Path(folder) / "first.npy")
        row = {"images": count, "features, MiB": 0.0}
        reset_peak()
        before = resident_mib("VmRSS")
        features = extract(encoder, Jpegs(count), size, 16, Path(folder) / "features.npy")
        row |= {"features, MiB": features.nbytes / MIB, "extraction, peak MiB": resident_mib("VmHWM") - before}
        reset_peak()
        before, anonymous = resident_mib("VmRSS"), resident_mib("RssAnon")
        depth_m = torch.ones(1, 1, 1).expand(count, *(side // 16 for side in size)) * 2
        fit = FitConfig(count // 4 + 2, 16, 1e-3, 1e-4, 0.99, warmup_steps=2)
        fit_head(lambda: LinearDepthHead(384, 256, 1e-3, 10.0), features, depth_m, SigLoss(1e-3, 10.0, 1), fit, 0)
        row["training, peak MiB"] = resident_mib("VmHWM") - before
        row["of it not of the file, MiB"] = resident_mib("RssAnon") - anonymous
    return row


def reset_peak() -> None:
    """Let Linux count `VmHWM` from here on."""
    with suppress(OSError):  # where it may not be written, the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text("5")


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    cells = [[f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in cells)])


if __name__ == "__main__":
    sys.exit(main())
