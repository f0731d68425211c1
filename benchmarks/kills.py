"""Kill a build at random moments and run it again until it is done; its files must equal an undisturbed build's.

python -m benchmarks.kills --images 24 --kills 3 --engines local             # a minute
python -m benchmarks.kills                     # 20 kills of 200 images on each engine, some ten minutes
"""

import argparse
import hashlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENGINES = {"local": ("--workers", "2"), "ray": ("--engine", "ray", "--workers", "2")}
PAUSE_S = 2.0  # longest wait after a shard
CODE = "import sys, spatialboost_cli; sys.exit(spatialboost_cli.main(sys.argv[1:]))"


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the trial."""
    parser = argparse.ArgumentParser(prog="benchmarks.kills", description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=200, help="of the build, two per room")
    parser.add_argument("--kills", type=int, default=20, help="per engine")
    parser.add_argument("--engines", default="local,ray", help="comma-separated")
    parser.add_argument("--resolution", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 if every file is the same after all kills, 1 otherwise."""
    arguments = make_parser().parse_args(argv)
    whole = True
    with tempfile.TemporaryDirectory(prefix="spatialboost-") as name:
        folder = Path(name)
        run(folder / "undisturbed", arguments, ENGINES["local"])
        expected = digests(folder / "undisturbed")
        print(f"undisturbed: {len(expected)} files", flush=True)
        for engine in arguments.engines.split(","):
            kills = disturbed(folder / engine, arguments, engine)
            same = digests(folder / engine) == expected
            whole &= same
            print(f"{engine}: {kills} kills, {'the same' if same else 'OTHER'} files", flush=True)
    return 0 if whole else 1


def disturbed(output: Path, arguments: argparse.Namespace, engine: str) -> int:
    """Kill a build again and again, looking at what it published, then let it finish; the number of kills.

    A kill comes up to two shards and a random moment further on. A build that has its report is deleted, and the next
    is begun.
    """
    moments = random.Random(f"{arguments.seed}:{engine}")
    kills = 0
    while kills < arguments.kills:
        build = subprocess.Popen(
            command(output, arguments, ENGINES[engine]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_shards(build, output, max(0, num_shards(output) + moments.randint(0, 2)))
        try:
            build.wait(moments.uniform(0, PAUSE_S))
        except subprocess.TimeoutExpired:
            build.send_signal(signal.SIGKILL)
        if build.wait() == -signal.SIGKILL:
            kills += 1
            published = check_readable(output)
            print(f"  kill {kills}: {num_shards(output)} shards, {published} published files", flush=True)
        if (output / "build_report.json").is_file():
            shutil.rmtree(output)
    run(output, arguments, ENGINES[engine])
    return kills


def num_shards(output: Path) -> int:
    """Finished ones; -1 before work has begun."""
    return len(list(output.glob(".build/*/shard-*.json"))) if (output / ".build").is_dir() else -1


def wait_for_shards(build: subprocess.Popen, output: Path, wanted: int) -> None:
    """Until so many are finished, or all are and files begin to appear."""
    while build.poll() is None and num_shards(output) < wanted and not list(output.glob("*/*.parquet")):
        time.sleep(0.02)


def check_readable(output: Path) -> int:
    """Read every Parquet file that has its final name, all of it; how many there are."""
    import pyarrow.parquet

    files = list(output.rglob("*.parquet"))
    for path in files:
        pyarrow.parquet.read_table(path)
    return sum(".build" not in path.parts for path in files)


def command(output: Path, arguments: argparse.Namespace, engine: tuple[str, ...]) -> list[str]:
    """The build, small shards and small files, so that there is much to interrupt."""
    words = ["build", "--source", "synthetic", "--num-scenes", str(arguments.images // 2), "--output", str(output)]
    words += ["--resolution", str(arguments.resolution), "--shard-size", "8", "--file-size-mb", "1", *engine]
    return [sys.executable, "-c", CODE, *words]


def run(output: Path, arguments: argparse.Namespace, engine: tuple[str, ...]) -> None:
    """A build that nobody kills."""
    done = subprocess.run(command(output, arguments, engine), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file by its relative name."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


if __name__ == "__main__":
    raise SystemExit(main())
