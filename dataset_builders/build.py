"""Make a data set: `spatialboost build`.

spatialboost build --source synthetic --num-scenes 40 --resolution 64 --output out/rooms     # CPU-sized
spatialboost build --source rgbd --input ../shared/realdata/mosd_tabletop --output out/tabletop
spatialboost build --source synthetic --num-scenes 100000 --resolution 240x320 --views 8 --workers 64 --output out/big
"""

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_builders.scene import InputError, Intrinsics
from dataset_builders.sources import SourceOptions, open_source

if TYPE_CHECKING:
    from dataset_builders.shards import BuildPlan, ShardReport

REPORT_NAME = "build_report.json"
CLASSES_NAME = "classes.json"
CARD_NAME = "README.md"
NOT_IN_COMMAND = ("output", "workers", "min_kept")  # arguments that do not change the data


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `spatialboost build`."""
    parser = argparse.ArgumentParser(prog="spatialboost build", description=__doc__.split("\n")[0])
    parser.add_argument("--source", required=True, help="rgbd: a folder with manifests; synthetic: made-up rooms")
    parser.add_argument("--input", type=Path, help="folder of the raw data; not for synthetic")
    parser.add_argument("--output", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--num-scenes", type=int, help="scenes to make (synthetic), or at most to read")
    parser.add_argument("--views", type=int, help="views per scene; default: 2 (synthetic), else all")
    parser.add_argument("--resolution", default="240x320", help="HEIGHTxWIDTH or SIDE in pixels (synthetic)")
    parser.add_argument("--seed", type=int, default=0, help="of rooms, points, pairs and phrasings")
    parser.add_argument("--order", default="forward", choices=["forward", "reverse", "random"], help="of the 12 turns")
    parser.add_argument("--allow-partial", action="store_true", help="keep dialogues that lack some turns")
    parser.add_argument("--configs", help="comma-separated; default: all that it can give")
    parser.add_argument("--workers", type=int, default=1, help="processes; the result does not depend on it")
    parser.add_argument("--shard-size", type=int, default=128, help="scenes per shard, which is built in memory")
    parser.add_argument("--min-kept", type=float, default=0.5, help="share of scenes that must give a record")
    parser.add_argument("--intrinsics", help="fx,fy,cx,cy in pixels, where the data does not say")
    parser.add_argument("--up-world", help="x,y,z of the direction against gravity, where the data does not say")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Build, write, and tell what was kept and dropped.

    Returns:
        0.

    Raises:
        InputError: an argument or the input is wrong, the output folder holds something else, or too little was kept.
    """
    parser = make_parser()
    arguments = parser.parse_args(argv)
    options = _source_options(arguments)
    source = open_source(arguments.source, options)
    from dataset_builders.card import table
    from dataset_builders.executors import run_shards

    plan = _plan(arguments, options, tuple(source.list_items()))
    report = _finished_report(plan)
    if report is not None:
        print(f"{arguments.output} already holds this build, nothing to do")
    else:
        _clear_for(plan)
        class_names = tuple(getattr(source, "segmentation_classes", ()))
        report = _publish(plan, run_shards(plan, arguments.workers), _command(parser, arguments), class_names)
    print(table(report))
    return _verdict(report, arguments)


