"""What is wrong or unlike in the input of `spatialboost evaluate` is handled and printed, or ends in one sentence."""

import datasets
import pytest
import torch
from transformers import DINOv3ViTConfig, DINOv3ViTImageProcessor, DINOv3ViTModel

from tests.commands import evaluate as main


def evaluate(base, boosted, output, *more):
    names = ["--base", base, "--boosted", boosted, "--output", output]
    return main([*map(str, names), "--preset", "cpu", "--device", "cpu", *map(str, more)])


@pytest.fixture
def finer_encoder(tmp_path):
    """The folder of an encoder with patches, a width and a preprocessing of its own."""
    torch.manual_seed(3)
    config = DINOv3ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, patch_size=4, image_size=32
    )
    DINOv3ViTModel(config).save_pretrained(tmp_path / "finer")
    size = {"height": 24, "width": 24}
    DINOv3ViTImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.25] * 3).save_pretrained(tmp_path / "finer")
    return tmp_path / "finer"


def test_other_patches_and_preprocessing_are_handled_and_told(encoder_folders, finer_encoder, dense_folder, tmp_path):
    more = ["--data", dense_folder, "--tasks", "depth_linear", "--limit", "4", "--resolution", "30x21"]
    assert evaluate(encoder_folders("dinov3"), finer_encoder, tmp_path, *more) == 0
    report = (tmp_path / "report.md").read_text()
    for told in (
        "patch_size_px: 8 (base), 4 (boosted)",
        "hidden_size: 32 (base), 16 (boosted)",
        "resolution_px: [32, 24] (base), [32, 20] (boosted)",  # rounded for each
        "preprocessing: {",
    ):
        assert f"the encoders differ in {told}" in report


@pytest.mark.parametrize("how", ["is a gated dataset on the Hub. You must be authenticated", "doesn't exist"])
def test_a_gated_data_set_without_a_token_ends_in_one_sentence(encoder_folders, tmp_path, monkeypatch, capsys, how):
    def refuse(*_, **__):
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset 'ILSVRC/imagenet-1k' {how}\nmore lines")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    folder = encoder_folders("dinov3")
    more = ["--data", "imagenet", "--tasks", "knn_classification"]
    assert evaluate(folder, folder, tmp_path / "report", *more) == 2
    *_, last = capsys.readouterr().err.strip().split("\n")
    assert last.startswith("spatialboost evaluate: ") and "log in with `hf auth login`" in last and how in last
    assert not (tmp_path / "report" / "results.json").exists()
