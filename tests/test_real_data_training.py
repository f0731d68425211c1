"""Stages 1-3 on a build of real RGB-D images, with a language model that can already write (TinyStories 260K)."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from experiments.tiny_models import save_tiny_encoder
from tests.commands import build, train

REAL_DATA = Path(__file__).parent.parent.parent / "shared" / "realdata"
RECIPES = Path(__file__).parent.parent / "trainers" / "recipes" / "smoke"

pytestmark = pytest.mark.skipif(
    not REAL_DATA.is_dir(), reason="the real RGB-D samples (../shared/realdata) are absent"
)


def test_the_three_stages_train_on_real_images(tmp_path):
    data, encoder = tmp_path / "data", tmp_path / "encoder"
    assert build(["--source", "rgbd", "--input", str(REAL_DATA / "mosd_tabletop"), "--output", str(data)]) == 0
    save_tiny_encoder(encoder, image_size=32, hidden_size=32, num_layers=2)
    language_model = shutil.copytree(REAL_DATA / "weights" / "stories260K" / "hf", tmp_path / "language_model")
    config = json.loads((language_model / "config.json").read_text())
    config["max_position_embeddings"] = 4096  # the conversations are longer than the stories that it has learned
    (language_model / "config.json").write_text(json.dumps(config))
    starts = {
        1: ["--encoder", str(encoder), "--language_model", str(language_model), "--datasets", f"{data}:alignment"],
        2: ["--model", str(tmp_path / "stage1"), "--datasets", f"{data}:single_view"],
        3: ["--model", str(tmp_path / "stage2"), "--datasets", f"{data}:single_view"],
    }
    for stage, start in starts.items():
        steps = ["--max_steps", "2", "--per_device_train_batch_size", "2", "--logging_steps", "1"]
        places = ["--config", str(RECIPES / f"stage{stage}.yaml"), "--output_dir", str(tmp_path / f"stage{stage}")]
        assert train([*places, *start, *steps, "--report_to", "none", "--save_strategy", "no"]) == 0
    losses = {
        stage: json.loads((tmp_path / f"stage{stage}" / "run.json").read_text())["final_loss"] for stage in starts
    }
    assert all(0 < loss < 15 for loss in losses.values())

    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "stage3").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "stage3")
    assert model.vision_tower.verify_base_channel(str(encoder))
    from datasets import load_dataset

    row = load_dataset(str(data), "single_view", split="train")[0]
    text = processor.apply_chat_template(row["messages"][:1], add_generation_prompt=True)
    inputs = processor(text=text, images=row["images"], return_tensors="pt")
    with torch.no_grad():
        answer = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert answer.shape[1] > inputs["input_ids"].shape[1]