def _verdict(report: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Exit code, with a sentence where too little was kept."""
    kept, total = report["kept_items"], report["items"]
    where = arguments.output / REPORT_NAME
    if kept == 0:
        reasons = Counter({one["reason"]: one["count"] for one in report["drops_by_reason"]})
        most = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(3))
        example = report["drops"][0]["detail"]
        raise InputError(f"nothing was kept of {total} scenes ({most}), for instance {example}; {where} tells all.")
    if kept < arguments.min_kept * total:
        raise InputError(
            f"{kept} of {total} scenes were kept, less than --min-kept {arguments.min_kept:g}; {where} says why; pass "
            "a lower --min-kept to accept that."
        )
    print(f"{sum(sum(splits.values()) for splits in report['rows'].values())} records in {arguments.output}")
    return 0


def _source_options(arguments: argparse.Namespace) -> SourceOptions:
    """Check the numbers among the arguments and hand the source what concerns it."""
    for name, least in (("workers", 1), ("shard_size", 1), ("num_scenes", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} {value} is too small; pass at least {least}.")
    if not 0 <= arguments.min_kept <= 1:
        raise InputError(f"--min-kept {arguments.min_kept:g} is no share; pass a number from 0 to 1.")
    if arguments.source == "synthetic" and arguments.input is not None:
        raise InputError(f"--input {arguments.input} is of no use to --source synthetic; leave it out.")
    size = re.fullmatch(r"(\d+)(?:x(\d+))?", arguments.resolution)
    if size is None:
        raise InputError(f"--resolution {arguments.resolution!r} is not HEIGHTxWIDTH; pass something like 240x320.")
    intrinsics = _numbers("--intrinsics", arguments.intrinsics, 4)
    up_world = _numbers("--up-world", arguments.up_world, 3)
    if intrinsics is not None and min(intrinsics[:2]) <= 0:
        raise InputError(f"--intrinsics {arguments.intrinsics} has a focal length that is not positive; give pixels.")
    if up_world is not None and not any(up_world):
        raise InputError(f"--up-world {arguments.up_world} has no direction; pass something like 0,0,1.")
    return SourceOptions(
        input_dir=arguments.input,
        seed=arguments.seed,
        num_scenes=arguments.num_scenes,
        views=arguments.views,
        image_size=(int(size[1]), int(size[2] or size[1])),
        intrinsics=None if intrinsics is None else Intrinsics(*intrinsics),
        up_world=None if up_world is None else (up_world[0], up_world[1], up_world[2]),
    )


def _numbers(argument: str, text: str | None, count: int) -> list[float] | None:
    """Numbers separated by commas."""
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(abs(number) < float("inf") for number in numbers):
        raise InputError(f"{argument} {text!r} is not {count} numbers separated by commas.")
    return numbers


def _plan(arguments: argparse.Namespace, options: SourceOptions, items: tuple[str, ...]) -> "BuildPlan":
    from dataset_builders.configs import CONFIGS, DialogueOptions
    from dataset_builders.shards import BuildPlan

    if not items:
        raise InputError(f"--input {arguments.input} gives no scene; look into the folder.")
    wanted = list(CONFIGS) if arguments.configs is None else arguments.configs.split(",")
    unknown = [name for name in wanted if name not in CONFIGS]
    if unknown:
        raise InputError(f"--configs {unknown[0]!r} is unknown; choose from {', '.join(CONFIGS)}.")
    return BuildPlan(
        source=arguments.source,
        source_options=options,
        dialogue=DialogueOptions(arguments.seed, arguments.order, arguments.allow_partial),
        configs=tuple(name for name in CONFIGS if name in wanted),
        items=items,
        shard_size=arguments.shard_size,
        input_fingerprint="" if options.input_dir is None else _listing_hash(options.input_dir),
        output_dir=arguments.output.resolve(),
    )


def _listing_hash(folder: Path) -> str:
    """Hash of names and sizes of all files in a folder: notices changed input without reading it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listing = "\n".join(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in files)
    return hashlib.sha256(listing.encode()).hexdigest()[:16]


def _finished_report(plan: "BuildPlan") -> dict[str, Any] | None:
    """The report of this very build if the output folder holds it, whole."""
    path = plan.output_dir / REPORT_NAME
    if not path.is_file():
        return None
    report = json.loads(path.read_text(encoding="utf-8"))
    whole = all((plan.output_dir / name).is_file() for name in report["files"])
    return report if report["key"] == plan.key and report["kept_items"] and whole else None


def _clear_for(plan: "BuildPlan") -> None:
    """See that the output folder is new, or holds a part of this build, or a build that kept nothing."""
    folder = plan.output_dir
    if folder.is_file():
        raise InputError(f"--output {folder} is a file; pass a folder.")
    report = folder / REPORT_NAME
    if report.is_file():
        found = json.loads(report.read_text(encoding="utf-8"))
        if found["kept_items"] == 0 or found["key"] == plan.key:  # nothing to lose, or files are missing
            report.unlink()
            return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--output {folder} cannot be made ({error.strerror}); pass a folder you may write to."
        ) from error
    if plan.staging_dir.is_dir() or not any(folder.iterdir()):
        return
    if report.is_file() or plan.staging_dir.parent.is_dir():
        raise InputError(
            f"--output {folder} holds a different build (other arguments, input or generator version); choose another "
            "folder or delete it."
        )
    raise InputError(f"--output {folder} is not empty and holds no build; choose a new or an empty folder.")


def _publish(
    plan: "BuildPlan", reports: list["ShardReport"], command: str, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """Move the staged files to their places, then write classes, card and, last of all, the report.

    May be repeated: a file that was moved by a run that was killed is left where it is.
    """
    from dataset_builders.card import dataset_card, file_name, report_json, summarise
    from dataset_builders.shards import write_by_rename

    summary = summarise(plan, reports)
    parts = Counter((file["config"], file["split"]) for report in reports for file in report.files)
    places: Counter[tuple[str, str]] = Counter()
    names = []
    for report in reports:
        for file in report.files:
            key = file["config"], file["split"]
            staged = report.staged_file(plan, report.shard, *key)
            names.append(file_name(*key, places[key], parts[key]))
            places[key] += 1
            target = plan.output_dir / names[-1]
            target.parent.mkdir(parents=True, exist_ok=True)
            if staged.is_file():
                os.replace(staged, target)
    if class_names and "dense" in summary.configs:
        write_by_rename(plan.output_dir / CLASSES_NAME, json.dumps(class_names, indent=1))
    if summary.rows:
        write_by_rename(plan.output_dir / CARD_NAME, dataset_card(plan, summary, command, class_names))
    content = report_json(plan, summary, reports) | {"files": names}
    write_by_rename(plan.output_dir / REPORT_NAME, json.dumps(content, indent=1))
    shutil.rmtree(plan.staging_dir.parent)
    return content


def _command(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str:
    """The command that makes this data again, without what does not change it."""
    words = ["spatialboost", "build"]
    for name, value in vars(arguments).items():
        if name not in NOT_IN_COMMAND and value != parser.get_default(name):
            option = f"--{name.replace('_', '-')}"
            words += [option] if value is True else [option, str(value)]
    return shlex.join([*words, "--output", "DIR"])
