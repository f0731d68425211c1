"""A stage-3 step (forward, backward, optimizer) of this project beside the same pair through plain TRL, in one run.

python -m benchmarks.training --smallest                 # seconds; the test runs this
python -m benchmarks.training                            # CPU: smaller Qwen2-1.5B and 7B; GPU: full size
python -m benchmarks.training --output training.json     # the rows, hardware and versions too

"plain TRL" is LlavaForConditionalGeneration whose encoder has a naive second channel (both attention modules called,
`alpha * a + (1 - alpha) * b`), and the loss from all logits. Both forms train the same parameters from the same
weights on the same batches (12-turn conversations from `spatialboost build`) in the same number formats; on a GPU the
frozen language model, shared by both, is in bf16, all else in float32 under bf16 autocast. Each runs twice:
activations recomputed in the backward pass with the whole batch in memory (TRL's default and the recipe), and
activations kept, the same batch in micro-batches. All take turns, step by step; times are medians. Peak memory is that
of weights, optimizer and a step: what the allocator gave on a GPU, resident memory of an own process on a CPU.
"""

import argparse
import gc
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
import trl
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks.record import add_arguments, begin, save
from benchmarks.training_forms import COMPILED, OURS, PLAIN, Case, Form, Parts, make_parts, save_samples

AIM_SPEED, AIM_MEMORY = 1.5, 0.6  # times the samples/s, times the peak memory of plain TRL
SMALLEST = [Case("1.5B", 32, 14, 1, 2, 1), Case("7B", 64, 14, 1, 2, 1)]
ON_CPU = [Case("1.5B", 8, 4, views, 4, 1) for views in (1, 4)] + [Case("7B", 16, 4, views, 4, 1) for views in (1, 4)]
ON_GPU = [
    Case("1.5B", 1, 1, 1, 16, 4),
    Case("1.5B", 1, 1, 4, 8, 2),
    Case("7B", 1, 1, 1, 16, 2),
    Case("7B", 1, 1, 4, 8, 1),
]
NUM_SCENES = 12


class Variant(NamedTuple):
    """A form, and whether its activations are recomputed in the backward pass or kept."""

    form: str
    recomputes: bool

    @property
    def name(self) -> str:
        """For a table."""
        return f"{self.form}, {'recomputed' if self.recomputes else 'kept'}"


VARIANTS = [Variant(form, recomputes) for recomputes in (True, False) for form in (PLAIN, OURS)]
COMPILED_VARIANTS = [Variant(COMPILED, recomputes) for recomputes in (True, False)]
BESIDE = VARIANTS[0]


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.training", description=__doc__.split("\n")[0])
    parser.add_argument("--smallest", action="store_true", help="tiny pairs, 2 turns")
    parser.add_argument("--turns", type=int, default=8, help="steps of each variant in each row")
    parser.add_argument("--seconds", type=float, default=120, help="at most, for the turns of a row (but 2 turns)")
    parser.add_argument("--samples", type=Path, default=None, help="folder of samples; made here by default")
    parser.add_argument("--compiled", action="store_true", help="also with the language model's layers compiled")
    parser.add_argument("--only", choices=("1.5B", "7B"), default=None, help="this language model alone")
    add_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    arguments = make_parser().parse_args(argv)
    on_gpu = torch.cuda.is_available() and not arguments.smallest
    cases = SMALLEST if arguments.smallest else ON_GPU if on_gpu else ON_CPU
    cases = [case for case in cases if arguments.only in (None, case.language_model)]
    device = "cuda" if on_gpu else "cpu"
    about = begin(arguments.threads, on_gpu, trl=trl.__version__)
    peak = about["matrix peak, TFLOP/s"] = matrix_peak(device) / 1e12
    variants = VARIANTS + COMPILED_VARIANTS * arguments.compiled
    turns = 2 if arguments.smallest else arguments.turns
    with tempfile.TemporaryDirectory() as folder:
        samples = arguments.samples or Path(folder)
        for views in sorted({case.views for case in cases}):
            if not (samples / f"{views}_views").exists():
                save_samples(samples, views, 2 if arguments.smallest else NUM_SCENES)
        rows: list[dict[str, Any]] = []
        for case in tqdm(cases, desc="pairs", disable=None):
            rows.append(measure(case, samples, turns, arguments.seconds, device, peak, variants))
            print(table(rows[-1:]), flush=True)
            save(arguments.output, "training", argv, {**about, "rows": rows})  # after each row: a run may be cut off
    return 0


