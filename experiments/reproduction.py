r"""Finished tables into the repository, and docs/reproduction.md from them; its numbers are never typed.

    python -m experiments.reproduction outputs/experiments/cpu/tables     # keep these results, then render
    python -m experiments.reproduction                                    # render from what is kept

JSON and pictures are kept in experiments/results/PRESET; the page is rendered between its two marks.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from evaluators.comparison import INTERVAL
from experiments.run import PRESETS
from experiments.table_report import FAR_OFF, HOW_TO_READ, render_markdown
from experiments.tables import TABLES

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "experiments" / "results", ROOT / "docs" / "reproduction.md"
BEGIN, END = "<!-- results: rendered by python -m experiments.reproduction -->", "<!-- end of results -->"
TITLES = {"gpu": "On one GPU", "hour": "An hour, on a CPU", "cpu": "A taste, on a CPU"}
ON_MANY_IMAGES = "teaching"  # this table, which `hour` is for and `cpu` too small
MET = {True: "yes", False: "**no**", None: "not measured"}


def keep(tables: Path, results: Path) -> list[str]:
    """Copy the finished tables of a folder into the results of their preset; returns their names.

    Raises:
        ValueError: there are none, or one is of the smallest preset, whose numbers mean nothing.
    """
    names = []
    for file in sorted(tables.glob("*.json")):
        preset = json.loads(file.read_text(encoding="utf-8"))["preset"]
        if preset not in TITLES:
            raise ValueError(
                f"{file} is of the preset {preset!r}, whose numbers mean nothing: keep those of {', '.join(TITLES)}."
            )
        folder = results / preset
        folder.mkdir(parents=True, exist_ok=True)
        for suffix in (".json", ".png"):
            shutil.copyfile(file.with_suffix(suffix), folder / f"{file.stem}{suffix}")
        names.append(f"{preset}/{file.stem}")
    if not names:
        raise ValueError(f"{str(tables)!r} has no tables: pass the folder tables/ of `spatialboost experiment`.")
    return names


def load_results(results: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """By preset and table, in the order of the page, what is kept."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for preset in reversed(PRESETS):
        for name in TABLES:
            file = results / preset / f"{name}.json"
            if file.is_file():
                found.setdefault(preset, {})[name] = json.loads(file.read_text(encoding="utf-8"))
    return found


def render(results: Path, page: Path) -> str:
    """The page with its part between the marks made anew.

    Raises:
        ValueError: the page has no marks.
    """
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{page} lacks the marks {BEGIN!r} and {END!r}: put each on a line of its own, once.")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return before + "\n\n".join([BEGIN, *sections(load_results(results), results, page), END]) + after


def sections(found: dict[str, dict[str, dict[str, Any]]], results: Path, page: Path) -> list[str]:
    """The parts of the page: claims beside what was found, then every table with its picture."""
    parts = [summary(found)]
    for preset, tables in found.items():
        parts += [f"## {TITLES[preset]}"]
        for name, table in tables.items():
            body = render_markdown(table).replace(HOW_TO_READ, "").replace("# ", "### ", 1).strip()
            picture = os.path.relpath(results / preset / f"{name}.png", page.parent)
            parts += [body, f"![{table['title']}]({picture})"]
    return [*parts, f"**How to read.** {HOW_TO_READ}"]


def summary(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Every claim with what was found, by preset; tables that have not been run are named."""
    lines = ["| preset | table | claim | found | met |", "|---|---|---|---|---|"]
    for preset, tables in found.items():
        for name, table in tables.items():
            weak = " (base too weak)" if table["gate"]["admitted"] is False else ""
            lines += [
                f"| {preset}{weak} | {name} | {aim['claim']} | {aim['found']} | {MET[aim['met']]} |"
                for aim in table["aims"]
            ]
    missing = [f"{preset}: {', '.join(lacking)}" for preset in TITLES if (lacking := _lacking(found, preset))]
    told = "\n".join(lines) if len(lines) > 2 else ""
    counted = "\n".join(f"* {preset}: {beyond_chance(tables)}" for preset, tables in found.items())
    return "\n\n".join(filter(None, [told, counted, "Not run yet: " + "; ".join(missing) + "." if missing else ""]))


def beyond_chance(tables: dict[str, dict[str, Any]]) -> str:
    """How many of a preset's differences are beyond chance: a reader who sees many intervals must know.

    What stands in several tables counts once, as the first has it; a later one may have it the other way round.
    """
    verdicts = {
        (measure, frozenset((arm, table["reference"]))): cell["verdict"]
        for table in reversed(tables.values())
        for arm, row in table["arms"].items()
        for measure, cell in row["measures"].items()
        if arm not in (table["reference"], FAR_OFF)
    }
    found = [list(verdicts.values()).count(word) for word in ("better", "worse")]
    return (
        f"of {len(verdicts)} differences between two arms (random encoders left out) {found[0]} are better and "
        f"{found[1]} worse beyond chance. Where nothing differs, chance alone makes about "
        f"{(1 - INTERVAL) * len(verdicts):.0f} of so many seem to."
    )


def _lacking(found: dict[str, dict[str, dict[str, Any]]], preset: str) -> list[str]:
    expected = {"hour": [ON_MANY_IMAGES], "cpu": [name for name in TABLES if name != ON_MANY_IMAGES]}
    return [name for name in expected.get(preset, TABLES) if name not in found.get(preset, {})]


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `python -m experiments.reproduction`."""
    parser = argparse.ArgumentParser(
        prog="experiments.reproduction", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", type=Path, nargs="*", help="folders of finished tables to keep first")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0."""
    for tables in make_parser().parse_args(argv).tables:
        print(f"kept: {', '.join(keep(tables, RESULTS))}")
    PAGE.write_text(render(RESULTS, PAGE), encoding="utf-8")
    print(f"rendered: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
