"""Where the time of a stage-3 step goes: the operators of plain TRL's step and of ours, side by side.

python -m benchmarks.profile_step --smallest              # seconds; the test runs this
python -m benchmarks.profile_step --threads 1             # CPU; on a GPU the same command, at full size
python -m benchmarks.profile_step --output profile.json   # the rows, hardware and versions too

The torch profiler sums what each operator takes by itself (on a GPU: its kernels) over a few steps of each form, with
activations recomputed as in the recipe. Operators below one percent of both steps are summed as "other".
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.record import add_arguments, begin, save
from benchmarks.training import VARIANTS, make_batches, run
from benchmarks.training_forms import OURS, Case, Form, make_parts, save_samples

CPU_CASE, GPU_CASE, SMALLEST_CASE = (
    Case("1.5B", 8, 4, 1, 4, 1),
    Case("1.5B", 1, 1, 1, 8, 2),
    Case("1.5B", 32, 14, 1, 2, 1),
)
FORMS = [variant for variant in VARIANTS if variant.recomputes]  # plain TRL, ours
LEAST_SHARE = 0.01


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the profile."""
    parser = argparse.ArgumentParser(prog="benchmarks.profile_step", description=__doc__.split("\n")[0])
    parser.add_argument("--smallest", action="store_true", help="a tiny pair, 1 step")
    parser.add_argument("--steps", type=int, default=3, help="of each form")
    parser.add_argument("--samples", type=Path, default=None, help="folder of samples; made here by default")
    add_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Profile and print."""
    arguments = make_parser().parse_args(argv)
    on_gpu = torch.cuda.is_available() and not arguments.smallest
    case = SMALLEST_CASE if arguments.smallest else GPU_CASE if on_gpu else CPU_CASE
    about = begin(arguments.threads, on_gpu, pair=case.name)
    device = "cuda" if on_gpu else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        samples = arguments.samples or Path(folder)
        if not (samples / "1_views").exists():
            save_samples(samples, 1, 2)
        parts = make_parts(case, samples, device)
        forms = {variant.form: Form(parts, device, variant.form) for variant in FORMS}
        batch = make_batches(case, parts, forms[OURS])[0]
    steps = 1 if arguments.smallest else arguments.steps
    times = {}
    for variant in FORMS:
        run(forms, variant, case, batch)
        with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
            for _ in range(steps):
                run(forms, variant, case, batch)
        times[variant.name] = operator_times(profiler, on_gpu, steps)
    print(table(times))
    save(arguments.output, "profile_step", argv, {**about, "milliseconds": times})
    return 0


def operator_times(profiler: Any, on_gpu: bool, steps: int) -> dict[str, float]:
    """Milliseconds in a step that each operator takes by itself."""
    field = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    return {row.key: getattr(row, field) / 1e3 / steps for row in profiler.key_averages() if getattr(row, field) > 0}


def table(times: dict[str, dict[str, float]]) -> str:
    """In Markdown, the largest of the first form first."""
    totals = {form: sum(rows.values()) for form, rows in times.items()}
    keys = {key for form, rows in times.items() for key, taken in rows.items() if taken > LEAST_SHARE * totals[form]}
    first, second = times
    lines = [f"| operator | {first}, ms | {second}, ms |", "|---|---|---|"]
    for key in sorted(keys, key=lambda key: -times[first].get(key, 0)):
        lines.append(f"| `{key[:70]}` | {times[first].get(key, 0):.1f} | {times[second].get(key, 0):.1f} |")
    others = [sum(taken for key, taken in rows.items() if key not in keys) for rows in times.values()]
    lines.append("| other | " + " | ".join(f"{taken:.1f}" for taken in others) + " |")
    lines.append("| all | " + " | ".join(f"{total:.1f}" for total in totals.values()) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