def measure(
    case: Case,
    samples: Path,
    turns: int,
    seconds: float,
    device: str,
    peak_tflops: float,
    variants: list[Variant] = VARIANTS,
) -> dict[str, Any]:
    """One row: samples/s and peak memory of each variant, and the share of the matrix peak that is reached."""
    parts = make_parts(case, samples, device)
    forms = {name: Form(parts, device, name) for name in dict.fromkeys(variant.form for variant in variants)}
    batches = make_batches(case, parts, forms[OURS])
    asked, variants, losses = variants, list(variants), {}
    for variant in asked:  # the first steps choose kernels and make the optimizer's state
        try:
            run(forms, variant, case, batches[0])
            losses[variant.name] = run(forms, variant, case, batches[0])
        except torch.OutOfMemoryError:
            variants.remove(variant)
            forms[variant.form].optimizer.zero_grad()
        clear()
    taken: dict[str, list[float]] = {variant.name: [] for variant in variants}
    start = time.perf_counter()
    for turn in range(turns):
        if turn >= 2 and time.perf_counter() - start > seconds:
            break
        for variant in variants:
            begun = time.perf_counter()
            run(forms, variant, case, batches[turn % len(batches)])
            taken[variant.name].append(time.perf_counter() - begun)
    batch = batches[0]
    flops = needed_flops(forms[OURS], batch, case)
    if device == "cuda":
        peaks = {variant.name: peak_on_gpu(forms, variant, case, batch) for variant in variants}
    else:
        peaks = {variant.name: in_own_process(peak_on_cpu, case, samples, variant) for variant in variants}
    medians = {name: statistics.median(times) for name, times in taken.items()}
    row = {
        "pair": case.name,
        "views": case.views,
        "batch": case.batch,
        "micro_batch_where_kept": case.micro_batch,
        "tokens": {
            "longest": batch["input_ids"].shape[1],
            "answers": int((batch["labels"] != -100).sum(1).float().mean()),
        },
        "padding": 1 - batch["attention_mask"].float().mean().item(),
        "turns": len(taken[variants[0].name]),
        "seconds": medians,
        "samples_per_second": {name: case.batch / median for name, median in medians.items()},
        "speed": {name: ratio(taken[BESIDE.name], times) for name, times in taken.items()}
        if taken.get(BESIDE.name)
        else {},
        "peak_mib": peaks,
        "memory": {name: peak / peaks[BESIDE.name] for name, peak in peaks.items()} if BESIDE.name in peaks else {},
        "tflop_per_step": flops / 1e12,
        "mfu": {name: flops / median / 1e12 / peak_tflops for name, median in medians.items()},
        "losses": losses,
        "out_of_memory": [variant.name for variant in asked if variant not in variants],
    }
    del forms, parts
    clear()
    return row


def make_batches(case: Case, parts: Parts, form: Form) -> list[dict[str, torch.Tensor]]:
    """Up to four batches, as the trainer's own collator makes them."""
    count = min(4, len(parts.dataset) // case.batch) or 1
    rows = [
        [parts.dataset[i % len(parts.dataset)] for i in range(k * case.batch, (k + 1) * case.batch)]
        for k in range(count)
    ]
    return [form.collate(batch) for batch in rows]


def run(forms: dict[str, Form], variant: Variant, case: Case, batch: dict[str, torch.Tensor]) -> float:
    """One step of a variant; its loss, whose reading waits for a GPU."""
    form = forms[variant.form]
    form.checkpointing(variant.recomputes)
    loss = form.step(batch, case.batch if variant.recomputes else case.micro_batch, case.views)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return loss


def ratio(beside: list[float], times: list[float]) -> float:
    """How many times as fast as `beside`: the median over the turns."""
    return statistics.median(a / b for a, b in zip(beside, times))


def needed_flops(form: Form, batch: dict[str, torch.Tensor], case: Case) -> float:
    """Floating-point operations that a step cannot do without: nothing recomputed but in the loss head.

    Counted on one sample, padded as its batch is.
    """
    one = {name: x[: case.views] if name == "pixel_values" else x[:1] for name, x in batch.items()}
    form.checkpointing(False)
    with FlopCounterMode(display=False) as counter:
        form.step(one, 1, case.views)
    return counter.get_total_flops() * case.batch


def matrix_peak(device: str, turns: int = 10) -> float:
    """Operations a second of a large product: 8192^3 in bf16 on a GPU, 1024^3 in float32 on a CPU; the best of all."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(turns):
        start = time.perf_counter()
        (a @ b)[0, 0].item()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def peak_on_gpu(forms: dict[str, Form], variant: Variant, case: Case, batch: dict[str, torch.Tensor]) -> float:
    """MiB of a form's weights, its optimizer and a step; the other form's own weights do not count."""
    clear()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run(forms, variant, case, batch)
    return (torch.cuda.max_memory_allocated() - before + forms[variant.form].resident_bytes()) / 2**20


def in_own_process(function: Any, *arguments: Any) -> Any:
    """Call in a new process, whose memory has no history."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_on_cpu(case: Case, samples: Path, variant: Variant) -> float:
    """MiB of resident memory that a form takes in this new process beyond what the imports took."""
    before = resident_mib("VmRSS")
    parts = make_parts(case, samples, "cpu")
    forms = {variant.form: Form(parts, "cpu", variant.form)}
    batch = make_batches(case, parts, forms[variant.form])[0]
    for _ in range(2):
        run(forms, variant, case, batch)
    return resident_mib("VmHWM") - before


def resident_mib(field: str) -> float:
    """Now (`VmRSS`) or at most so far (`VmHWM`), as Linux counts."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**10


def clear() -> None:
    """Free what no one holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    lines = [
        f"| pair | views | tokens | variant | in memory | samples/s | speed (aim {AIM_SPEED:g}) | peak MiB "
        f"| memory (aim {AIM_MEMORY:g}) | MFU |",
        "|" + "---|" * 10,
    ]
    for row in rows:
        for variant in VARIANTS + COMPILED_VARIANTS:
            if variant.name not in [*row["seconds"], *row["out_of_memory"]]:
                continue
            start = f"| {row['pair']} | {row['views']} | {row['tokens']['longest']} | {variant.name} "
            name = variant.name
            if name not in row["seconds"]:
                lines.append(start + "| out of memory |" + " |" * 5)
                continue
            in_memory = row["batch"] if variant.recomputes else row["micro_batch_where_kept"]
            speed, memory = (f"{row[key][name]:.2f}" if row[key] else "-" for key in ("speed", "memory"))
            lines.append(
                start + f"| {in_memory} of {row['batch']} | {row['samples_per_second'][name]:.3g} | {speed} "
                f"| {row['peak_mib'][name]:.0f} | {memory} | {100 * row['mfu'][name]:.0f} % |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
