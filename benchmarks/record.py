"""What the benchmarks of models share: two arguments, what their figures depend on, and the JSON file of a run."""

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from trainers.run_record import git_commit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--threads` and `--output`."""
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; as many as torch likes by default")
    parser.add_argument("--output", type=Path, default=None, help="JSON file with rows, hardware and versions")


def begin(threads: int | None, on_gpu: bool, **more: Any) -> dict[str, Any]:
    """Set the threads; print and return what the figures depend on, `more` included."""
    if threads is not None:
        torch.set_num_threads(threads)
    about = {
        "machine": torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load before": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "commit": git_commit(),
        **more,
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    return about


def save(output: Path | None, name: str, argv: list[str] | None, content: dict[str, Any]) -> None:
    """Write the JSON file of a run, with its command; nothing without `output`."""
    if output is not None:
        command = " ".join([f"python -m benchmarks.{name}", *(sys.argv[1:] if argv is None else argv)])
        output.write_text(json.dumps({"command": command, **content}, indent=1) + "\n")
