"""The demo's parts: depth models with trained heads, example pictures, and the command."""

import json
import sys

import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForDepthEstimation,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)

import modeling_spatialboost as sb
import spatialboost_cli
from dataset_builders import build
from evaluators.dense_data import load_dense
from experiments import demo, demo_bundle, demo_examples, demo_pictures
from experiments.tiny_models import save_tiny_encoder, save_tiny_language_model
from trainers import boost


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms") / "data"
    assert (
        build.main(["--source", "synthetic", "--num-scenes", "4", "--resolution", "32", "--output", str(folder)]) == 0
    )
    return folder


def test_a_bundle_holds_two_depth_models_whose_heads_were_trained(rooms, tmp_path):
    base = save_tiny_encoder(tmp_path / "base", image_size=32, hidden_size=32, num_layers=2)
    assert boost.main([str(base), "--output", str(tmp_path / "boosted")]) == 0
    bundle = tmp_path / "bundle"
    arguments = ["--base", str(base), "--boosted", str(tmp_path / "boosted"), "--data", str(rooms), "--steps", "40"]
    assert demo_bundle.main([*arguments, "--output", str(bundle)]) == 0
    train = load_dense(str(rooms)).train
    truth_m = train.dense_map("depth", 0)
    errors = {}
    for name in ("depth_base", "depth_boosted"):
        model, loading = AutoModelForDepthEstimation.from_pretrained(bundle / name, output_loading_info=True)
        assert not loading["missing_keys"]
        processor = AutoImageProcessor.from_pretrained(bundle / name)
        with torch.no_grad():
            outputs = model.eval()(**processor(train[0], return_tensors="pt"))
        depth_m = processor.post_process_depth_estimation(outputs, [truth_m.shape])[0]["predicted_depth"]
        errors[name] = (depth_m.numpy() - truth_m).std()
        assert abs(depth_m.numpy() - truth_m).mean() < abs(5.0 - truth_m).mean()  # an untrained head says 5 m
    assert errors["depth_base"] == pytest.approx(errors["depth_boosted"], rel=1e-3)  # boosted equals base at the start
    assert len(json.loads((bundle / "depth_base" / "config.json").read_text())["boosted_layers"]) == 0
    assert (bundle / "data" / "README.md").is_file() and not (bundle / "data" / "dense").exists()
    stamp = (bundle / "depth_base" / "model.safetensors").stat().st_mtime_ns
    assert demo_bundle.main([*arguments, "--output", str(bundle)]) == 0
    assert (bundle / "depth_base" / "model.safetensors").stat().st_mtime_ns == stamp  # kept


def test_the_example_pictures_are_the_renderers_own(tmp_path):
    assert demo_examples.main(["--output", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "examples.json").read_text())
    shipped = json.loads((demo_examples.FOLDER / "examples.json").read_text())
    assert [(row["name"], row["questions"]) for row in written] == [(row["name"], row["questions"]) for row in shipped]
    for row in shipped:
        with Image.open(demo_examples.FOLDER / row["file"]) as picture:
            assert picture.size == (demo_examples.SIDE_PX, demo_examples.SIDE_PX)
        assert row["objects"] and all(0 <= edge <= 1 for thing in row["objects"] for edge in thing["region"])


def test_the_small_assets_vision_language_model_is_shown_where_there_is_one(monkeypatch, tmp_path):
    from experiments import assets

    with monkeypatch.context() as none_there:
        none_there.setattr(assets, "ASSETS", tmp_path)
        assert demo.small_vlm() is None
    source = save_tiny_vlm(tmp_path / "assets" / "vlm")
    for name in ("base", "boosted", "vlm"):
        (tmp_path / "assets" / name).mkdir(exist_ok=True)
        (tmp_path / "assets" / name / "run.json").write_text(f'{{"made": "{name}"}}')
    for file in source.glob("*.py"):
        file.unlink()  # the assets hold no copy of our code
    monkeypatch.setattr(assets, "asset", lambda name: tmp_path / "assets" / name)
    output, made = tmp_path / "demo", []
    monkeypatch.setattr(demo_bundle, "main", lambda arguments: made.append(arguments) or 0)
    monkeypatch.setattr(build, "main", lambda arguments: 0)
    monkeypatch.setattr(boost, "main", lambda arguments: 0)
    bundle = demo.make_small_bundle(output)
    model = AutoModelForImageTextToText.from_pretrained(bundle / "vlm", trust_remote_code=True)
    assert model.num_parameters() and AutoProcessor.from_pretrained(bundle / "vlm", trust_remote_code=True)
    assert (bundle / "vlm" / "modeling_spatialboost_vlm.py").is_file() and len(made) == 1
    (tmp_path / "assets" / "vlm" / "run.json").write_text('{"made": "again"}')
    assert demo.make_small_bundle(output) != bundle  # other assets, other parts


def save_tiny_vlm(folder):
    encoder = save_tiny_encoder(folder.parent / "encoder", image_size=32, hidden_size=32, num_layers=2)
    language_model = save_tiny_language_model(folder.parent / "language_model", ["It is 1.2 m."] * 4, hidden_size=32)
    images = sb.SpatialBoostImageProcessor.from_encoder(str(encoder))
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    processor = sb.SpatialBoostProcessor.from_components(images, tokenizer, patch_size=8)
    model = sb.SpatialBoostForConditionalGeneration.from_components(str(encoder), str(language_model), processor)
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_pictures_want_a_browser(monkeypatch):
    pytest.importorskip("playwright", reason="pictures of the Space need playwright")
    monkeypatch.setattr(demo_pictures.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="apt install chromium"):
        demo_pictures.main([])


def test_a_folder_that_is_not_there_and_a_missing_package_are_told(capsys, monkeypatch):
    pytest.importorskip("gradio")
    assert spatialboost_cli.main(["demo", "--model", "./nothing"]) == 2
    assert "--model ./nothing" in capsys.readouterr().err
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert spatialboost_cli.main(["demo"]) == 2
    assert "pip install 'spatialboost[space]'" in capsys.readouterr().err


def test_the_command_hands_its_arguments_to_the_space(monkeypatch, tmp_path):
    pytest.importorskip("gradio")
    import os
    import types

    served = {}
    space = types.SimpleNamespace(main=lambda: served.update(os.environ))
    monkeypatch.setitem(sys.modules, "space_app.app", space)
    for variable in (*demo.PARTS.values(), "GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"):
        monkeypatch.setenv(variable, "")
    assert demo.main(["--model", "ORG/NAME", "--data", str(tmp_path), "--port", "7999"]) == 0
    assert served["SPATIALBOOST_MODEL"] == "ORG/NAME" and served["SPATIALBOOST_DATA"] == str(tmp_path)
    assert served["GRADIO_SERVER_PORT"] == "7999" and served["GRADIO_SERVER_NAME"] == "127.0.0.1"
