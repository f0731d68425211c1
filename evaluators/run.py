"""Evaluate two encoders side by side: `spatialboost evaluate`.

A quick look on a CPU, and the full protocol with three seeds:

    spatialboost evaluate --base out/base --boosted out/boosted --tasks all --data out/rooms --output out/report \
        --preset cpu
    spatialboost evaluate --base facebook/dinov3-vitl16-pretrain-lvd1689m --boosted me/dinov3-vitl16-boosted \
        --tasks depth --data rooms=me/indoor --output out/report --device cuda --dtype bfloat16

Writes results.json, report.md and a picture per task into --output and prints the table. What one encoder
scored in one entry is kept beside the features: the same command takes it up again, after a kill, too.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluators.catalogue import DATA_SETS, TASKS, families, task_module
from evaluators.plan import PRESET_SEEDS, Plan, make_plan


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of `spatialboost evaluate`."""
    parser = argparse.ArgumentParser(
        prog="spatialboost evaluate",
        description="Measure a base and a boosted encoder side by side.",
    )
    parser.add_argument("--base", required=True, help="folder or id of the base encoder")
    parser.add_argument("--boosted", required=True, help="folder or id of the boosted encoder")
    parser.add_argument("--base-vlm", help="folder or id of the vision-language model with the base encoder")
    parser.add_argument("--boosted-vlm", help="the same with the boosted encoder")
    parser.add_argument("--base-revision", help="revision of the base encoder on the Hub")
    parser.add_argument("--boosted-revision", help="revision of the boosted encoder on the Hub")
    parser.add_argument(
        "--tasks", default="all", help=f"all, or some of {', '.join([*families(), *TASKS])} (default: all)"
    )
    parser.add_argument(
        "--data",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME=PLACE",
        help=f"folders or Hub ids of {', '.join(DATA_SETS)}, NAME.LABEL=PLACE where one has several; a bare place is "
        "rooms",
    )
    parser.add_argument("--output", required=True, type=Path, help="folder for the report")
    parser.add_argument("--preset", choices=sorted(PRESET_SEEDS), default="full", help="protocol (default: full)")
    parser.add_argument("--limit", type=int, help="use at most so many images of each split; the report says partial")
    parser.add_argument("--seeds", type=int, nargs="+", help="one head per seed (default: 0 1 2, preset cpu: 0)")
    parser.add_argument("--resolution", help="input size in pixels, SIDE or HEIGHTxWIDTH (default: the base's own)")
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="TASK.SETTING=VALUE",
        help="settings of a task, such as depth_linear.max_depth_m=80",
    )
    parser.add_argument(
        "--upstream-compat",
        action="store_true",
        help="repeat habits of the public code that cannot be recommended, such as selection on the reported split",
    )
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
    run(arguments, make_plan(arguments))
    return 0


def run(arguments: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    """Measure both encoders, write the report, print the table; return what results.json holds.

    Raises:
        Exception: an entry could not be measured; the report, which says so, holds the others.
    """
    from accelerate import PartialState

    from evaluators.contract import NotMeasurable

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what makes cuBLAS deterministic
    state = PartialState(cpu=arguments.device == "cpu")  # several processes share the extraction of features
    arguments.output.mkdir(parents=True, exist_ok=True)
    sides, failed = measure(arguments, plan, state)
    if not state.is_main_process:
        return {}
    if len(failed) == len(plan.configs):
        raise next(iter(failed.values()))
    results = report(arguments, plan, sides, failed, arguments.device or str(state.device))
    for error in failed.values():
        if arguments.tasks != "all" or not isinstance(error, NotMeasurable):
            raise error
    return results


def measure(
    arguments: argparse.Namespace, plan: Plan, state: Any
) -> tuple[tuple[dict[str, Any], dict[str, Any]], dict[str, Exception]]:
    """Return what `evaluate` says of every entry for the base and for the boosted encoder, and what went wrong."""
    from evaluators.result_cache import measured_once

    # both are loaded before either is measured: a wrong name must not cost hours
    encoders = [_load(arguments, side) for side in ("base", "boosted")]
    # what no protocol fixes is the base's own for both sides
    configs = {
        entry: dataclasses.replace(config, resolution=config.resolution or encoders[0].input_size_px)
        for entry, config in plan.configs.items()
    }
    sides: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    failed: dict[str, Exception] = {}
    for side, encoder, results in zip(("base", "boosted"), encoders, sides):
        encoder.model.to(arguments.device or state.device)
        for entry, config in configs.items():
            task = entry.split("/")[0]
            if entry in failed:
                continue
            if TASKS[task].asks_vlm:
                config = config.for_side(side, getattr(arguments, f"{side}_vlm"))
            try:
                results[entry] = measured_once(encoder, entry, config, task_module(task).evaluate)
            except Exception as error:  # the others are measured all the same
                if state.num_processes > 1:  # they wait for each other
                    raise
                failed[entry] = error
                print(f"{entry} is not measured: {error}", file=sys.stderr)
        encoder.model.to("cpu")
    return sides, failed


def report(
    arguments: argparse.Namespace,
    plan: Plan,
    sides: tuple[dict[str, Any], dict[str, Any]],
    failed: dict[str, Exception],
    device: str,
) -> dict[str, Any]:
    """Compare what `measure` returned, write the report and print the table; return what results.json holds."""
    from evaluators.comparison import compare
    from evaluators.report import environment, not_measured_lines, render_table, summary_line, write_report
    from modeling_spatialboost.encoder_loading import first_line

    results: dict[str, Any] = {
        "preset": arguments.preset,
        "limit": arguments.limit,
        "partial": arguments.limit is not None,
        "changed": [*(f"--set {one}" for one in arguments.set), *(["--upstream-compat"] * arguments.upstream_compat)],
        "tasks": {},
        "not_measured": plan.not_measured | {entry: first_line(error) for entry, error in failed.items()},
        "environment": environment(device),
    }
    for entry in (entry for entry in plan.configs if entry not in failed):
        module, (base, boosted) = task_module(entry.split("/")[0]), (side[entry] for side in sides)
        results["tasks"][entry] = compare(module.METRICS, module.aggregate, base, boosted)
        if hasattr(module, "draw"):
            results["tasks"][entry]["picture"] = f"{entry.replace('/', '_')}.png"
            module.draw(arguments.output / results["tasks"][entry]["picture"], base, boosted)
    write_report(results, arguments.output)
    left_out = "\n".join(f"not measured: {line}" for line in not_measured_lines(results))
    print(f"\n{render_table(results)}\n\n{left_out}\n\n{summary_line(results)}")
    print(f"report: {arguments.output / 'report.html'}")
    return results


def _load(arguments: argparse.Namespace, side: str) -> Any:
    """The encoder of a side, on the CPU."""
    import torch

    from evaluators.encoders import load_encoder

    name, revision = getattr(arguments, side), getattr(arguments, f"{side}_revision")
    try:
        return load_encoder(name, revision, "cpu", getattr(torch, arguments.dtype))
    except ValueError as error:
        raise ValueError(f"--{side}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
