"""Error of the reconstruction from keypoints and depth, on real rooms of which the camera poses are known.

python -m benchmarks.reconstruction                                        # SIFT, half a minute on one core
python -m benchmarks.reconstruction --matcher keypoints:ETH-CVG/lightglue_superpoint   # needs the weights
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import ndimage

from dataset_builders.geometry import Array, invert_pose, transform
from dataset_builders.perception import PerceptionOptions
from dataset_builders.perception.alignment import Link, chain_poses, scale_of
from dataset_builders.perception.matching import Matcher, SiftMatcher, TransformersMatcher
from dataset_builders.perception.reconstruction import link_views, pairs_to_match, reconstruct_from_matches
from dataset_builders.scene import InputError, View
from dataset_builders.sources import SourceOptions, open_source

ROOMS = Path("../shared/realdata/hololens_office")
SCALE_NOISE = 0.1  # of simulated guessed depth: a factor per view
SHAPE_NOISE = 0.03  # and a smooth relative error within a view
Errors = list[tuple[float, float]]  # degrees, millimetres


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.reconstruction", description=__doc__.split("\n")[0])
    parser.add_argument("--input", type=Path, default=ROOMS, help="folder of posed RGB-D sequences (source rgbd)")
    parser.add_argument("--matcher", default="keypoints:sift", help="keypoints:sift or keypoints:ID_OR_FOLDER")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    arguments = make_parser().parse_args(argv)
    kind, _, name = arguments.matcher.partition(":")
    if kind != "keypoints" or not name:
        raise InputError(f"--matcher {arguments.matcher!r} is unknown; pass keypoints:sift or keypoints:ID_OR_FOLDER.")
    matcher: Matcher = SiftMatcher() if name == "sift" else TransformersMatcher(name, PerceptionOptions())
    source = open_source("rgbd", SourceOptions(input_dir=arguments.input, views=8))
    rooms = [source.load(item).views for item in source.list_items()]
    start = time.perf_counter()
    matches = [matcher.match([view.image for view in views], pairs_to_match(len(views))) for views in rooms]
    seconds = (time.perf_counter() - start) / len(rooms)
    print(f"{arguments.matcher}, {len(rooms)} rooms of {len(rooms[0])} views, matching takes {seconds:.1f} s a room\n")
    print("| depth | poses | pairs | degrees: median | 90 % | mm: median | 90 % | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for title, scaled in (("sensor", False), ("guessed (simulated)", True)):
        given = [_as_guessed(views, seed) for seed, views in enumerate(rooms)] if scaled else rooms
        for row in measure(given, matches, scaled):
            print(f"| {title} | {row} |", flush=True)
    print(f"\n{false_links(rooms, matcher)}")
    print(f"Reprojection of the matches, median pixels: {reprojection(rooms, matches)}")
    return 0


def measure(rooms: Sequence[Sequence[View]], matches: Sequence[Sequence[Array]], scaled: bool) -> list[str]:
    """A row each for pairs alone, poses chained along the best pairs, and all poses refined together."""
    errors: dict[str, Errors] = {"each pair alone": [], "chained": [], "refined": []}
    seconds, connected = dict.fromkeys(errors, 0.0), 0
    for views, found in zip(rooms, matches):
        pairs = pairs_to_match(len(views))
        start = time.perf_counter()
        tried = [link_views(views, *one, scaled=scaled) for one in zip(pairs, found)]
        links = [link for link in tried if link is not None]
        seconds["each pair alone"] += time.perf_counter() - start
        errors["each pair alone"] += [pose_error(link.pose, views, link.first, link.second) for link in links]
        start = time.perf_counter()
        chained = chain_poses(len(views), links)
        seconds["chained"] += time.perf_counter() - start
        start = time.perf_counter()
        refined = reconstruct_from_matches(views, pairs, found).camera_to_world
        seconds["refined"] += time.perf_counter() - start
        connected += sum(pose is not None for pose in refined)
        for name, poses in (("chained", chained), ("refined", refined)):
            for first, second in combinations(range(len(views)), 2):
                from_pose, to_pose = poses[first], poses[second]
                if from_pose is not None and to_pose is not None:
                    errors[name].append(pose_error(np.linalg.inv(from_pose) @ to_pose, views, first, second))
    total = sum(len(views) for views in rooms)
    rows = []
    for name, found_errors in errors.items():
        degrees, millimetres = np.array(found_errors).T
        figures = " | ".join(f"{np.median(one):.2f} | {np.percentile(one, 90):.2f}" for one in (degrees, millimetres))
        label = f"{name}, {connected} of {total} views" if name == "refined" else name
        rows.append(f"{label} | {len(found_errors)} | {figures} | {seconds[name] / len(rooms):.2f}")
    return rows


def pose_error(pose: Array, views: Sequence[View], first: int, second: int) -> tuple[float, float]:
    """Degrees and millimetres between a pose, second camera to first, and the one that the data set states."""
    rigid = pose.copy()
    rigid[:3, :3] /= scale_of(pose)
    stated = invert_pose(views[first].camera_to_world) @ views[second].camera_to_world
    wrong = invert_pose(rigid) @ stated
    sine = np.linalg.norm(wrong[:3, :3] - wrong[:3, :3].T) / np.sqrt(8)
    return float(np.rad2deg(np.arcsin(min(sine, 1.0)))), float(np.linalg.norm(rigid[:3, 3] - stated[:3, 3]) * 1000)


def false_links(rooms: Sequence[Sequence[View]], matcher: Matcher) -> str:
    """How many pairs of views of different rooms are taken to see the same place."""
    views = [view for room in rooms for view in room]
    room_of = [number for number, room in enumerate(rooms) for _ in room]
    pairs = [pair for pair in combinations(range(len(views)), 2) if room_of[pair[0]] != room_of[pair[1]]]
    matches = matcher.match([view.image for view in views], pairs)
    wrong = sum(link_views(views, pair, found, scaled=True) is not None for pair, found in zip(pairs, matches))
    return f"Views of different rooms that were linked: {wrong} of {len(pairs)} pairs."


def reprojection(rooms: Sequence[Sequence[View]], matches: Sequence[Sequence[Array]]) -> str:
    """How far matched points fall from each other by the stated poses and by ours: what the stated ones are worth."""
    pixels: dict[str, list[Array]] = {"stated poses": [], "our poses": []}
    for views, found in zip(rooms, matches):
        pairs = pairs_to_match(len(views))
        links = [link for one in zip(pairs, found) if (link := link_views(views, *one, scaled=False)) is not None]
        ours = reconstruct_from_matches(views, pairs, found).camera_to_world
        for name, poses in (("stated poses", [view.camera_to_world for view in views]), ("our poses", ours)):
            pixels[name] += [_reprojected(link, poses, views[link.first].intrinsics.fx) for link in links]
    return ", ".join(f"{name} {np.median(np.concatenate(values)):.2f}" for name, values in pixels.items())


def _reprojected(link: Link, poses: Sequence[Array | None], focal_length_px: float) -> Array:
    first, second = poses[link.first], poses[link.second]
    if first is None or second is None:
        return np.empty(0)
    seen = transform(link.second_points, invert_pose(first) @ second)
    off = seen[:, :2] / seen[:, 2:] - link.first_points[:, :2] / link.first_points[:, 2:]
    return focal_length_px * np.linalg.norm(off, axis=1)


def _as_guessed(views: Sequence[View], seed: int) -> list[View]:
    """The views with depth as a model guesses it from one image: a wrong factor, and smooth errors."""
    random = np.random.default_rng(seed)
    guessed = []
    for view in views:
        smooth = ndimage.gaussian_filter(random.normal(size=view.depth_m.shape), min(view.depth_m.shape) / 8)
        factor = random.normal(1, SCALE_NOISE) * (1 + SHAPE_NOISE * smooth / smooth.std())
        guessed.append(replace(view, depth_m=(view.depth_m * factor).astype(np.float32)))
    return guessed


if __name__ == "__main__":
    raise SystemExit(main())
