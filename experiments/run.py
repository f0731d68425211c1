r"""The paper's tables in miniature: `spatialboost experiment`.

    spatialboost experiment list
    spatialboost experiment main --preset smallest                      # the shape of the table, in a minute
    spatialboost experiment main --preset cpu                           # a taste on two cores
    spatialboost experiment table6 figure5 --preset gpu --budget-minutes 8     # run again until nothing is left
    spatialboost experiment all --preset gpu

Everything that is finished is used again: a run that was stopped, by its budget or by a signal, goes on when the same
command is given again (exit code 3 tells that there is more to do). Each table ends as Markdown, PNG and JSON.
"""

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.tables import TABLES

if TYPE_CHECKING:
    from experiments.pieces import Ledger
    from experiments.presets import Preset

PRESETS = ("smallest", "cpu", "hour", "gpu")
MORE_TO_DO = 3


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `spatialboost experiment`."""
    parser = argparse.ArgumentParser(
        prog="spatialboost experiment", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"list, all, or some of {', '.join(TABLES)}")
    parser.add_argument("--preset", choices=PRESETS, default="cpu", help="how large (default: cpu)")
    parser.add_argument("--output", type=Path, help="folder for everything (default: outputs/experiments/PRESET)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="trainings of everything but the world (default: preset's)"
    )
    parser.add_argument(
        "--budget-minutes", type=float, help="begin no new piece of work after so many minutes (default: no limit)"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0, or 3 where the budget ended before the work.

    Raises:
        ValueError: no such table, or an output folder that holds another experiment.
    """
    arguments = make_parser().parse_args(argv)
    if arguments.names == ["list"]:
        print("\n".join(f"{name:<9}{table.title}" for name, table in TABLES.items()))
        return 0
    names = list(TABLES) if arguments.names == ["all"] else list(dict.fromkeys(arguments.names))
    if unknown := [name for name in names if name not in TABLES]:
        raise ValueError(f"NAME={unknown[0]!r} is no table: pass list, all, or some of {', '.join(TABLES)}.")
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    from experiments.pieces import Ledger, OutOfBudget
    from experiments.presets import PRESETS as SIZES

    preset = SIZES[arguments.preset]
    root: Path = arguments.output or Path("outputs/experiments") / arguments.preset
    seeds = tuple(arguments.seeds or preset.seeds)
    ledger = Ledger(arguments.budget_minutes)
    for name in names:
        try:
            make_table(name, root, arguments.preset, preset, seeds, ledger)
        except OutOfBudget as end:
            print(f"\n{end}; {len(ledger.finished)} pieces were finished now. The same command goes on with {name}.")
            return MORE_TO_DO
    return 0


def make_table(
    name: str, root: Path, preset_name: str, preset: "Preset", seeds: tuple[int, ...], ledger: "Ledger"
) -> dict[str, Any]:
    """Train and measure all arms of a table in all seeds, and write its report; returns what the JSON holds."""
    from experiments.aims import aims_of
    from experiments.findings import findings_of
    from experiments.table_report import draw, render_markdown, score_table

    ledger.used.clear()
    folders = {seed: measure_table(name, root, preset, seed, ledger) for seed in seeds}
    command = ["spatialboost", "experiment", name, "--preset", preset_name]
    command += ["--seeds", *map(str, seeds)] if seeds != preset.seeds else []
    found = findings_of(name, folders) | {"command": shlex.join(command), "preset": preset_name}
    found |= {"aims": aims_of(found), "numbers": numbers_of(preset), **provenance(ledger.used)}
    output = root / "tables"
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.json").write_text(json.dumps(_finite(found), indent=1) + "\n", encoding="utf-8")
    (output / f"{name}.md").write_text(render_markdown(found), encoding="utf-8")
    draw(found, output / f"{name}.png")
    print(f"\n{found['title']}\n\n{score_table(found)}\n\ntable: {output / name}.md, .png, .json")
    return found


def measure_table(name: str, root: Path, preset: "Preset", seed: int, ledger: "Ledger") -> Path:
    """All arms of a table and all their measurements in one seed; returns the seed's folder."""
    from experiments.arms import ARMS
    from experiments.measure import applies, calls_of, measure_arm, measure_start
    from experiments.workshop import Workshop

    table, workshop = TABLES[name], Workshop(root, preset, seed, ledger)
    names = sorted(table.all_arms, key=lambda arm: arm != "language")  # the claim first
    arms = [ARMS[arm] for arm in names if arm != "base"]
    measure_start(workshop, table.taught)
    for call in calls_of(table.measures):  # the probes of all arms come first, for they decide
        for arm in arms:
            if applies(call, arm):
                measure_arm(workshop, arm, call)
    return workshop.folder


def numbers_of(preset: "Preset") -> dict[str, Any]:
    """The preset as the JSON holds it."""
    from dataclasses import asdict

    return json.loads(json.dumps(asdict(preset)))


def provenance(records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Commits and hardware of the pieces that a table is made of, and the minutes that they took in all.

    Args:
        records: of the pieces, by folder.
    """
    commits = [record["commit"] or "unknown" for record in records.values()]
    return {
        "commits": list(dict.fromkeys(one[:12] + ("-dirty" if one.endswith("-dirty") else "") for one in commits)),
        "hardware": "; ".join(dict.fromkeys(record["hardware"] for record in records.values())),
        "minutes": sum(record["seconds"] for record in records.values()) / 60,
    }


def _finite(value: Any) -> Any:
    """The same with None for what is no finite number, which JSON has not."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


if __name__ == "__main__":
    sys.exit(main())
