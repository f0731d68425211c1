"""What goes wrong during a run, or before its first step: each ends with one sentence and exit code 2."""

import ctypes
import json
import os
import resource
import shutil
import subprocess
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch import nn
from trl import SFTTrainer

from tests.trainers.conftest import FEATURES, common, row
from tests.trainers.killed import at_call, losses, main, run_in_child
from trainers.checkpoints import PARTIAL, checkpoint_bytes, last_checkpoint
from trainers.config import TrainingConfig
from trainers.models import provenance
from trainers.resumable import ResumableTrainer
from trainers.run_record import read_record

SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 6, "report_to": "none"}


@pytest.fixture(scope="module")
def start(runs) -> dict[int, list[str]]:
    return {2: ["--stage", "2", "--model", str(runs[1])], 3: ["--stage", "3", "--model", str(runs[2])]}


def error_of(capfd) -> str:
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("spatialboost train: error: ")]
    assert len(lines) == 1
    return lines[0]


def poison(monkeypatch, what: str, row: str) -> None:
    """Make the loss of batches with a row NaN, or their gradients infinite."""
    step, compute_loss = ResumableTrainer.training_step, SFTTrainer.compute_loss

    def training_step(self, model, inputs, *args, **kwargs):
        self.poisoned = row in inputs["rows"]
        loss = step(self, model, inputs, *args, **kwargs)
        if self.poisoned and what == "gradients":
            next(p for p in self.model.parameters() if p.grad is not None).grad.fill_(float("inf"))
        return loss

    def poisoned_loss(self, *args, **kwargs):
        return compute_loss(self, *args, **kwargs) * (float("nan") if self.poisoned and what == "loss" else 1)

    monkeypatch.setattr(ResumableTrainer, "training_step", training_step)
    monkeypatch.setattr(SFTTrainer, "compute_loss", poisoned_loss)


