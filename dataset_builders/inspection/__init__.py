"""One self-contained HTML page about a built data set: `spatialboost inspect`.

spatialboost inspect outputs/rooms                                # writes outputs/rooms/inspect.html
spatialboost inspect outputs/rooms --samples 12 --check 500 --output page.html
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from dataset_builders.publishing import REPORT_NAME
from dataset_builders.scene import InputError

PAGE_NAME = "inspect.html"
MAX_FAILURES = 50  # told by name


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `spatialboost inspect`."""
    parser = argparse.ArgumentParser(
        prog="spatialboost inspect", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of a built data set")
    parser.add_argument("--samples", type=int, default=6, help="records of each configuration that are shown")
    parser.add_argument("--check", type=int, help="records of each configuration that are checked again; default: all")
    parser.add_argument("--output", type=Path, help=f"the page; default: DATA/{PAGE_NAME}")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Read, check, draw and write the page.

    Returns:
        0, or 1 if a record fails a check (the page is written all the same).

    Raises:
        InputError: the folder holds no built data set, or a number makes no sense.
    """
    arguments = make_parser().parse_args(argv)
    for name in ("samples", "check"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value} is too small; pass at least 1.")
    report = _read_report(arguments.data)
    from dataset_builders.inspection.page import page
    from dataset_builders.inspection.reading import read_config

    configs = [
        read_config(arguments.data, name, splits, arguments.samples, arguments.check)
        for name, splits in report["rows"].items()
    ]
    target = arguments.output or arguments.data / PAGE_NAME
    target.write_text(page(arguments.data.resolve().name, report, configs), encoding="utf-8")
    failing = Counter({config.name: len(config.failures) for config in configs})
    checked = sum(config.checked for config in configs)
    print(f"{target}: {checked} records checked, {failing.total()} fail")
    for config in configs:
        for record_id, problem in config.failures[:3]:
            print(f"  {config.name} {record_id}: {problem}")
    return 1 if failing.total() else 0


def _read_report(folder: Path) -> dict[str, Any]:
    path = folder / REPORT_NAME
    if not path.is_file():
        raise InputError(f"{folder} holds no {REPORT_NAME}; give the folder that `spatialboost build` wrote.")
    return json.loads(path.read_text(encoding="utf-8"))
