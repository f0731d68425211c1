"""Speed of making data: rendered frames a minute, and dialogues a second from depth and masks in memory.

python -m benchmarks.data            # about a minute; prints two tables
"""

import argparse
import dataclasses
import multiprocessing
import os
import platform
import statistics
import time

from dataset_builders.scene import DropItem, Scene
from dataset_builders.sources import Source, SourceOptions, open_source
from dataset_builders.spatial_reasoning import build_record


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.data", description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", type=int, default=60, help="rooms to render, two views each")
    parser.add_argument("--dialogues", type=int, default=20, help="images of each size to ask about")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    arguments = make_parser().parse_args(argv)
    load = os.getloadavg()[0]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load before {load:.1f}\n")
    print("| pixels | workers | frames/min |\n|---|---|---|")
    for side_px in (64, 128, 224):
        source = open_source("synthetic", SourceOptions(num_scenes=arguments.scenes, image_size=(side_px, side_px)))
        for workers in (1, 2):
            print(f"| {side_px} | {workers} | {frames_per_minute(source, workers):,.0f} |", flush=True)
    print("\n| pixels | median ms | slowest ms | objects | kept |\n|---|---|---|---|---|")
    for size in ((480, 640), (1536, 1536)):
        print(dialogue_row(size, arguments.dialogues), flush=True)
    return 0


def frames_per_minute(source: Source, workers: int) -> float:
    """Rendering alone, the processes' start not counted."""
    items = source.list_items()
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(source.load, items[:workers], chunksize=1)  # imports
        start = time.perf_counter()
        frames = sum(pool.imap_unordered(_Count(source), items, chunksize=2))
        return frames / (time.perf_counter() - start) * 60


@dataclasses.dataclass
class _Count:
    """Loads an item and tells its number of views, so that no image travels between processes."""

    source: Source

    def __call__(self, item: str) -> int:
        return len(self.source.load(item).views)


def dialogue_row(size: tuple[int, int], count: int) -> str:
    """Time of geometry and questions for one image, one thread, everything in memory, nothing encoded."""
    source = open_source("synthetic", SourceOptions(num_scenes=count, image_size=size, views=1))
    seconds, objects, kept = [], [], 0
    for item in source.list_items():
        scene = _with_stored_image(source.load(item))
        objects.append(sum(not one.is_support for one in scene.objects))
        start = time.perf_counter()
        try:
            build_record(scene, seed=0)
            kept += 1
        except DropItem:
            pass
        seconds.append(time.perf_counter() - start)
    median, slowest = statistics.median(seconds) * 1e3, max(seconds) * 1e3
    return (
        f"| {size[0]}x{size[1]} | {median:.1f} | {slowest:.1f} | {statistics.mean(objects):.1f} | {kept} of {count} |"
    )


def _with_stored_image(scene: Scene) -> Scene:
    """The scene as a source of files gives it: with the bytes that are stored as they are."""
    views = tuple(dataclasses.replace(view, image_bytes=b"stored") for view in scene.views)
    return dataclasses.replace(scene, views=views)


if __name__ == "__main__":
    raise SystemExit(main())
