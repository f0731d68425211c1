"""`spatialboost train` with an objective: what trains, what is saved, resuming, and wrong input."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel

from modeling_spatialboost import SpatialBoostModel
from modeling_spatialboost.dual_channel_attention import is_second_channel
from tests.commands import train as main
from tests.trainers.conftest import image
from trainers.baselines import self_distillation
from trainers.baselines.arguments import OBJECTIVES, BaselineArguments, BaselineConfig, objective_of
from trainers.baselines.objectives import LEARNS_FROM
from trainers.config import StageArguments
from trainers.run_record import read_record

RECIPES = Path(__file__).parents[2] / "trainers" / "recipes"
STEPS, HALF = 4, 2


def arguments(objective: str, encoder: Path, rooms: Path, output_dir: Path, **overrides) -> list[str]:
    settings = {
        "objective": objective, "encoder": encoder, "output_dir": output_dir, "max_steps": STEPS, "logging_steps": 1,
        "per_device_train_batch_size": 2, "learning_rate": 0.01, "alpha_learning_rate": 0.05, "disable_tqdm": "true",
        "save_strategy": "steps", "save_steps": HALF, "activation_checkpointing": "false", "report_to": "none",
        "dataloader_pin_memory": "false", **overrides,
    }  # fmt: skip
    argv = ["--datasets", f"{rooms}:single_view", f"{rooms}:multi_view"]
    return argv + [text for key, value in settings.items() for text in (f"--{key}", str(value))]


@pytest.fixture(scope="module")
def baselines(tmp_path_factory, rooms, encoder):
    """Output folders of all objectives."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("baselines")
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        for objective in OBJECTIVES:
            assert main(arguments(objective, encoder, rooms, root / objective)) == 0
    return {objective: root / objective for objective in OBJECTIVES}


def make_small(patch):
    for name, value in {"HIDDEN": 32, "BOTTLENECK": 16, "NUM_PROTOTYPES": 32, "NUM_LOCAL_CROPS": 2}.items():
        patch.setattr(self_distillation, name, value)


def test_every_objective_has_its_row_and_its_recipe():
    recipes = [yaml.safe_load(path.read_text()) for path in (RECIPES / "baselines").glob("*.yaml")]
    ours = {recipe["objective"]: recipe for recipe in recipes if "objective" in recipe}
    assert set(ours) == set(OBJECTIVES) == set(LEARNS_FROM)
    stage3 = yaml.safe_load((RECIPES / "stage3.yaml").read_text())
    shared = (
        "datasets", "boosted_layers", "learning_rate", "alpha_learning_rate", "lr_scheduler_type", "warmup_steps",
        "weight_decay", "num_train_epochs", "total_batch_size", "seed",
    )  # fmt: skip
    for recipe in ours.values():
        assert {key: recipe[key] for key in shared} == {key: stage3[key] for key in shared}
        fields = BaselineArguments.__dataclass_fields__.keys() | BaselineConfig.__dataclass_fields__.keys()
        assert recipe.keys() <= fields


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_only_the_second_channel_and_the_decoder_train(baselines, encoder, objective):
    folder = baselines[objective]
    saved = SpatialBoostModel.from_pretrained(folder / "encoder")
    report = saved.verify_base_channel(str(encoder))
    assert report and report.compared > 30
    fresh = SpatialBoostModel.from_encoder(str(encoder)).state_dict()
    moved = {name for name, tensor in saved.state_dict().items() if not torch.equal(tensor, fresh[name])}
    assert moved == {name for name in moved if is_second_channel(name)}
    assert {name.rsplit(".", 1)[1] for name in moved} >= {"weight", "alpha_logit"}
    record = read_record(folder)
    assert (record["status"], record["stage"], record["objective"]) == ("finished", 3, objective)
    assert record["steps"] == STEPS and 0 < record["final_loss"] < 10
    assert record["learning_rates"] == {"attn_plus": 0.01, "alpha": 0.05, "decoder": 1e-3}
    trained = record["trainable_parameters"]
    assert (trained["attn_plus"], trained["alpha"]) == (8384, 64) and trained["decoder"] > 0
    assert [line["layer"] for line in record["alpha"]] == [0, 1]
    assert all(len(source["fingerprint"]) == 64 for source in record["data"])
    assert record["started_from"]["encoder"]["name"] == str(encoder)
    assert load_file(folder / "decoder.safetensors")
    assert OBJECTIVES[objective] in (folder / "encoder" / "README.md").read_text()
    assert {path.name for path in folder.glob("*.bin")} == set()


def test_the_encoder_loads_by_auto_classes(baselines):
    folder = str(baselines["depth"] / "encoder")
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        hidden = model(**processor(image(0), return_tensors="pt")).last_hidden_state
    assert hidden.shape == (1, 5 + 16, 32)


