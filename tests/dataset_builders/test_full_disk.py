"""A full disk: one sentence, exit code 2, nothing half-published, and a second run that completes."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dataset_builders import shards
from dataset_builders.plans import appearing, full_disk_told
from dataset_builders.scene import InputError
from tests.dataset_builders.builds_for_tests import digests, rooms_plan, run_command


@pytest.fixture
def small_disk(tmp_path):
    """A file system that is smaller than the data set."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"this user may not mount: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def assert_full(run: subprocess.CompletedProcess, folder: Path) -> None:
    assert run.returncode == 2, run.stderr
    assert f"no space is left on the disk of --output {folder}; free some" in run.stderr
    assert "Traceback" not in run.stderr
    for path in folder.rglob("*.parquet"):
        pq.read_table(path)
    assert not list(folder.rglob("*.partial")) and not (folder / "README.md").exists()


def test_a_disk_that_fills_up(small_disk, tmp_path):
    data = small_disk / "data"
    (small_disk / "rubbish").write_bytes(bytes(150_000))
    assert_full(run_command(data, "--workers", "2"), data)
    (small_disk / "rubbish").unlink()
    assert_full(run_command(data), data)  # still too small
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    again = run_command(data)
    assert again.returncode == 0, again.stderr
    assert run_command(tmp_path / "undisturbed").returncode == 0
    assert digests(data) == digests(tmp_path / "undisturbed")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_drop(tmp_path, monkeypatch, code):
    """Where a source or a cache of answers finds the disk full, the item must not be counted as bad."""

    def full(self, item):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("dataset_builders.sources.synthetic.SyntheticSource.load", full)
    plan = rooms_plan(tmp_path / "data")
    plan.staging_dir.mkdir(parents=True)
    with pytest.raises(InputError, match="no space is left"):
        shards.build_shard(plan, 0)
    assert not list(plan.staging_dir.iterdir())


def test_other_errors_are_left_alone(tmp_path):
    with pytest.raises(PermissionError), full_disk_told(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_nothing_appears_that_was_not_finished(tmp_path):
    with pytest.raises(KeyboardInterrupt), appearing(tmp_path / "file") as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    shutil.rmtree(tmp_path)
