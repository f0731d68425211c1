"""The accelerate configs; and FSDP2 as accelerate does it, on two CPU processes: training, sharded save and load."""

import argparse
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from tests.commands import train as main
from tests.trainers.conftest import common
from tests.trainers.test_distributed import torchrun
from tests.trainers.test_sft import losses
from trainers.config import TrainingConfig
from trainers.scale_out import check_launch

CONFIGS = Path(__file__).parents[2] / "trainers" / "accelerate"
KINDS = {
    "cpu": "MULTI_GPU",
    "ddp": "MULTI_GPU",
    "deepspeed_zero2": "DEEPSPEED",
    "deepspeed_zero3": "DEEPSPEED",
    "fsdp2": "FSDP",
}


def launch_arguments(name: str) -> argparse.Namespace:
    """What `accelerate launch --config_file` makes of a file."""
    command = ["--config_file", str(CONFIGS / f"{name}.yaml"), "--num_processes", "2", "-m", "spatialboost_cli"]
    return _validate_launch_command(launch_command_parser().parse_args(command))[0]


def deepspeed_environment(stage: int) -> dict[str, str]:
    """Variables that `accelerate launch` gives to the processes."""
    arguments = launch_arguments(f"deepspeed_zero{stage}")
    arguments.deepspeed_fields_from_accelerate_config = ""
    return {key: str(value) for key, value in prepare_deepspeed_cmd_env(arguments)[1].items()}


def test_every_config_is_known():
    assert sorted(path.stem for path in CONFIGS.iterdir()) == sorted(KINDS)


@pytest.mark.parametrize("name, kind", KINDS.items())
def test_configs_are_what_accelerate_reads(name, kind):
    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))  # refuses keys of its own that it does not know
    assert config.distributed_type.value == kind
    assert config.num_processes == (2 if name == "cpu" else -1)
    known = {action.dest for action in launch_command_parser()._actions}
    assert {*config.fsdp_config, *config.deepspeed_config} <= known
    assert launch_arguments(name).num_processes == 2


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_configs_reach_the_processes(stage):
    environment = deepspeed_environment(stage)
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == str(stage)
    assert environment["ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE"] == "none"


@pytest.mark.parametrize(
    "setting, value, words",
    [
        ("FSDP_VERSION", "1", "fsdp_version=1"),
        ("FSDP_CPU_RAM_EFFICIENT_LOADING", "true", "fsdp_cpu_ram_efficient_loading=true leaves all processes"),
    ],
)
def test_launch_settings_that_cannot_train_are_refused(monkeypatch, tmp_path, setting, value, words):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    check_launch("adamw_torch_fused")
    monkeypatch.setenv(setting, value)
    with pytest.raises(ValueError, match=words):
        TrainingConfig(output_dir=str(tmp_path))


def test_optimizers_that_cannot_step_split_weights_are_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(ValueError, match="optim='paged_adamw_8bit' cannot step split weights"):
        check_launch("paged_adamw_8bit")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    check_launch("paged_adamw_8bit")


@pytest.fixture(scope="module")
def untied(data, encoder, language_model, tmp_path_factory) -> Path:
    """Stage 1 on a language model whose head has weights of its own."""
    root = tmp_path_factory.mktemp("untied")
    tied = AutoModelForCausalLM.from_pretrained(language_model)
    tied.config.tie_word_embeddings = False
    torch.manual_seed(1)
    type(tied)(tied.config).save_pretrained(root / "lm")
    AutoTokenizer.from_pretrained(language_model).save_pretrained(root / "lm")
    start = ["--stage", "1", "--encoder", str(encoder), "--language_model", str(root / "lm")]
    assert main([*start, *common(data, root / "stage1", report_to="none")]) == 0
    return root / "stage1"


