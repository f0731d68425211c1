import pytest
import torch
from transformers import AutoImageProcessor, AutoModel

from tests.commands import boost as main
from tests.trainers.conftest import image


def test_boosted_folder_computes_what_the_encoder_computes(encoder, tmp_path, capsys):
    assert main([str(encoder), "--output", str(tmp_path / "boosted"), "--image_size", "48"]) == 0
    assert "2 layers boosted, 8,448 of 32,032 parameters are new" in capsys.readouterr().out
    boosted, plain = AutoModel.from_pretrained(tmp_path / "boosted"), AutoModel.from_pretrained(encoder)
    inputs = AutoImageProcessor.from_pretrained(tmp_path / "boosted")(image(0), return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 48, 48)
    with torch.no_grad():
        before, after = plain(**inputs).last_hidden_state, boosted(**inputs).last_hidden_state
    assert torch.equal(before, after)


def test_chosen_layers(encoder, tmp_path):
    assert main([str(encoder), "--output", str(tmp_path), "--boosted_layers", "1"]) == 0
    assert AutoModel.from_pretrained(tmp_path).config.boosted_layers == [1]


def test_stage_1_takes_a_boosted_encoder(encoder, language_model, data, tmp_path):
    from modeling_spatialboost import SpatialBoostForConditionalGeneration
    from tests.commands import train
    from tests.trainers.conftest import common

    assert main([str(encoder), "--output", str(tmp_path / "boosted")]) == 0
    start = ["--stage", "1", "--encoder", str(tmp_path / "boosted"), "--language_model", str(language_model)]
    assert train([*start, *common(data, tmp_path / "stage1", max_steps=1)]) == 0
    model = SpatialBoostForConditionalGeneration.from_pretrained(tmp_path / "stage1")
    assert len(model.vision_tower.alpha_table()) == 2
    assert model.vision_tower.verify_base_channel(str(encoder))


@pytest.mark.parametrize("argv, message", [
    (["no/such/encoder"], "encoder='no/such/encoder' is neither a folder"),
    (["{encoder}", "--boosted_layers", "7"], "boosted_layers=[7] does not fit an encoder of 2 layers"),
])  # fmt: skip
def test_wrong_input(argv, message, encoder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([text.format(encoder=encoder) for text in argv] + ["--output", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
