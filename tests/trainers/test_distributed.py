"""Two processes (gloo, on the CPU) end with the same weights, and train as one with the double batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modeling_spatialboost import SpatialBoostForConditionalGeneration
from tests.commands import train as main
from tests.trainers.conftest import common, part, row, save_data
from tests.trainers.test_sft import losses
from trainers.run_record import read_record
from trainers.scale_out import _use_projector
from trainers.stages import apply_stage

ROOT = Path(__file__).parents[2]
CASES = {
    # name: stage, batch of a process, data, settings of both runs
    "stage2": (2, 2, "mixed", {}),
    "stage2_some_without_images": (2, 1, "with_text", {"activation_checkpointing": "true", "max_steps": 4}),
    "stage2_cached": (2, 2, "mixed", {}),
    "stage3": (3, 2, "mixed", {"alpha_learning_rate": 0.05}),
    "stage3_accumulated": (3, 1, "mixed", {"alpha_learning_rate": 0.05, "activation_checkpointing": "true"}),
}


def torchrun(*argv: str, module: bool = True, **environment: str) -> subprocess.CompletedProcess:
    """Run a module, or a script, in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m"] * module + [str(word) for word in argv]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)


def text_row(index: int) -> dict:
    messages = [{"role": role, "content": [part("text", f"text {index}")]} for role in ("user", "assistant")]
    return {"images": [], "messages": messages, "id": f"text_{index}", "source": "test"}


@pytest.fixture(scope="module")
def with_text(tmp_path_factory) -> Path:
    """Half of the rows have no images, so that the batch of a process may have none."""
    rows = [row(index, 1) if index % 2 else text_row(index) for index in range(8)]
    return save_data(tmp_path_factory.mktemp("with_text"), single_view=rows, multi_view=rows)


