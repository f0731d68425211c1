"""Every card of ours passes the Hub's own validation (`/api/validate-yaml`), and shows how to load it pinned."""

import json

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard, RepoCard

from modeling_spatialboost import SpatialBoostConfig, SpatialBoostVLMConfig
from publishing.staging import pin_card, write_adapter_card
from tests.test_architecture import ROOT
from trainers.cards import write_encoder_card, write_vlm_card

RECORD = {
    "stage": 3,
    "description": "encoder fine-tuning through the second channel",
    "config": {"learning_rate": 1e-5, "seed": 0},
    "data": [{"name": "org/rooms:single_view:train", "rows": 9, "fingerprint": "0" * 64}],
    "trainable_parameters": {"attn_plus": 10},
    "frozen_parameters": 20,
    "learning_rates": {"attn_plus": 1e-5},
    "final_loss": 1.5,
    "steps": 4,
    "seconds": 2.0,
    "git_commit": None,
    "versions": {"torch": "2.15.0"},
    "alpha": [{"layer": 0, "mean": 0.5, "min": 0.4, "max": 0.6}],
}


def encoder(folder):
    write_encoder_card(folder, RECORD, SpatialBoostConfig(base_encoder="somebody/encoder"))


def plain_encoder(folder):
    write_encoder_card(folder, RECORD | {"alpha": []}, SpatialBoostConfig())


def vlm(folder):
    config = SpatialBoostVLMConfig(vision_config={"base_encoder": "somebody/encoder"})
    config.text_config.name_or_path = "somebody/language-model"
    write_vlm_card(folder, RECORD, config)


def adapter(folder, base="somebody/encoder"):
    record = {"base_encoder": base, "model_type": "dinov3_vit", "num_parameters": 1234}
    (folder / "spatialboost_adapter.json").write_text(json.dumps(record))
    write_adapter_card(folder)
    assert "Not known: no run.json" in (folder / "README.md").read_text()


def adapter_of_a_folder(folder):
    adapter(folder, None)


@pytest.mark.parametrize("write", [encoder, plain_encoder, vlm, adapter, adapter_of_a_folder])
def test_cards_of_models(hub, tmp_path, write):
    write(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    card.validate()
    assert "spatialboost" in card.data.tags and hub.asked("POST", "validate-yaml") == 1
    pin_card(tmp_path / "README.md", "org/x", "v2")
    text = (tmp_path / "README.md").read_text()
    assert ' = "org/x", "v2"' in text and '".", None' not in text
    assert text.count("revision=revision") == text.count("from_pretrained(") + text.count("pipeline(") + text.count(
        "from_adapter("
    )


def test_the_card_of_a_data_set(hub, tmp_path):
    template = (ROOT / "model_cards" / "dataset_card.md").read_text()
    data = {"license": "cc0-1.0", "size_categories": ["n<1K"], "task_categories": ["depth-estimation"]}
    data |= {"configs": [{"config_name": "rooms", "data_files": [{"split": "train", "path": "rooms/*.parquet"}]}]}
    (tmp_path / "README.md").write_text(template.replace("$metadata", yaml.safe_dump(data).strip()))
    DatasetCard.load(tmp_path / "README.md").validate()
    pin_card(tmp_path / "README.md", "org/rooms", "v1")
    text = (tmp_path / "README.md").read_text()
    assert 'data, revision = "org/rooms", "v1"' in text and text.count("revision=revision") == text.count(
        "load_dataset("
    )


def test_the_card_of_the_space(hub):
    card = RepoCard.load(ROOT / "space_app" / "README.md", repo_type="space")
    card.validate(repo_type="space")
    assert "spatialboost" in card.data.to_dict()["tags"]


@pytest.mark.parametrize(
    "metadata",
    [{"license": "mine"}, {"base_model": "/home/me/encoder"}, {"pipeline_tag": "boosting"},
     {"tags": [1]}, {"base_model_relation": "cousin"}],
)  # fmt: skip
def test_the_validation_refuses_what_the_hub_refuses(hub, metadata):
    content = f"---\n{json.dumps(metadata)}\n---\n"
    with pytest.raises(ValueError, match=next(iter(metadata))):
        ModelCard(content, ignore_metadata_errors=True).validate()
