"""Runs that are killed, stopped by a signal, or find their disk full, and go on as if nothing had happened."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import trainers.checkpoints
from tests.trainers.conftest import common
from tests.trainers.killed import assert_same_run, at_call, in_batch, in_save, kill, main, run_in_child
from trainers.checkpoints import PARTIAL, last_checkpoint
from trainers.resumable import ResumableTrainer
from trainers.run_record import is_finished, read_record

SETTINGS = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "logging_steps": 3, "report_to": "none"}


@pytest.fixture(scope="module")
def start(runs, tmp_path_factory) -> dict[int, list[str]]:
    """Arguments by stage; the language model drops attention at random, which only the same random numbers repeat."""
    folder = shutil.copytree(runs[1], tmp_path_factory.mktemp("dropout") / "stage1")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["attention_dropout"] = 0.1
    (folder / "config.json").write_text(json.dumps(config))
    return {2: ["--stage", "2", "--model", str(folder)], 3: ["--stage", "3", "--model", str(runs[2])]}


def arguments(start, stage: int, data: Path, folder: Path, **settings) -> list[str]:
    return [*start[stage], *common(data, folder, **SETTINGS | settings)]


# 12 rows in batches of 2: six batches an epoch, of which two make a step
ACCUMULATED = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
GROUPED = {"train_sampling_strategy": "group_by_length", "dataloader_num_workers": 2}


@pytest.mark.parametrize("stage, settings, sabotage, last", [
    (3, ACCUMULATED, in_batch(10), 4),
    (2, ACCUMULATED | GROUPED, in_batch(6), 2),
    (2, {"cache_features": "true"}, in_save(4), 2),  # the second checkpoint's optimizer
    (3, {"optim": "adamw_8bit"}, at_call(trainers.checkpoints.os, "rename", 2, kill), 2),
    (2, {"save_total_limit": 1}, at_call(trainers.checkpoints.os, "replace", 3, kill), 6),  # the results appear
    (2, {"save_total_limit": 1}, at_call(trainers.checkpoints.os, "rename", 3, kill), 4),  # the first goes
    (3, {"max_steps": 5, "save_steps": 5}, at_call(ResumableTrainer, "_save", 1, kill), 5),  # within an epoch
])  # fmt: skip
def test_a_killed_run_ends_as_an_undisturbed_one(start, data, tmp_path, stage, settings, sabotage, last, monkeypatch):
    if "cache_features" in settings:
        settings = settings | {"cache_features": tmp_path / "features"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(arguments(start, stage, data, whole, **settings)) == 0
    argv = arguments(start, stage, data, killed, **settings)
    assert run_in_child(argv, sabotage) == -signal.SIGKILL
    assert last_checkpoint(killed) == str(killed / f"checkpoint-{last}")
    assert not is_finished(killed)
    assert main([*argv, "--resume_from_checkpoint", "true"]) == 0
    assert_same_run(killed, whole)
    assert not (killed / PARTIAL).exists()


def test_a_run_that_is_killed_twice(start, data, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(arguments(start, 3, data, whole)) == 0
    argv = [*arguments(start, 3, data, killed), "--resume_from_checkpoint", "auto"]
    assert run_in_child(argv, in_batch(2)) == -signal.SIGKILL
    assert last_checkpoint(killed) is None  # "auto" starts from the beginning
    assert run_in_child(argv, in_batch(4)) == -signal.SIGKILL
    assert run_in_child(argv, in_batch(3)) == -signal.SIGKILL
    assert run_in_child(argv) == 0
    assert_same_run(killed, whole)


def test_what_a_checkpoint_and_a_finished_folder_hold(start, data, tmp_path):
    assert main(arguments(start, 3, data, tmp_path, save_total_limit=2)) == 0
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-4", "checkpoint-6"}
    names = {path.name for path in (tmp_path / "checkpoint-6").iterdir()}
    states = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "progress.json"}
    assert names == states | {"trained.safetensors"}
    trained = 4 * (8384 + 2112 + 64)  # bytes, in float32
    assert trained < (tmp_path / "checkpoint-6" / "trained.safetensors").stat().st_size < trained + 10_000
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*")]
    finished = {path.name for path in files if not path.parts[0].startswith("checkpoint-")}
    assert not [name for name in finished if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert {"model.safetensors", "run.json", "trainer_state.json", "encoder"} <= finished


COMMAND = (
    "import sys, torch, spatialboost_cli; torch.set_num_threads(1); sys.exit(spatialboost_cli.main(sys.argv[1:]))"
)


def test_sigterm_saves_first(start, data, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    settings = {"max_steps": 12, "logging_steps": 1, "save_strategy": "no", "dataloader_num_workers": 2}
    argv = arguments(start, 3, data, stopped, **settings)
    log = tmp_path / "log"
    process = subprocess.Popen([sys.executable, "-c", COMMAND, "train", *argv], stderr=log.open("w"))
    try:
        while process.poll() is None and "step 1/12" not in log.read_text():
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    finally:
        process.kill()
    record = read_record(stopped)
    assert (record["status"], record["signal"]) == ("interrupted", "SIGTERM")
    checkpoint = last_checkpoint(stopped)
    assert checkpoint == str(stopped / f"checkpoint-{record['steps']}")
    assert 1 <= record["steps"] < 12
    assert log.read_text().count("SIGTERM: stopping after this step") == 1  # and not once for each worker
    assert f"Stopped by SIGTERM after step {record['steps']}" in log.read_text()
    assert main([*argv, "--resume_from_checkpoint", "true"]) == 0
    assert main(arguments(start, 3, data, whole, **settings)) == 0
    assert_same_run(stopped, whole)


def interrupt(*args) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_saves_and_a_second_one_does_not_wait(start, data, tmp_path, capfd):
    argv = arguments(start, 3, data, tmp_path, save_strategy="no", dataloader_num_workers=1)
    assert run_in_child(argv, in_batch(2, interrupt)) == 130
    error = capfd.readouterr().err
    assert "SIGINT: stopping after this step, with a checkpoint; press Ctrl-C again to stop at once" in error
    assert (
        f"Stopped by SIGINT after step 2: go on with the same command and --resume_from_checkpoint {tmp_path}" in error
    )
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")

    def twice(*args) -> None:
        interrupt()
        interrupt()  # torchrun repeats it at once
        time.sleep(1.1)
        interrupt()

    assert run_in_child([*argv, "--resume_from_checkpoint", "true"], in_batch(1, twice)) == 130
    assert f"Stopped at once: go on with --resume_from_checkpoint {tmp_path}" in capfd.readouterr().err
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


def test_a_signal_in_the_last_step_lets_the_run_end(start, data, tmp_path):
    argv = arguments(start, 3, data, tmp_path, max_steps=2)
    assert run_in_child(argv, in_batch(2, lambda *_: os.kill(os.getpid(), signal.SIGTERM))) == 0
    assert is_finished(tmp_path)