@pytest.fixture(scope="module")
def pairs(runs, data, with_text, tmp_path_factory):
    """Folders of each case, by two processes and by one with the double batch; and what the two printed."""
    root = tmp_path_factory.mktemp("distributed")
    folders, argvs = {}, []
    for name, (stage, batch, rows, settings) in CASES.items():
        folders[name] = root / f"{name}_two", root / f"{name}_one"
        start = ["--stage", str(stage), "--model", str(runs[stage - 1])]
        source = data if rows == "mixed" else with_text
        shared = {"total_batch_size": 4, "report_to": "none"} | settings
        if name == "stage2_cached":
            shared["cache_features"] = root / "features"
        argvs.append([*start, *common(source, folders[name][0], **shared, per_device_train_batch_size=batch)])
        shared.pop("cache_features", None)  # one process reads the pictures themselves
        whole = common(source, folders[name][1], **shared, per_device_train_batch_size=2 * batch)
        assert main([*start, *whole]) == 0
    (root / "runs.json").write_text(json.dumps(argvs))
    done = torchrun("tests.trainers.distributed_worker", str(root / "runs.json"), ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr[-4000:]
    return folders, done.stdout + done.stderr


@pytest.mark.parametrize("name", CASES)
def test_both_processes_end_with_the_same_weights(pairs, name):
    two = pairs[0][name][0]
    first, second = (torch.load(f"{two}.rank{rank}.pt")["weights"] for rank in (0, 1))
    assert len(first) > 60 and first.keys() == second.keys()
    assert all(torch.equal(weight, second[key]) for key, weight in first.items())


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one_with_the_double_batch(pairs, name):
    two, one = pairs[0][name]
    steps = [step for step, _ in losses(one)]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) >= 3
    assert [step for step, _ in losses(two)] == steps
    assert [loss for _, loss in losses(two)] == pytest.approx([loss for _, loss in losses(one)], rel=1e-5)
    ours, theirs = load_file(two / "model.safetensors"), load_file(one / "model.safetensors")
    assert ours.keys() == theirs.keys()
    difference = max((tensor - theirs[key]).abs().max().item() for key, tensor in ours.items())
    assert difference < 1e-4, difference  # three AdamW steps of 0.01 each, in float32
    settings = [read_record(folder)["config"] for folder in (two, one)]
    assert [config["gradient_accumulation_steps"] for config in settings] == [4 // (2 * CASES[name][1])] * 2


def test_nothing_is_told_or_written_twice(pairs):
    folders, output = pairs
    for name, (two, one) in folders.items():
        assert sorted(path.name for path in two.rglob("*")) == sorted(path.name for path in one.rglob("*")), name
        assert output.count(f"saved in {two}") == 1
    assert output.count("Data: ") == len(folders)
    assert output.count("parameters train") == len(folders)


def test_two_processes_share_the_caching_of_features(pairs):
    shards = list((pairs[0]["stage2_cached"][0].parent / "features").rglob("*"))
    stored = [load_file(path)["hashes"] for path in shards if path.suffix == ".safetensors"]
    assert sum(map(len, stored)) == 8 + 2 + 3 + 2 + 3  # every picture once
    assert not [path for path in shards if path.suffix == ".partial"]


def test_no_unused_parameter_is_sought(pairs):
    two = pairs[0]["stage2"][0]
    assert torch.load(f"{two}.rank0.pt")["unused_are_sought"] is False
    assert "find_unused_parameters" not in pairs[1]


def test_a_mistake_is_told_once(tmp_path):
    argv = ("train", "--stage", "7", "--datasets", "none", "--output_dir", str(tmp_path))
    done = torchrun("spatialboost_cli", *argv, ACCELERATE_USE_CPU="true")
    assert done.returncode == 1  # torchrun's own; it reports that of the processes
    assert done.stderr.count("spatialboost train: error: stage=7 is not a stage: pass one of 1, 2, 3.") == 1
    assert "exitcode  : 2" in done.stderr and "ValueError" not in done.stderr


ENDING = """
import atexit, os, pathlib, runpy, sys
import torch.distributed as dist

seen = pathlib.Path(sys.argv.pop(1) + "." + os.environ["RANK"])
atexit.register(lambda: seen.write_text(f"in a group: {dist.is_initialized()}"))

class Witness:
    def __del__(self, seen=seen, suffix=".taken_apart"):
        seen.with_suffix(suffix).touch()

witness = Witness()
runpy.run_module("spatialboost_cli", run_name="__main__", alter_sys=True)
"""


def test_the_command_leaves_the_group_and_ends_at_once(encoder, language_model, data, tmp_path):
    """gloo's threads abort, now and then, a process that takes itself apart beside them."""
    (tmp_path / "ending.py").write_text(ENDING)
    start = ["--stage", "1", "--encoder", str(encoder), "--language_model", str(language_model)]
    argv = [str(tmp_path / "seen"), "train", *start, *common(data, tmp_path / "out", max_steps=1)]
    done = torchrun(tmp_path / "ending.py", *argv, module=False, ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count(f"saved in {tmp_path / 'out'}") == 1
    left = {path.name: path.read_text() for path in tmp_path.glob("seen*")}
    assert left == {"seen.0": "in a group: False", "seen.1": "in a group: False"}


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("images", [1, 0])
def test_whatever_trains_has_a_gradient_in_every_batch(runs, stage, images):
    """DDP is told not to look for unused parameters, and FSDP would wait for them for ever."""
    model = SpatialBoostForConditionalGeneration.from_pretrained(runs[stage], dtype=torch.float32).train()
    apply_stage(model, stage)
    model.model.register_forward_pre_hook(_use_projector, with_kwargs=True)
    ids = torch.full((1, 8), 5)
    pixels = None
    if images:
        ids = torch.cat([torch.full((1, 16), model.config.image_token_id), ids], dim=1)
        pixels = torch.rand(1, 3, 32, 32)
    hidden = model.model(input_ids=ids, pixel_values=pixels, use_cache=False).last_hidden_state
    model.lm_head(hidden).square().sum().backward()
    trained = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    if stage == 3 and not images:  # rows without images are refused there
        trained = {name: gradient for name, gradient in trained.items() if "projector" in name}
    assert all(gradient is not None for gradient in trained.values())
    assert len(trained) >= 4
