"""Evaluate two encoders side by side: `spatialboost evaluate`.

A quick look on a CPU, and the full protocol with three seeds:

    spatialboost evaluate --base out/base --boosted out/boosted --tasks all --data out/rooms --output out/report \
        --preset cpu
    spatialboost evaluate --base facebook/dinov3-vitl16-pretrain-lvd1689m --boosted me/dinov3-vitl16-boosted \
        --tasks depth --data me/indoor --output out/report --device cuda --dtype bfloat16

Writes results.json, report.md and a picture per task into --output and prints the table.
"""

import argparse
import dataclasses
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluators.encoders import Encoder

# Module of this package -> its configuration class; a task is `evaluate(encoder, configuration) -> dict`.
TASKS = {"depth": "DepthConfig", "segmentation": "SegmentationConfig"}
PRESET_SEEDS = {"full": [0, 1, 2], "cpu": [0]}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of `spatialboost evaluate`."""
    parser = argparse.ArgumentParser(
        prog="spatialboost evaluate",
        description="Measure a base and a boosted encoder side by side.",
    )
    parser.add_argument("--base", required=True, help="folder or id of the base encoder")
    parser.add_argument("--boosted", required=True, help="folder or id of the boosted encoder")
    parser.add_argument("--base-revision", help="revision of the base encoder on the Hub")
    parser.add_argument("--boosted-revision", help="revision of the boosted encoder on the Hub")
    parser.add_argument("--tasks", default="all", help=f"all, or some of {','.join(TASKS)} (default: all)")
    parser.add_argument("--data", required=True, help="folder or id of a data set with a `dense` configuration")
    parser.add_argument("--output", required=True, type=Path, help="folder for the report")
    parser.add_argument("--preset", choices=sorted(PRESET_SEEDS), default="full", help="protocol (default: full)")
    parser.add_argument("--limit", type=int, help="use at most so many images of each split; the report says partial")
    parser.add_argument("--seeds", type=int, nargs="+", help="one head per seed (default: 0 1 2, preset cpu: 0)")
    parser.add_argument("--resolution", help="input size in pixels, SIDE or HEIGHTxWIDTH (default: the base's own)")
    parser.add_argument("--max-depth-m", type=float, default=10.0, help="farthest depth that counts (default: 10)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: cuda where there is one)")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of the encoders"
    )
    parser.add_argument("--cache-dir", type=Path, help="folder for features (default: features/ in --output)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0.

    Raises:
        ValueError: a mistake in the arguments or the input.
    """
    arguments = make_parser().parse_args(argv)
    run(arguments, parse_tasks(arguments.tasks), parse_resolution(arguments.resolution))
    return 0


def parse_tasks(text: str) -> list[str]:
    """Return the task names of `all` or a comma-separated list.

    Raises:
        ValueError: for a name that is no task, with the list and the nearest name.
    """
    if text == "all":
        return list(TASKS)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in TASKS:
            near = difflib.get_close_matches(name, TASKS, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"--tasks {name!r} is no task{hint}: pass all, or some of {', '.join(TASKS)}")
    return list(dict.fromkeys(names))


def parse_resolution(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of `224` or `480x640`, None for None.

    Raises:
        ValueError: for anything else.
    """
    if text is None:
        return None
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise ValueError(
            f"--resolution {text!r} is no size: pass SIDE or HEIGHTxWIDTH in pixels, such as 224 or 480x640"
        )
    return int(sides[0]), int(sides[-1])


def run(arguments: argparse.Namespace, tasks: list[str], resolution: tuple[int, int] | None) -> dict[str, Any]:
    """Evaluate both encoders on the tasks, write the report, print the table; return what results.json holds."""
    import torch

    from evaluators.encoders import load_encoder
    from evaluators.pictures import save_picture
    from evaluators.report import compare, environment, render_table, write_report

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what makes cuBLAS deterministic
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    arguments.output.mkdir(parents=True, exist_ok=True)
    encoders = []  # both are loaded before either is measured: a wrong name must not cost hours
    for side, name, revision in (
        ("base", arguments.base, arguments.base_revision),
        ("boosted", arguments.boosted, arguments.boosted_revision),
    ):
        try:
            encoders.append(load_encoder(name, revision, "cpu", getattr(torch, arguments.dtype)))
        except ValueError as error:
            raise ValueError(f"--{side}: {error}") from error
    resolution = resolution or encoders[0].input_size_px  # the base's own serves both
    sides: list[dict[str, dict[str, Any]]] = []
    for encoder in encoders:
        encoder.model.to(device)
        sides.append({task: evaluate_task(task, encoder, arguments, resolution) for task in tasks})
        encoder.model.to("cpu")
    results: dict[str, Any] = {
        "preset": arguments.preset,
        "limit": arguments.limit,
        "partial": arguments.limit is not None,
        "tasks": {},
        "environment": environment(device),
    }
    for task in tasks:
        base, boosted = sides[0][task], sides[1][task]
        results["tasks"][task] = compare(importlib.import_module(f"evaluators.{task}").METRICS, base, boosted)
        class_names = base["data"]["classes"] if task == "segmentation" else None
        save_picture(arguments.output / f"{task}.png", base["examples"], boosted["examples"], class_names)
    write_report(results, arguments.output)
    print(f"\n{render_table(results)}\n\nreport: {arguments.output / 'report.md'}")
    return results


def evaluate_task(
    task: str, encoder: "Encoder", arguments: argparse.Namespace, resolution: tuple[int, int]
) -> dict[str, Any]:
    """Evaluate one encoder on one task with the configuration that the arguments describe."""
    module = importlib.import_module(f"evaluators.{task}")
    config_class = getattr(module, TASKS[task])
    options = {
        "data": arguments.data,
        "resolution": resolution,
        "cache_dir": arguments.cache_dir or arguments.output / "features",
        "fit": module.FIT_PRESETS[arguments.preset],
        "seeds": tuple(arguments.seeds or PRESET_SEEDS[arguments.preset]),
        "limit": arguments.limit,
        "max_depth_m": arguments.max_depth_m,
    }
    names = {field.name for field in dataclasses.fields(config_class)}
    print(f"{task}: {encoder.name}")
    return module.evaluate(encoder, config_class(**{key: options[key] for key in names & options.keys()}))


if __name__ == "__main__":
    sys.exit(main())
