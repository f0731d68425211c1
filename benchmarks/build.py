"""Speed and memory of the builder itself, perception stubbed.

python -m benchmarks.build                     # a few minutes; prints three tables
python -m benchmarks.build --images 40 --few 200 --many 400 --megabytes 64     # under a minute
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SHARD_BYTES = 128_000_000
SIZE = (480, 640)  # of the images whose throughput is measured
TINY_PX = 32  # side of those whose number matters, not their size
STUBS = ("--depth-model", "stub", "--detector", "stub", "--segmenter", "stub", "--allow-partial", "--min-kept", "0")
TELL_PEAK = (
    "import resource, sys, spatialboost_cli; code = spatialboost_cli.main(sys.argv[1:]);"
    "print('peak KiB', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
)


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.build", description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=160, help="photographs to measure throughput with")
    parser.add_argument("--few", type=int, default=1000, help="tiny images of the first memory measurement")
    parser.add_argument("--many", type=int, default=10_000, help="and of the second")
    parser.add_argument("--megabytes", type=int, default=512, help="of images to measure the disk with")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    arguments = make_parser().parse_args(argv)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load before: {load}\n")
    with tempfile.TemporaryDirectory(prefix="spatialboost-") as folder:
        throughput(Path(folder), arguments.images)
        disk(Path(folder), arguments.megabytes)
        memory(Path(folder), arguments.few, arguments.many)
    return 0


def throughput(folder: Path, count: int) -> None:
    """Images per second from photographs to a published data set, start of the processes included and not."""
    write_photographs(folder / "photographs", count, SIZE)
    write_photographs(folder / "one", 1, SIZE)
    print(
        "| workers | images/s | images/s without the start | CPU ms per image, without the start |\n|---|---|---|---|"
    )
    for workers in (1, 2):
        arguments = ("--configs", "single_view,dense", "--shard-size", "16", "--workers", str(workers))
        start = build(folder / "one", folder / f"start-{workers}", *arguments)
        whole = build(folder / "photographs", folder / f"data-{workers}", *arguments)
        rates = f"{count / whole.seconds:.1f} | {(count - 1) / (whole.seconds - start.seconds):.1f}"
        print(f"| {workers} | {rates} | {(whole.cpu_s - start.cpu_s) / (count - 1) * 1e3:.0f} |", flush=True)


def disk(folder: Path, megabytes: int) -> None:
    """Megabytes per second of images to staged files, of merging those, and of writing the same bytes as they are."""
    from dataset_builders.publishing import Piece, RowGroup, _merge
    from dataset_builders.shards import _write_parquet

    image = np.random.default_rng(0).bytes(1_000_000)
    empty = {"bytes": b"", "path": None}
    num_rows = SHARD_BYTES // len(image)
    rates: dict[str, float] = {}
    total, piece, spent = 0, Piece(), 0.0
    for shard in range(max(1, megabytes * 1_000_000 // SHARD_BYTES)):
        rows = [
            {
                "image": {"bytes": bytes([row, shard]) + image, "path": None},
                "depth": empty,
                "segmentation": empty,
                "intrinsics": dict.fromkeys(("fx", "fy", "cx", "cy"), 1.0),
                "id": f"{shard}-{row}",
            }
            for row in range(num_rows)
        ]
        path = folder / f"staged-{shard}.parquet"
        start = time.perf_counter()
        groups = _write_parquet(rows, "dense", path)["row_groups"]
        os.sync()
        spent += time.perf_counter() - start
        total += path.stat().st_size
        for number, (count, stored_bytes) in enumerate(groups):
            piece.groups.append(RowGroup(path, number, len(groups), stored_bytes, (True,) * count))
    rates["records to staged files, hashed"] = total / spent
    start = time.perf_counter()
    _merge(piece, "dense", folder / "merged.parquet", folder)
    os.sync()
    rates["merging them into one file"] = total / (time.perf_counter() - start)
    start = time.perf_counter()
    with (folder / "plain").open("wb") as stream:
        for _ in range(total // len(image)):
            stream.write(image)
    os.sync()
    rates["the same bytes, sequentially"] = total / (time.perf_counter() - start)
    for path in folder.glob("*.parquet"):
        path.unlink()
    (folder / "plain").unlink()
    print("\n| what is written | MB/s, synced |\n|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate / 1e6:,.0f} |", flush=True)


def memory(folder: Path, few: int, many: int) -> None:
    """Peak memory of one process for few and for many tiny images."""
    print("\n| images | peak memory, MiB | seconds |\n|---|---|---|")
    for count in (few, many):
        source = folder / f"tiny-{count}"
        write_noise(source, count)
        cost = build(source, folder / f"tiny-data-{count}", "--configs", "dense")
        print(f"| {count:,} | {cost.peak_mib:.0f} | {cost.seconds:.0f} |", flush=True)


@dataclass(frozen=True)
class Cost:
    """What a build took: seconds, seconds of CPU in all its processes, and the peak memory of the main one."""

    seconds: float
    cpu_s: float
    peak_mib: float


def build(source: Path, output: Path, *arguments: str) -> Cost:
    """Run `spatialboost build` in a process of its own."""
    command = ["build", "--source", "images", "--input", str(source), "--output", str(output), *STUBS, *arguments]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-c", TELL_PEAK, *command], capture_output=True, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, cpu_s, int(done.stdout.split("peak KiB ")[1]) / 1024)


def write_photographs(folder: Path, count: int, size: tuple[int, int]) -> None:
    """JPEG files of rendered rooms, rendered small and enlarged, which is faster than rendering at size."""
    from dataset_builders.sources import SourceOptions, open_source

    folder.mkdir()
    options = SourceOptions(num_scenes=max(count, 2), image_size=(size[0] // 4, size[1] // 4), views=1)
    source = open_source("synthetic", options)
    for item in source.list_items()[:count]:
        image = Image.fromarray(source.load(item).views[0].image).resize(size[::-1])
        image.save(folder / f"{item}.jpg", quality=90)


def write_noise(folder: Path, count: int) -> None:
    """Tiny PNG files, no two alike."""
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (TINY_PX, TINY_PX, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06d}.png")


if __name__ == "__main__":
    raise SystemExit(main())
