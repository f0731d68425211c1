"""Local engines: same bytes from one process and from several, and no worker is left behind."""

import os
import signal
import subprocess
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import pytest

from dataset_builders import executors
from dataset_builders.executors import run_shards
from dataset_builders.plans import ShardReport
from dataset_builders.scene import InputError
from tests.dataset_builders.builds_for_tests import ROOT, build, command, digests, rooms_plan


def test_workers_and_order_change_no_byte(tmp_path, monkeypatch):
    build(rooms_plan(tmp_path / "one", num_scenes=8))
    build(rooms_plan(tmp_path / "two", num_scenes=8), workers=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    backwards = rooms_plan(tmp_path / "backwards", num_scenes=8)
    backwards.staging_dir.mkdir(parents=True)
    for shard in reversed(range(backwards.num_shards)):
        executors.build_shard(backwards, shard)
    build(backwards)
    assert digests(tmp_path / "backwards") == digests(tmp_path / "one")


def test_reports_are_read_again_and_in_order(tmp_path):
    plan = rooms_plan(tmp_path / "data")
    reports = run_shards(plan, 1)
    assert [report.shard for report in reports] == [0, 1, 2] == [report.shard for report in reports]
    for report in reports:
        rows = sum(sum(one["rows"].values()) for one in report.items)
        assert rows == sum(count for file in report.files for count, _ in file["row_groups"]) > 0


@pytest.mark.parametrize(
    ("engine", "address", "told"),
    [("dask", None, "--engine 'dask' is unknown; choose one of local, ray"), ("local", "auto", "--ray-address auto")],
)
def test_unknown_engine(tmp_path, engine, address, told):
    with pytest.raises(InputError, match=told):
        run_shards(rooms_plan(tmp_path / "data"), 1, engine, address)


def test_a_worker_that_was_killed_is_told(tmp_path, monkeypatch):
    class BrokenPool:
        def __init__(self, *arguments, **options): ...

        def __enter__(self):
            return self

        def __exit__(self, *error): ...

        def submit(self, *arguments):
            future = Future()
            future.set_exception(BrokenProcessPool("a process died"))
            return future

        def shutdown(self, cancel_futures): ...

    monkeypatch.setattr(executors, "ProcessPoolExecutor", BrokenPool)
    with pytest.raises(InputError, match=r"2 worker processes was killed.*fewer --workers"):
        run_shards(rooms_plan(tmp_path / "data"), 2)


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    arguments = command(tmp_path / "data", "--workers", "2", scenes=400)
    parent = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    staging = tmp_path / "data" / ".build"
    try:
        _wait_for(lambda: any(staging.glob("*/shard-*.json")), seconds=60)
        workers = _children(parent.pid)
        assert len(workers) >= 2
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    _wait_for(lambda: not any(os.path.exists(f"/proc/{worker}") for worker in workers), seconds=10)


def test_staging_is_cleared_of_half_written_files(tmp_path):
    plan = rooms_plan(tmp_path / "data")
    plan.staging_dir.mkdir(parents=True)
    (plan.staging_dir / "dense-train-00000.parquet.77.partial").write_bytes(b"half")
    run_shards(plan, 1)
    assert not list(plan.staging_dir.glob("*.partial"))
    assert ShardReport.marker(plan, 2).is_file()


def _children(process: int) -> list[int]:
    with open(f"/proc/{process}/task/{process}/children") as stream:
        return [int(word) for word in stream.read().split()]


def _wait_for(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_workers_share_the_cores_and_this_process_keeps_its_own(monkeypatch):
    from dataset_builders.executors import _threads_per_process

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with _threads_per_process(3):
        assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with _threads_per_process(3):
        assert os.environ["OMP_NUM_THREADS"] == "7"
    assert os.environ["OMP_NUM_THREADS"] == "7"
