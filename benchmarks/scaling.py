"""How a stage-3 step's time grows with the length of the text, the number of views and the batch.

python -m benchmarks.scaling --smallest               # seconds; the test runs this
python -m benchmarks.scaling                          # CPU: ViT-L + Qwen2-1.5B, narrower and shallower; GPU: full size
python -m benchmarks.scaling --output scaling.json    # the rows, hardware and versions too

One of the three grows, the others stay; all lengths of a row take turns, step by step. "exponent" is the slope of
log(time) over log(size), over all sizes and over the last two: 1 is linear, below 1 is a share that does not grow.
"""

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.record import add_arguments, begin, save
from benchmarks.training import Variant, run
from benchmarks.training_forms import OURS, PATCH_PX, SIDE_PX, Case, Form, make_parts, save_samples

CPU_CASE, GPU_CASE, SMALLEST_CASE = (
    Case("1.5B", narrower, shallower, 1, 1, 1) for narrower, shallower in ((8, 4), (1, 1), (32, 14))
)
SIZES = {"text tokens": (256, 512, 1024, 2048, 4096), "views": (1, 2, 4, 8), "batch": (1, 2, 4, 8)}
FIXED = {"text tokens": 512, "views": 1, "batch": 1}
RECIPE = Variant(OURS, recomputes=True)


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.scaling", description=__doc__.split("\n")[0])
    parser.add_argument("--smallest", action="store_true", help="a tiny pair, three sizes each, 2 turns")
    parser.add_argument("--turns", type=int, default=7, help="steps of each size")
    parser.add_argument("--samples", type=Path, default=None, help="folder of samples; made here by default")
    add_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    arguments = make_parser().parse_args(argv)
    on_gpu = torch.cuda.is_available() and not arguments.smallest
    case = SMALLEST_CASE if arguments.smallest else GPU_CASE if on_gpu else CPU_CASE
    about = begin(arguments.threads, on_gpu, pair=case.name)
    turns, count = (2, 3) if arguments.smallest else (arguments.turns, None)
    with tempfile.TemporaryDirectory() as folder:
        samples = arguments.samples or Path(folder)
        if not (samples / "1_views").exists():
            save_samples(samples, 1, 2)
        parts = make_parts(case, samples, "cuda" if on_gpu else "cpu")
    form = Form(parts, "cuda" if on_gpu else "cpu", OURS)
    rows = [measure(form, case, name, sizes[:count], turns) for name, sizes in tqdm(SIZES.items(), disable=None)]
    print(table(rows))
    save(arguments.output, "scaling", argv, {**about, "rows": rows})
    return 0


def measure(form: Form, case: Case, name: str, sizes: tuple[int, ...], turns: int) -> dict[str, Any]:
    """One row: seconds of a step at each size (median), and the exponents."""
    settings = [FIXED | {name: size} for size in sizes]
    cases = [case._replace(views=setting["views"], batch=setting["batch"]) for setting in settings]
    batches = [make_batch(form, setting) for setting in settings]
    seconds: list[list[float]] = [[] for _ in sizes]
    for turn in range(turns + 1):
        for taken, one, batch in zip(seconds, cases, batches):
            start = time.perf_counter()
            run({OURS: form}, RECIPE, one, batch)
            if turn > 0:  # the first chooses kernels
                taken.append(time.perf_counter() - start)
    medians = [statistics.median(taken) for taken in seconds]
    return {
        "grows": name,
        "sizes": sizes,
        "tokens": [batch["input_ids"].numel() for batch in batches],
        "seconds": medians,
        "exponent": exponent(sizes, medians),
        "last_exponent": exponent(sizes[-2:], medians[-2:]),
    }


def make_batch(form: Form, setting: dict[str, int]) -> dict[str, torch.Tensor]:
    """Views, then text of random tokens of which every other carries loss."""
    config = form.model.config
    image = torch.full((setting["batch"], setting["views"] * (SIDE_PX // PATCH_PX) ** 2), config.image_token_index)
    text = torch.randint(10, 200, (setting["batch"], setting["text tokens"]))
    answers = torch.where(torch.arange(text.shape[1]) % 2 == 0, text, -100)
    ids = torch.cat([image, text], dim=1)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.rand(setting["batch"] * setting["views"], 3, SIDE_PX, SIDE_PX),
        "labels": torch.cat([torch.full_like(image, -100), answers], dim=1),
    }


def exponent(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """Slope of the least-squares line through (log size, log time)."""
    return float(np.polyfit([math.log(size) for size in sizes], [math.log(taken) for taken in seconds], 1)[0])


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    lines = ["| what grows | sizes | tokens in a step | seconds | exponent | of the last two |", "|" + "---|" * 6]
    for row in rows:
        seconds = ", ".join(f"{taken:.3g}" for taken in row["seconds"])
        lines.append(
            f"| {row['grows']} | {', '.join(map(str, row['sizes']))} | {', '.join(map(str, row['tokens']))} "
            f"| {seconds} | {row['exponent']:.2f} | {row['last_exponent']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