@pytest.mark.parametrize("settings", [
    {"logging_steps": 5, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    {"logging_steps": 5, "dataloader_num_workers": 1, "train_sampling_strategy": "group_by_length"},
    {"logging_steps": 1, "cache_features": "true"},
])  # fmt: skip
def test_a_loss_that_is_no_number_names_its_rows(start, data, tmp_path, capfd, monkeypatch, settings):
    if "cache_features" in settings:
        settings = settings | {"cache_features": tmp_path / "features"}
    poison(monkeypatch, "loss", "scene_5")
    out = tmp_path / "out"
    assert main([*start[2], *common(data, out, **SAVING | settings)]) == 2
    error, record = error_of(capfd), read_record(out)
    assert f"the loss of step {record['steps']} is nan (rows " in error and "'scene_5'" in error
    assert record["status"] == "failed" and "scene_5" in record["rows"]
    assert len(record["rows"]) == settings.get("per_device_train_batch_size", 4)  # and not those of other batches
    before = (record["steps"] - 1) // 2 * 2  # the last checkpoint is older than the bad step
    last = last_checkpoint(out)
    assert last == (str(out / f"checkpoint-{before}") if before else None)
    assert ("--resume_from_checkpoint " + str(last) in error) if last else ("and start again" in error)
    assert not (out / "model.safetensors").exists()


def test_gradients_that_are_no_numbers_name_the_rows_of_the_step(start, data, tmp_path, capfd, monkeypatch):
    poison(monkeypatch, "gradients", "scene_5")
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    assert main([*start[3], *common(data, tmp_path, **SAVING | settings)]) == 2
    assert "the gradients of step" in (error := error_of(capfd)) and "'scene_5'" in error
    assert len(read_record(tmp_path)["rows"]) == 4


def test_a_run_that_diverges_stops(start, data, tmp_path, capfd):
    settings = SAVING | {"learning_rate": 1e30, "max_grad_norm": 0, "save_steps": 1}
    assert main([*start[2], *common(data, tmp_path, **settings)]) == 2
    assert "lower --learning_rate (now 1e+30)" in error_of(capfd)
    checkpoint = torch.load(Path(last_checkpoint(tmp_path)) / "optimizer.pt", weights_only=True)
    assert all(state["exp_avg"].isfinite().all() for state in checkpoint["state"].values())


def test_rows_without_ids_are_named_by_data_set_and_number(start, data, tmp_path, capfd, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [row(index, 1) for index in range(4)]
    Dataset.from_list(rows, features=FEATURES).remove_columns("id").to_parquet(folder / "train.parquet")
    poison(monkeypatch, "gradients", f"{folder} row 2")
    argv = ["--datasets", str(folder), *common(data, tmp_path / "out")[3:]]
    assert main([*start[2], *argv]) == 2
    assert f"'{folder} row 2'" in error_of(capfd)


def test_a_checkpoint_of_another_run_is_refused(start, data, tmp_path, capfd):
    second, third, layers = tmp_path / "second", tmp_path / "third", tmp_path / "layers"
    assert main([*start[2], *common(data, second, **SAVING | {"max_steps": 2})]) == 0
    assert main([*start[3], *common(data, third, **SAVING | {"max_steps": 2})]) == 0
    fewer = [*start[3], "--boosted_layers", "1"]
    for argv, checkpoint, reason in (
        (start[3], second / "checkpoint-2", "(it holds model.language_model.embed_tokens.weight, "),
        (start[3], second / "checkpoint-2", "; it lacks model.vision_tower.backbone."),
        (fewer, third / "checkpoint-2", "(it holds model.vision_tower.backbone.model.layer.0.attention.alpha_logit, "),
        (start[3], third, "no checkpoint there"),
    ):
        capfd.readouterr()
        assert main([*argv, *common(data, layers, **SAVING, resume_from_checkpoint=checkpoint)]) == 2
        assert f"resume_from_checkpoint={str(checkpoint)!r}" in (error := error_of(capfd)) and reason in error
    cut = third / "checkpoint-2" / "trained.safetensors"
    cut.write_bytes(cut.read_bytes()[:1000])
    assert main([*start[3], *common(data, layers, **SAVING, resume_from_checkpoint=cut.parent)]) == 2
    assert "trained.safetensors cannot be read" in error_of(capfd)


def test_a_half_copied_checkpoint_is_passed_over(start, data, tmp_path):
    assert main([*start[3], *common(data, tmp_path, **SAVING | {"max_steps": 4})]) == 0
    for name in ("trained.safetensors", "optimizer.pt", "trainer_state.json", "scheduler.pt"):
        kept = (tmp_path / "checkpoint-4" / name).rename(tmp_path / "away")
        assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
        kept.rename(tmp_path / "checkpoint-4" / name)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")


def limit_files(*args) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))


@pytest.mark.parametrize("call, written", [(3, "checkpoint-4"), (1000, None)])
def test_a_file_that_cannot_be_written(start, data, tmp_path, capfd, call, written):
    """The kernel refuses files beyond 10 kB from a certain batch on; at the end, the model itself."""
    settings = SAVING if written else SAVING | {"save_strategy": "no", "max_steps": 2}
    argv = [*start[3], *common(data, tmp_path, **settings)]
    sabotage = (
        at_call(ResumableTrainer, "training_step", call, limit_files)
        if written
        else at_call(ResumableTrainer, "_save", 1, limit_files)
    )
    assert run_in_child(argv, sabotage) == 2
    error = error_of(capfd)
    assert f"{written or 'the trained model'}" in error and "cannot be written" in error
    assert "make space, and " in error and "free)" in error
    assert last_checkpoint(tmp_path) == (str(tmp_path / "checkpoint-2") if written else None)
    assert not (tmp_path / PARTIAL).exists() and not (tmp_path / "model.safetensors").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may mount a disk")
