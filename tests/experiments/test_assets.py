"""The small models that come with the code: files and records agree, and one command makes them again."""

import json
import shutil

import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoTokenizer

from experiments import assets
from experiments.assets import ASSETS, LARGEST_BYTES, NAMES, SHIPPED, SMALLEST, AssetRecipe, asset, described, sha256
from experiments.fitting import command
from experiments.image_reading import measure_reading, others, read_rows, table
from experiments.world import World
from modeling_spatialboost import SpatialBoostForConditionalGeneration, SpatialBoostModel
from tests.experiments.starting_models import LANGUAGE, SHAPE
from trainers.config import StageArguments
from trainers.run_record import read_record
from trainers.starting_point import check_starting_point

TINY = AssetRecipe(
    **vars(SMALLEST) | {"encoder": SHAPE, "language": LANGUAGE, "encoder_steps": 2, "language_steps": 2}
)
shipped = pytest.mark.skipif(not (ASSETS / "base" / "run.json").is_file(), reason="no assets in this installation")


@pytest.fixture(scope="module")
def made(rooms, tmp_path_factory):
    """The assets of the tiniest recipe, and the folder of the runs between."""
    root = tmp_path_factory.mktemp("assets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assets, "make_world", lambda folder, size, seed: World(rooms, rooms, rooms))
        patch.setattr(assets, "SMALLEST", TINY)
        assert assets.main(["--smallest", "--output", str(root / "assets"), "--work", str(root / "work")]) == 0
    return root


@shipped
@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_recipe_is_the_code_s_and_the_files_are_the_recorded_ones(name):
    record = read_record(ASSETS / name)
    assert record["recipe"] == described(SHIPPED, name), "the recipe was changed: python -m experiments.assets"
    found = {file.name: sha256(file) for file in (ASSETS / name).iterdir() if file.name != "run.json"}
    assert found == record["files"]
    assert (
        record["command"].split(" --only ")[0] == "python -m experiments.assets"
        and record["git_commit"]
        and record["hardware"]
    )
    card = (ASSETS / name / "README.md").read_text()
    assert record["command"] in card and f"seed {SHIPPED.seed}" in card and record["git_commit"] in card


@shipped
def test_the_assets_are_small_and_load():
    assert sum(file.stat().st_size for file in ASSETS.rglob("*") if file.is_file()) <= LARGEST_BYTES
    assert not [file for file in ASSETS.rglob("*") if file.suffix in (".bin", ".pt", ".pkl", ".py")]
    base, boosted = (
        AutoModel.from_pretrained(asset("base")),
        SpatialBoostModel.from_adapter(asset("boosted"), asset("base")),
    )
    assert base.dtype == boosted.dtype == torch.bfloat16
    assert boosted.verify_base_channel(str(asset("base")))
    assert any(row["min"] < 0.5 or row["max"] > 0.5 for row in boosted.alpha_table())
    model = AutoModelForCausalLM.from_pretrained(asset("language_model"))
    tokenizer = AutoTokenizer.from_pretrained(asset("language_model"))
    prompt = tokenizer("<|im_start|>user\nDescribe the scene.<|im_end|>\n<|im_start|>assistant\n", return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=60, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(answer).endswith(".<|im_end|>")  # fluent: a sentence that ends


def test_one_command_makes_them_all(made):
    folder = made / "assets"
    for name in NAMES:
        record = json.loads((folder / name / "run.json").read_text())
        assert record["recipe"] == described(TINY, name) and record["hardware"] and record["trained"]
        files = {file.name: sha256(file) for file in (folder / name).iterdir() if file.name != "run.json"}
        assert files == record["files"]
        assert str(made) not in json.dumps(record) + (folder / name / "README.md").read_text()  # nobody's own folders
    for name in ("stage2", "vlm", "depth_reader"):
        model = SpatialBoostForConditionalGeneration.from_pretrained(folder / name)
        check_starting_point(StageArguments(stage=3, model=str(folder / name), datasets=[]))
        assert model.dtype == torch.bfloat16 and not [*(folder / name).glob("*.py")]
    boosted = SpatialBoostModel.from_adapter(folder / "boosted", folder / "base")
    for name, parameter in model.vision_tower.state_dict().items():
        assert torch.equal(parameter, boosted.state_dict()[name])
    assert len(boosted.alpha_table()) == SHAPE.num_layers
    assert AutoImageProcessor.from_pretrained(folder / "base").size["height"] == SHAPE.image_size_px


def test_one_asset_is_made_again_and_the_others_stay(made, rooms, monkeypatch, capsys):
    monkeypatch.setattr(assets, "make_world", lambda folder, size, seed: World(rooms, rooms, rooms))
    monkeypatch.setattr(assets, "SMALLEST", TINY)
    before = {file: file.stat().st_mtime_ns for file in (made / "assets").rglob("*.*")}
    argv = ["--smallest", "--only", "depth_reader", "--output", str(made / "assets"), "--work", str(made / "work")]
    assert assets.main(argv) == 0
    changed = {file.parent.name for file, time in before.items() if file.stat().st_mtime_ns != time}
    assert changed == {"depth_reader"}
    record = read_record(made / "assets" / "depth_reader")
    assert record["command"] == "python -m experiments.assets --only depth_reader --smallest"
    assert [part["run"] for part in record["trained"]] == list(assets.CHAINS["depth_reader"])
    assert {"depth_pointing", "depth_questions", "single_view_in_depth"} <= record["reading"].keys()
    capsys.readouterr()


def test_a_changed_file_or_recipe_is_noticed(made, tmp_path):
    folder = shutil.copytree(made / "assets" / "base", tmp_path / "base")
    record = read_record(folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    assert sha256(folder / "model.safetensors") != record["files"]["model.safetensors"]
    assert described(AssetRecipe(**vars(TINY) | {"seed": 1}), "base") != record["recipe"]


def test_reading_tells_a_model_that_looks_from_one_that_does_not(made, rooms, tmp_path):
    vlm = made / "work" / "stage3"
    rows = read_rows(rooms, "single_view", 100)
    partner = others(rows)
    assert sorted(partner) == list(range(len(rows))) and all(one != index for index, one in enumerate(partner))
    found = measure_reading(vlm, rooms, ["single_view"])["single_view"]
    answers = sum(message["role"] == "assistant" for row in rows["messages"] for message in row)
    assert found["all"]["answers"] == answers
    assert len({*found["all"]["loss"].values()}) == 3  # the image reaches the language model
    assert found["point_depth"]["answers"] > 0 and "| single_view: all |" in table({"single_view": found})
    model = SpatialBoostForConditionalGeneration.from_pretrained(vlm)
    with torch.no_grad():
        for parameter in model.model.multi_modal_projector.parameters():
            parameter.zero_()
    blind = shutil.copytree(vlm, tmp_path / "blind", ignore=shutil.ignore_patterns("checkpoint-*"))
    model.save_pretrained(blind)
    losses = measure_reading(blind, rooms, ["single_view"])["single_view"]["all"]["loss"]
    assert losses["own"] == losses["other"] == losses["none"]


def test_mistakes_are_told_in_a_sentence(made, monkeypatch, tmp_path, capsys):
    assert command(lambda: assets.main(["--smallest"])) == 2
    assert "would replace the assets" in capsys.readouterr().err
    with pytest.raises(ValueError, match="pass one of base, language_model, stage2, vlm, boosted, depth_reader"):
        asset("encoder")
    monkeypatch.setattr(assets, "ASSETS", tmp_path)
    with pytest.raises(ValueError, match="rebuild it with `python -m experiments.assets`"):
        asset("base")
    with pytest.raises(ValueError, match="--configs grounding: .* has no split test"):
        read_rows(tmp_path, "grounding", 3)