def losses(folder: Path) -> list[tuple[int, float]]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_resumed_run_equals_an_undisturbed_one(baselines, encoder, rooms, tmp_path, monkeypatch, objective):
    make_small(monkeypatch)
    whole, halved = baselines[objective], tmp_path / "halved"
    shutil.copytree(whole / f"checkpoint-{HALF}", halved / f"checkpoint-{HALF}")
    assert main(arguments(objective, encoder, rooms, halved, resume_from_checkpoint="true")) == 0
    assert [step for step, _ in losses(whole)] == [1, 2, 3, 4]
    assert losses(halved) == losses(whole)
    for name in ("decoder.safetensors", "encoder/model.safetensors", f"checkpoint-{STEPS}/trained.safetensors"):
        ours, theirs = load_file(halved / name), load_file(whole / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


def test_checkpoints_hold_what_changes_and_no_frozen_weight(baselines):
    for objective, folder in baselines.items():
        names = set(load_file(folder / f"checkpoint-{STEPS}" / "trained.safetensors"))
        others = {name for name in names if not name.startswith(("decoder.", "teacher_decoder.", "image_", "patch_"))}
        assert others and all(is_second_channel(name) for name in others)
        assert any(name.startswith("teacher_encoder.") for name in names) == (objective == "own")
    assert "decoder.head.batch_norm.running_mean" in set(
        load_file(baselines["depth"] / f"checkpoint-{STEPS}" / "trained.safetensors")
    )


def test_the_teacher_follows_during_a_run(baselines):
    early, late = (
        load_file(baselines["own"] / f"checkpoint-{step}" / "trained.safetensors") for step in (HALF, STEPS)
    )
    moved = [name for name in late if name.startswith("teacher_") and not torch.equal(early[name], late[name])]
    assert any("attn_plus" in name for name in moved) and any("decoder" in name for name in moved)
    assert not any(torch.equal(late[name], late[name.removeprefix("teacher_")]) for name in moved)


def test_activation_checkpointing_changes_no_loss(baselines, encoder, rooms, tmp_path, monkeypatch):
    make_small(monkeypatch)
    settings = {"activation_checkpointing": "true", "save_strategy": "no", "max_steps": 1, "warmup_steps": 0}
    for objective in ("depth", "own"):
        assert main(arguments(objective, encoder, rooms, tmp_path / objective, **settings)) == 0
        assert losses(tmp_path / objective)[0][1] == pytest.approx(losses(baselines[objective])[0][1], rel=1e-4)


def test_a_finished_run_is_not_repeated(baselines, encoder, rooms, caplog, capsys):
    folder = baselines["depth"]
    written = (folder / "run.json").stat().st_mtime_ns
    assert main(arguments("depth", encoder, rooms, folder)) == 0
    assert "holds this run, finished" in caplog.text
    assert (folder / "run.json").stat().st_mtime_ns == written
    assert main(arguments("segmentation", encoder, rooms, folder)) == 2
    assert "holds a finished run that differs in objective" in capsys.readouterr().err


def test_a_recipe_names_the_objective(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("objective: points\nseed: 1\n")
    assert objective_of(["--config", str(recipe)]) == "points"
    assert objective_of(["--config", str(recipe), "--objective=depth"]) == "depth"
    assert objective_of(["--config", str(tmp_path / "none.yaml")]) == objective_of(["--stage", "1"]) == "language"
    recipe.write_text("stage: [")
    assert objective_of(["--config", str(recipe)]) == "language"
    with pytest.raises(ValueError, match="objective='depth': pass `BaselineArguments`"):
        StageArguments(stage=3, datasets=["data"], model="model", objective="depth")


CASES = {
    "unknown": ({"objective": "flow"}, "objective='flow' is not known: pass language or one of depth"),
    "range elsewhere": ({"objective": "masks", "max_depth_m": 5}, "max_depth_m=5.0 has no effect on objective masks"),
    "range": ({"max_depth_m": 0}, "max_depth_m=0.0: pass metres"),
    "decoder elsewhere": ({"mask_decoder": "x/y"}, "mask_decoder='x/y' has no effect on objective depth"),
    "decoder": ({"objective": "masks", "mask_decoder": "no/such"}, "mask_decoder='no/such' is no SAM model"),
    "projector": ({"projector_learning_rate": 1e-3}, "a baseline has no projector, pass decoder_learning_rate"),
    "encoder": ({"encoder": "no/such"}, "encoder='no/such' is neither a folder"),
    "layers": ({"boosted_layers": 7}, "boosted_layers=[7] does not fit"),
    "checkpoint": ({"resume_from_checkpoint": "true"}, "no checkpoint in output_dir"),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_ends_with_one_sentence_and_code_2(case, encoder, rooms, tmp_path, capsys):
    overrides, message = CASES[case]
    settings = {"objective": "depth", "encoder": encoder} | overrides
    argv = arguments(settings.pop("objective"), settings.pop("encoder"), rooms, tmp_path / "out", **settings)
    assert_refused(argv, message, capsys)
    assert not (tmp_path / "out").exists()


def assert_refused(argv, message, capsys):
    assert main(argv) == 2
    printed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("spatialboost train: error: ")]
    assert len(printed) == 1 and message in printed[0]


def test_what_does_not_fit_is_refused(baselines, data, encoder, rooms, tmp_path, capsys):
    out = tmp_path / "out"
    bare = [text.replace(str(rooms), str(data)) for text in arguments("depth", encoder, rooms, out)]
    assert_refused(bare, "depth and class maps are read from", capsys)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("boosted_layers: []\n")
    argv = ["--config", str(recipe), *arguments("depth", encoder, rooms, out)]
    assert_refused(argv, "leaves nothing to train", capsys)
    boosted = baselines["depth"] / "encoder"
    argv = arguments("depth", boosted, rooms, out, boosted_layers=1)
    assert_refused(argv, "has boosted_layers=None already: pass the encoder that it was made from", capsys)
    checkpoint = baselines["segmentation"] / f"checkpoint-{HALF}"
    argv = arguments("depth", encoder, rooms, out, resume_from_checkpoint=checkpoint)
    assert_refused(argv, "does not fit what trains here", capsys)
