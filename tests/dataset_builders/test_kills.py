"""`kill -9` at any moment: the next run ends with the bytes of an undisturbed one (at size: benchmarks/kills.py)."""

import random
import signal
import subprocess
import time

import pyarrow.parquet as pq
import pytest

from tests.dataset_builders.builds_for_tests import ROOT, command, digests, run_command

LOCAL = ("--workers", "2")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The files of a build of 24 images, and how long it took."""
    folder = tmp_path_factory.mktemp("undisturbed") / "data"
    start = time.monotonic()
    assert run_command(folder, *LOCAL).returncode == 0
    return digests(folder), time.monotonic() - start


def killed(folder, seconds: float, *arguments: str) -> bool:
    """Start a build and kill it some time after its first shard; whether it was still running."""
    build = subprocess.Popen(
        command(folder, *arguments), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while build.poll() is None and not list(folder.glob(".build/*/shard-*.json")):
        time.sleep(0.02)
    try:
        build.wait(seconds)
    except subprocess.TimeoutExpired:
        build.send_signal(signal.SIGKILL)
    return build.wait() == -signal.SIGKILL


def assert_whole(folder) -> None:
    """What has its final name can be read."""
    for path in [*folder.rglob("*.parquet")]:
        assert pq.read_table(path).num_rows > 0


def test_random_kills(undisturbed, tmp_path):
    expected, seconds = undisturbed
    moments = random.Random(0)
    kills = 0
    for _ in range(3):
        kills += killed(tmp_path / "data", moments.uniform(0, 0.2) * seconds, *LOCAL)
        assert_whole(tmp_path / "data")
    assert kills > 0
    last = run_command(tmp_path / "data", *LOCAL)
    assert last.returncode == 0, last.stderr
    assert digests(tmp_path / "data") == expected


def test_a_kill_on_ray(undisturbed, tmp_path):
    pytest.importorskip("ray")
    assert killed(tmp_path / "data", 0, "--engine", "ray")
    assert_whole(tmp_path / "data")
    last = run_command(tmp_path / "data", "--engine", "ray")
    assert last.returncode == 0, last.stderr
    assert digests(tmp_path / "data") == undisturbed[0]
