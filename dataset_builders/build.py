"""Make a data set: `spatialboost build`.

spatialboost build --source synthetic --num-scenes 40 --resolution 64 --output out/rooms     # CPU-sized
spatialboost build --source rgbd --input ../shared/realdata/mosd_tabletop --output out/tabletop
spatialboost build --config dataset_builders/recipes/reasoning_sa1b.yaml --input SA-1B --output out/sa1b   # a GPU
spatialboost build --source images --input photos --depth-model stub --segmenter stub --namer stub --output out/try
spatialboost build --source synthetic --num-scenes 100000 --resolution 240x320 --views 8 --workers 64 --output out/big
"""

import argparse
import json
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_builders.build_options import chat_options, plan_of, project_chat, read_recipe, source_options
from dataset_builders.publishing import REPORT_NAME, publish, remove_staging
from dataset_builders.scene import InputError
from dataset_builders.sources import SOURCES, open_source

if TYPE_CHECKING:
    from dataset_builders.plans import BuildPlan

DTYPES = ("auto", "float32", "float16", "bfloat16")  # auto: bfloat16 on a GPU, float32 on a CPU
# arguments that do not change the data
NOT_IN_COMMAND = (
    "config", "output", "workers", "min_kept", "engine", "ray_address", "device", "batch_size", "keep_models",
    "chat_concurrency", "chat_cache", "max_requests", "max_tokens", "token_price", "dry_run",
)  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `spatialboost build`."""
    parser = argparse.ArgumentParser(
        prog="spatialboost build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, help="a recipe: YAML of these arguments; the command line wins")
    parser.add_argument("--source", choices=sorted(SOURCES), required=True, help="where the images come from")
    parser.add_argument("--output", type=Path, required=True, help="folder of the data set")
    _add_input(parser.add_argument_group("what to read"))
    _add_writing(parser.add_argument_group("what to write"))
    _add_models(parser.add_argument_group("models for what the source lacks (id[@revision], folder, or stub)"))
    _add_chat(parser.add_argument_group("chat model for captions and questions (its key: see docs/data.md)"))
    _add_running(parser.add_argument_group("how to run; changes no byte of the result"))
    return parser


def _add_input(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--input", type=Path, help="folder of the raw data; not for synthetic and hub")
    group.add_argument("--num-scenes", type=int, help="scenes to make (synthetic), or at most to read")
    group.add_argument("--views", type=int, help="views per scene; default: 2 (synthetic), else at most 8")
    group.add_argument("--frame-step", type=float, help="take every n-th frame of a sequence; of a video, in seconds")
    group.add_argument("--resolution", default="240x320", help="HEIGHTxWIDTH or SIDE in pixels (synthetic)")
    group.add_argument(
        "--variety", default="plain", choices=["plain", "rich"], help="of rooms (synthetic); rich: docs/miniature.md"
    )
    group.add_argument("--intrinsics", help="fx,fy,cx,cy in pixels, where the data does not say")
    group.add_argument("--up-world", help="x,y,z of the direction against gravity, where the data does not say")
    group.add_argument("--dataset", help="id or folder of an image data set (hub)")
    group.add_argument("--dataset-config", help="its configuration (hub)")
    group.add_argument("--dataset-split", default="train", help="its split (hub)")
    group.add_argument("--image-column", help="its column of images, where there are several (hub)")
    group.add_argument("--with-held-out", action="store_true", help="read ScanNet's validation and test scans, too")


def _add_writing(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--configs", help="comma-separated; default: all that the source can give")
    group.add_argument("--seed", type=int, default=0, help="of rooms, points, pairs and phrasings")
    group.add_argument("--order", default="forward", choices=["forward", "reverse", "random"], help="of the 12 turns")
    group.add_argument("--allow-partial", action="store_true", help="keep dialogues that lack some turns")
    group.add_argument("--shard-size", type=int, default=128, help="scenes per shard, which is built in memory")
    group.add_argument("--file-size-mb", type=int, default=500, help="about the size of a Parquet file")
    group.add_argument("--min-kept", type=float, default=0.5, help="share of scenes that must give a record")


def _add_models(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--depth-model", help="metric depth: apple/DepthPro, Depth Anything V2 metric, ZoeDepth")
    group.add_argument(
        "--detector", help="open vocabulary, drops images of fewer than two things: OWLv2, Grounding DINO"
    )
    group.add_argument("--segmenter", help="masks: SAM, SAM 2, SAM 3")
    group.add_argument("--namer", help="names of masks: Florence-2, or 'chat'")
    group.add_argument("--reconstructor", help="poses: VGGT, 'keypoints:ID' or 'keypoints:sift'")
    group.add_argument("--pair-distance", help="LPIPS that pairs of views are chosen by: alex, vgg, squeeze[:FOLDER]")
    group.add_argument("--vocabulary", help="names that the detector looks for, comma-separated, or a file of lines")
    group.add_argument(
        "--dtype", default="auto", choices=["auto", "float32", "float16", "bfloat16"], help="of weights"
    )


def _add_chat(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--chat-model", help="its id, as its server calls it")
    group.add_argument("--chat-url", help="of an OpenAI-like server; default: the Hub's inference providers")
    group.add_argument("--chat-provider", help="of the Hub's inference providers; default: the Hub's choice")
    group.add_argument("--max-requests", type=int, help="budget; scenes beyond it are dropped as chat_budget")
    group.add_argument("--max-tokens", type=int, help="budget of prompt and answer tokens together")
    group.add_argument("--token-price", help="dollars per million tokens IN,OUT, to tell the cost")
    group.add_argument("--chat-concurrency", type=int, default=8, help="requests in flight per worker")
    group.add_argument("--chat-cache", type=Path, help="folder of answers; default: a folder beside --output")
    group.add_argument(
        "--dry-run", action="store_true", help="tell what would be asked and what it costs; write nothing"
    )


def _add_running(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--engine", default="local", choices=["local", "ray"], help="processes here, or a Ray cluster")
    group.add_argument("--ray-address", help="of a running cluster; default: one on this machine")
    group.add_argument("--workers", type=int, default=1, help="processes")
    group.add_argument("--device", default="auto", help="of the models: auto, cpu, cuda, cuda:1")
    group.add_argument("--batch-size", type=int, default=4, help="images per call of a model")
    group.add_argument("--keep-models", action="store_true", help="all models stay in memory between shards")


def main(argv: list[str] | None = None) -> int:
    """Build, write, and tell what was kept and dropped.

    Returns:
        0.

    Raises:
        InputError: an argument or the input is wrong, the output folder holds something else, or too little was kept.
    """
    arguments = make_parser().parse_args(read_recipe(argv))
    options = source_options(arguments)
    chat = chat_options(arguments)
    source = open_source(arguments.source, options)
    plan = plan_of(arguments, source, options, chat)
    for notice in plan.notices:
        print(notice)
    if chat is not None:
        print("\n".join(project_chat(plan, source)))
    if arguments.dry_run:
        print(f"{len(plan.items)} scenes would be read; nothing was written and nobody was asked")
        return 0
    report = _finished_report(plan)
    if report is not None:
        remove_staging(plan)
        print(f"{arguments.output} already holds this build, nothing to do")
    else:
        report = _build(plan, arguments, source)
    from dataset_builders.card import table

    print(table(report))
    return _verdict(report, arguments)


def _build(plan: "BuildPlan", arguments: argparse.Namespace, source: Any) -> dict[str, Any]:
    """Run all shards and publish them."""
    from dataset_builders.executors import run_shards

    _clear_for(plan)
    if plan.chat is not None:
        from dataset_builders.text_client import ChatClient

        ChatClient(plan.chat).check()
    reports = run_shards(plan, arguments.workers, arguments.engine, arguments.ray_address)
    class_names = tuple(getattr(source, "segmentation_classes", ()))
    return publish(plan, reports, _command(arguments), class_names)


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


def _command(arguments: argparse.Namespace) -> str:
    """The command that makes this data again, without what does not change it."""
    parser = make_parser()
    words = ["spatialboost", "build"]
    for name, value in vars(arguments).items():
        if name not in NOT_IN_COMMAND and value != parser.get_default(name):
            option = f"--{name.replace('_', '-')}"
            words += [option] if value is True else [option, str(value)]
    return shlex.join([*words, "--output", "DIR"])