def test_a_disk_that_fills_up_and_is_cleared(start, data, tmp_path, capfd):
    """A disk of 700 kB; when it is larger, the run goes on from the checkpoint that is left, as an undisturbed one."""
    disk, out = tmp_path / "disk", tmp_path / "disk" / "out"
    disk.mkdir()
    argv = [*start[3], *common(data, out, **SAVING | {"save_steps": 1})]

    def mount(*options: str) -> None:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(disk)]).returncode:
            os._exit(77)

    def full_then_cleared() -> None:
        if ctypes.CDLL(None).unshare(0x00020000):  # CLONE_NEWNS: the disk is this process's only
            os._exit(77)
        mount("size=700k")
        codes = [main(argv)]
        left, partial = last_checkpoint(out), (out / PARTIAL).exists()
        mount("remount", "size=20m")
        codes.append(main([*argv, "--resume_from_checkpoint", "true"]))
        shutil.copytree(out, tmp_path / "copy")
        (tmp_path / "seen.json").write_text(json.dumps([codes, left, partial]))
        os._exit(0)

    code = run_in_child(argv, full_then_cleared)
    error = capfd.readouterr().err
    if code == 77:
        pytest.skip("no disk can be mounted here")
    assert code == 0, error
    codes, left, partial = json.loads((tmp_path / "seen.json").read_text())
    assert codes == [2, 0] and left is not None and not partial
    assert "No space left on device" in error
    assert main([*start[3], *common(data, tmp_path / "whole", **SAVING | {"save_steps": 1})]) == 0
    assert losses(tmp_path / "copy") == losses(tmp_path / "whole")


def test_space_is_checked_before_the_first_step(start, data, tmp_path, capfd, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1, 1, 1000))
    assert main([*start[3], *common(data, tmp_path / "out")]) == 2
    assert "a checkpoint and the trained model take" in (error := error_of(capfd)) and "0.001 MB are free" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("optim, bytes_each", [("adamw_torch", 12), ("adamw_8bit", 6)])
def test_size_of_a_checkpoint(tmp_path, optim, bytes_each):
    model = nn.Linear(10, 10)
    model.bias.requires_grad_(False)
    training = TrainingConfig(output_dir=str(tmp_path), optim=optim, report_to="none")
    assert checkpoint_bytes(model, training) == 100 * bytes_each


@pytest.mark.parametrize("setting", [
    {"eval_strategy": "steps"}, {"save_strategy": "best"}, {"load_best_model_at_end": True}, {"save_only_model": True},
    {"enable_jit_checkpoint": True},
])  # fmt: skip
def test_settings_that_checkpoints_cannot_honour(setting, tmp_path):
    with pytest.raises(ValueError, match=f"{next(iter(setting))}=.*: remove it"):
        TrainingConfig(output_dir=str(tmp_path), report_to="none", **setting)


@pytest.mark.parametrize("stage, before, message", [
    (3, 1, "was trained by stage 1, and stage 3 continues from stage 2"),
    (2, 3, "was trained by stage 3, and stage 2 continues from stage 1"),
])  # fmt: skip
def test_a_stage_that_starts_from_the_wrong_one(runs, data, tmp_path, capfd, stage, before, message):
    argv = ["--stage", str(stage), "--model", str(runs[before]), *common(data, tmp_path / "out", max_steps=1)]
    assert main(argv) == 2
    assert message in error_of(capfd)
    assert main([*argv, "--force"]) == 0


def test_a_stage_that_starts_from_a_run_that_has_not_ended(runs, data, tmp_path, capfd):
    folder = shutil.copytree(runs[2], tmp_path / "stage2")
    (folder / "run.json").write_text(json.dumps(read_record(folder) | {"status": "interrupted"}))
    assert main(["--stage", "3", "--model", str(folder), *common(data, tmp_path / "out")]) == 2
    assert "holds a run that is 'interrupted' (see run.json): finish it" in error_of(capfd)
    (folder / "run.json").unlink()  # a model without a record is taken as it is
    assert main(["--stage", "3", "--model", str(folder), *common(data, tmp_path / "out", max_steps=1)]) == 0


def test_a_repository_is_pinned_by_its_commit(runs, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--org--name"
    shutil.copytree(runs[1], repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert provenance("org/name") == commit
    assert provenance("org/absent") is None