@pytest.fixture(scope="module")
def split(runs, untied, data, tmp_path_factory) -> Path:
    """Folders of the same runs: by one process, by two that share the weights, and resumed by two others."""
    root = tmp_path_factory.mktemp("split")

    def argv(stage: int, model: Path, output_dir: Path, batch: int, **settings) -> list[str]:
        shared = {"total_batch_size": 4, "report_to": "none", "alpha_learning_rate": 0.05} | settings
        start = ["--stage", str(stage), "--model", str(model)]
        return [*start, *common(data, output_dir, **shared, per_device_train_batch_size=batch)]

    def launch(name: str, *argvs: list[str]) -> None:
        (root / f"{name}.json").write_text(json.dumps(argvs))
        environment = {key: str(value) for key, value in prepare_multi_gpu_env(launch_arguments("fsdp2")).items()}
        on_cpu = {"SPLIT_ON_CPU": "MULTI_GPU", "ACCELERATE_TORCH_DEVICE": "cpu"}
        done = torchrun("tests.trainers.distributed_worker", str(root / f"{name}.json"), **environment | on_cpu)
        assert done.returncode == 0, done.stderr[-4000:]

    saving = {"save_strategy": "steps", "save_steps": 1}
    for stage, start in ((2, untied), (3, runs[2])):
        assert main(argv(stage, start, root / f"one{stage}", 4)) == 0
    launch("first", argv(2, untied, root / "two2", 2), argv(3, runs[2], root / "two3", 2, **saving))
    resumed = {step: saving | {"resume_from_checkpoint": root / f"two3/checkpoint-{step}"} for step in (1, 3)}
    launch("second", *(argv(3, runs[2], root / f"resumed{step}", 2, **resumed[step]) for step in resumed))
    return root


@pytest.mark.parametrize("stage", [2, 3])
def test_split_weights_train_as_whole_ones(split, stage):
    two, one = split / f"two{stage}", split / f"one{stage}"
    assert [loss for _, loss in losses(two)] == pytest.approx([loss for _, loss in losses(one)], rel=1e-5)
    ours, theirs = load_file(two / "model.safetensors"), load_file(one / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert ("lm_head.weight" in ours) == (stage == 2)
    assert all(tensor.dtype == theirs[key].dtype for key, tensor in ours.items())
    assert max((tensor - theirs[key]).abs().max().item() for key, tensor in ours.items()) < 1e-4


def test_weights_were_split(split):
    first, second = (torch.load(split / f"two3.rank{rank}.pt") for rank in (0, 1))
    assert set(first["kinds"].values()) == {"DTensor"}
    name = "model.vision_tower.backbone.model.layer.0.attention.attn_plus.q_proj.weight"
    saved = load_file(split / "two3" / "encoder" / "model.safetensors")
    whole = next(tensor for key, tensor in saved.items() if key.endswith("layer.0.attention.attn_plus.q_proj.weight"))
    assert torch.equal(torch.cat([first["weights"][name], second["weights"][name]]), whole)


@pytest.mark.parametrize("step", [1, 3])
def test_sharded_checkpoints_load_into_other_processes(split, step):
    """From the last checkpoint nothing is trained: what was saved in shards is what comes out, bit for bit."""
    assert (split / "two3" / f"checkpoint-{step}" / "pytorch_model_fsdp_0" / "__1_0.distcp").is_file()
    assert losses(split / f"resumed{step}") == losses(split / "two3")
    for name in ("model.safetensors", "encoder/model.safetensors"):
        ours, theirs = load_file(split / f"resumed{step}" / name), load_file(split / "two3" / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


def test_the_gathered_encoder_loads_through_automodel(split):
    one, two = (
        AutoModel.from_pretrained(split / name / "encoder", trust_remote_code=True).eval() for name in ("one3", "two3")
    )
    assert type(two).__name__ == "SpatialBoostModel"
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        outputs = [model(pixels).last_hidden_state for model in (one, two)]
    assert torch.allclose(*outputs, atol=1e-4)
    code = {path.name for path in (split / "two3" / "encoder").glob("*.py")}
    assert code == {path.name for path in (split / "one3" / "encoder").glob("*.py")}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")
@pytest.mark.parametrize("zero_stage", [2, 3])
def test_deepspeed_trains_as_one_process_does(runs, data, split, tmp_path, zero_stage):
    folder, settings = tmp_path / "zero", {"total_batch_size": 4, "report_to": "none", "alpha_learning_rate": 0.05}
    argv = ["--stage", "3", "--model", str(runs[2]), *common(data, folder, **settings, per_device_train_batch_size=2)]
    (tmp_path / "runs.json").write_text(json.dumps([argv]))
    environment = deepspeed_environment(zero_stage) | {"SPLIT_ON_CPU": "MULTI_CPU", "DS_ACCELERATOR": "cpu"}
    done = torchrun("tests.trainers.distributed_worker", str(tmp_path / "runs.json"), **environment)
    assert done.returncode == 0, done.stderr[-4000:]
    one = split / "one3"
    assert [loss for _, loss in losses(folder)] == pytest.approx([loss for _, loss in losses(one)], rel=1e-5)
    for name in ("model.safetensors", "encoder/model.safetensors"):
        ours, theirs = load_file(folder / name), load_file(one / name)
        assert ours.keys() == theirs.keys()
        assert max((tensor - theirs[key]).abs().max().item() for key, tensor in ours.items()) < 1e-4
