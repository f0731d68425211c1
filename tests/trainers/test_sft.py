"""The command `spatialboost train`: three stages in a row, what they write, resuming, and wrong input."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from modeling_spatialboost import SpatialBoostForConditionalGeneration
from tests.commands import train as main
from tests.isolated import run_isolated
from tests.trainers.conftest import common, image, row, save_data
from trainers.run_record import is_finished, read_record

ISOLATED = """
import json, sys, torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor
folder, picture = sys.argv[1:]
model = AutoModel.from_pretrained(folder + "/encoder", trust_remote_code=True)
processor = AutoImageProcessor.from_pretrained(folder + "/encoder", trust_remote_code=True)
with torch.no_grad():
    hidden = model(**processor(Image.open(picture), return_tensors="pt")).last_hidden_state
vlm = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
AutoProcessor.from_pretrained(folder, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
same = all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), vlm.vision_tower.state_dict().values()))
print(json.dumps({"class": type(model).__name__, "same": same, "hidden": hidden.flatten().tolist()}))
"""


def test_the_three_stages_leave_their_records(runs, data):
    for stage, folder in runs.items():
        record = read_record(folder)
        assert is_finished(folder)
        assert (record["stage"], record["steps"]) == (stage, 3)
        assert [source["rows"] for source in record["data"]] == [8, 4]
        assert all(len(source["fingerprint"]) == 64 for source in record["data"])
        assert record["versions"]["torch"] == torch.__version__.split("+")[0]
        assert record["config"]["datasets"] == [f"{data}:single_view", f"{data}:multi_view"]
        assert record["config"]["seed"] == 42
        assert record["seconds"] > 0
        assert 0 < record["final_loss"] < 20
        assert record["frozen_parameters"] > 0
    first, second, third = (read_record(folder) for folder in runs.values())
    assert list(first["trainable_parameters"]) == ["projector"]
    assert list(second["trainable_parameters"]) == ["projector", "language_model"]
    assert third["trainable_parameters"] == {"attn_plus": 8384, "projector": 2112, "alpha": 64}
    assert third["learning_rates"] == {"attn_plus": 0.01, "projector": 0.01, "alpha": 0.05}
    assert [line["layer"] for line in third["alpha"]] == [0, 1]
    assert all(line["min"] < 0.5 < line["max"] for line in third["alpha"])
    assert "alpha" not in second
    assert third["started_from"]["model"]["name"] == str(runs[2])


def test_frozen_parts_stay_through_all_stages(runs, encoder, language_model):
    weights = {stage: load_file(folder / "model.safetensors") for stage, folder in runs.items()}
    vision = [name for name in weights[1] if "vision_tower" in name]
    assert len(vision) > 30
    assert all(torch.equal(weights[stage][name], weights[1][name]) for stage in (2, 3) for name in vision)
    original = load_file(encoder / "model.safetensors")
    assert all(
        torch.equal(weights[3][f"model.vision_tower.backbone.{name}"], tensor) for name, tensor in original.items()
    )
    text = [name for name in weights[1] if "language_model" in name]
    before = load_file(language_model / "model.safetensors")
    assert torch.equal(weights[1]["model.language_model.norm.weight"], before["model.norm.weight"])
    assert not any(torch.equal(weights[2][name], weights[1][name]) for name in text)
    assert all(torch.equal(weights[3][name], weights[2][name]) for name in text)


def test_a_trained_model_answers_with_its_cache(runs):
    for folder in runs.values():
        model = SpatialBoostForConditionalGeneration.from_pretrained(folder)
        assert model.generation_config.use_cache and model.config.text_config.use_cache


def test_every_stage_writes_cards_that_the_hub_reads(runs):
    for stage, folder in runs.items():
        card = ModelCard.load(folder / "README.md")
        assert card.data.pipeline_tag == "image-text-to-text" and f"stage {stage}" in card.text
        assert "learning rates" in card.text and "$" not in card.text
    card = ModelCard.load(runs[3] / "encoder" / "README.md")
    assert card.data.library_name == "transformers" and card.data.base_model is None  # a folder is no Hub id
    record = json.loads((runs[3] / "run.json").read_text())
    assert record == json.loads((runs[3] / "encoder" / "run.json").read_text())  # the card says that it lies there
    alpha = record["alpha"]
    assert f"| 1 | {alpha[1]['mean']:.3f} |" in card.text


def test_encoder_loads_where_the_clone_cannot_be_seen(runs, tmp_path):
    from modeling_spatialboost import SpatialBoostForConditionalGeneration, SpatialBoostProcessor

    moved = shutil.copytree(runs[3], tmp_path / "moved")
    picture = tmp_path / "view.png"
    image(7).save(picture)
    answer = json.loads(run_isolated(ISOLATED, tmp_path / "home", str(moved), str(picture)).splitlines()[-1])
    assert answer["class"] == "SpatialBoostModel"
    assert answer["same"]
    here = SpatialBoostForConditionalGeneration.from_pretrained(runs[3]).vision_tower.eval()
    pixels = SpatialBoostProcessor.from_pretrained(runs[3]).image_processor(image(7), return_tensors="pt")
    with torch.no_grad():
        expected = here(**pixels).last_hidden_state.flatten()
    assert torch.allclose(torch.tensor(answer["hidden"]), expected, atol=1e-5)


def losses(folder) -> list[tuple[int, float]]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]


def test_a_resumed_run_equals_an_undisturbed_one(runs, data, tmp_path):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "alpha_learning_rate": 0.05}
    start = ["--stage", "3", "--model", str(runs[2])]
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    assert main([*start, *common(data, whole, **settings)]) == 0
    shutil.copytree(whole / "checkpoint-2", halved / "checkpoint-2")
    assert "SpatialBoost vision-language model" in (whole / "README.md").read_text()  # and not TRL's card
    assert main([*start, *common(data, halved, **settings, resume_from_checkpoint="true")]) == 0
    assert [step for step, _ in losses(whole)] == [1, 2, 3, 4]
    assert losses(halved) == losses(whole)
    for name in ("model.safetensors", "encoder/model.safetensors"):
        ours, theirs = load_file(halved / name), load_file(whole / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


def test_a_finished_run_is_not_repeated(runs, data, tmp_path, capsys, caplog):
    start = ["--stage", "2", "--model", str(runs[1])]
    folder = tmp_path / "out"
    assert not is_finished(folder)
    assert main([*start, *common(data, folder, max_steps=1)]) == 0
    weights = folder / "model.safetensors"
    written = weights.stat().st_mtime_ns
    caplog.clear()
    assert main([*start, *common(data, folder, max_steps=1)]) == 0
    assert weights.stat().st_mtime_ns == written
    assert "holds this run, finished" in caplog.text
    changed = [*start, *common(data, folder, max_steps=1, learning_rate=0.02)]
    assert main(changed) == 2
    assert "differs in learning_rate: pass" in capsys.readouterr().err
    assert weights.stat().st_mtime_ns == written
    assert main([*changed, "--force"]) == 0
    assert weights.stat().st_mtime_ns != written


def test_new_data_or_new_starting_weights_are_another_run(runs, data, tmp_path, capsys):
    folder = tmp_path / "out"
    assert main(["--stage", "2", "--model", str(runs[1]), *common(data, folder, max_steps=1)]) == 0
    capsys.readouterr()
    assert main(["--stage", "2", "--model", str(runs[2]), *common(data, folder, max_steps=1)]) == 2
    assert "differs in started_from" in capsys.readouterr().err
    other = save_data(tmp_path / "data", single_view=[row(0, 1)], multi_view=[row(1, 2)])
    assert main(["--stage", "2", "--model", str(runs[1]), *common(other, folder, max_steps=1)]) == 2
    assert "differs in data" in capsys.readouterr().err


def test_an_interrupted_run_is_not_finished(runs, data, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("trainers.trainer.StageTrainer.train", stop)
    assert main(["--stage", "2", "--model", str(runs[1]), *common(data, tmp_path)]) == 130
    assert read_record(tmp_path)["status"] == "started"
    assert not is_finished(tmp_path)


@pytest.fixture(scope="module")
def wrong_input(runs, data, encoder, language_model, tmp_path_factory) -> dict[str, tuple[list[str], str]]:
    """Arguments, and what the sentence on stderr must say."""
    tmp_path = tmp_path_factory.mktemp("wrong")
    broken = [row(index, 1) for index in range(3)]
    broken[1]["images"] *= 2
    broken_data = save_data(tmp_path / "broken", single_view=broken, multi_view=[row(0, 2)])
    unreadable = [row(index, 1) for index in range(3)]
    unreadable[2]["images"] = [{"bytes": b"no image", "path": None}]
    unreadable_data = save_data(tmp_path / "unreadable", single_view=unreadable, multi_view=[row(0, 2)])
    text = {"images": [], "messages": row(0, 1)["messages"], "id": "words", "source": "test"}
    text["messages"][0]["content"] = text["messages"][0]["content"][1:]
    text_data = save_data(tmp_path / "text", single_view=[text], multi_view=[row(0, 2)])
    new = ["--encoder", encoder, "--language_model", language_model]
    out = tmp_path / "out"
    ok = common(data, out)
    cases = {
        "stage": (["--stage", "4", *ok], "stage=4 is not a stage"),
        "data folder": (["--stage", "2", "--model", runs[1], *common(tmp_path / "none", out)], "neither a folder"),
        "image count": (["--stage", "1", *new, *common(broken_data, out)], "row 1 (id 'scene_1') has 2 images and 1"),
        "image": (["--stage", "1", *new, *common(unreadable_data, out)], "row 2 (id 'scene_2') has an image that"),
        "text only": (["--stage", "1", *new, *common(text_data, out)], "row 0 (id 'words') has no images"),
        "no model": (["--stage", "2", "--model", tmp_path / "none", *ok], "none' holds no model that transformers"),
        "no VLM": (["--stage", "3", "--model", encoder, *ok], "holds a 'dinov3_vit' model: pass the output_dir"),
        "encoder": (["--stage", "1", "--encoder", "no/such", *new[2:], *ok], "encoder='no/such' is neither a folder"),
        "no encoder": (["--stage", "1", "--encoder", language_model, *new[2:], *ok], "'qwen3' cannot be boosted"),
        "language model": (["--stage", "1", *new[:2], "--language_model", "no/such", *ok], "language_model='no/such'"),
        "no checkpoint": (
            ["--stage", "2", "--model", runs[1], *ok, "--resume_from_checkpoint", "true"],
            "resume_from_checkpoint='true': no checkpoint in output_dir",
        ),
        "wrong checkpoint": (
            ["--stage", "2", "--model", runs[1], *ok, "--resume_from_checkpoint", runs[1] / "encoder"],
            "no checkpoint there",
        ),
        "layers": (
            ["--stage", "3", "--model", runs[2], *ok, "--boosted_layers", "5"],
            "boosted_layers=[5] does not fit",
        ),
        "other layers": (
            ["--stage", "3", "--model", runs[3], *ok, "--boosted_layers", "1"],
            "boosted_layers=[1], but",
        ),
        "recipe": (["--config", tmp_path / "none.yaml"], "none.yaml"),
    }
    return {name: ([str(text) for text in argv], message) for name, (argv, message) in cases.items()}


CASES = (
    "stage", "data folder", "image count", "image", "text only", "no model", "no VLM", "encoder", "no encoder",
    "language model", "no checkpoint", "wrong checkpoint", "layers", "other layers", "recipe",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_ends_with_one_sentence_and_code_2(case, wrong_input, capsys):
    argv, message = wrong_input[case]
    assert main(argv) == 2
    printed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("spatialboost train: error: ")]
    assert len(printed) == 1
    assert message in printed[0]
    if "--output_dir" in argv:
        assert not Path(argv[argv.index("--output_dir") + 1]).exists()


def test_unboosted_stage_3_ends_with_one_sentence_and_code_2(runs, data, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("stage: 3\nboosted_layers: []\n")
    assert main(["--config", str(recipe), "--model", str(runs[2]), *common(data, tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "has boosted_layers=[]: set `boosted_layers: null` (all layers) in the recipe" in error
    assert str(runs[2]) in error


def test_some_layers_only(runs, data, tmp_path):
    argv = ["--stage", "3", "--model", str(runs[2]), "--boosted_layers", "1", *common(data, tmp_path, max_steps=2)]
    assert main(argv) == 0
    assert [line["layer"] for line in read_record(tmp_path)["alpha"]] == [1]


def test_missing_argument_gives_short_usage(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--stage", "1"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "the following arguments are required: --datasets" in error
    assert len(error.splitlines()) < 8
