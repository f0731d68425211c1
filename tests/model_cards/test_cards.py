"""Cards as they are written: frozen texts, pictures that are there, and what follows from the base's licence.

After a wanted change: RENEW_SNAPSHOTS=1 pytest tests/model_cards/test_cards.py, and read what git shows.
"""

import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image

from model_cards import licence_chain, licence_data
from model_cards.figures import ALPHA_NAME, METHOD_NAME, draw_alpha, main
from modeling_spatialboost import SpatialBoostConfig, SpatialBoostVLMConfig
from publishing.staging import write_adapter_card
from trainers.cards import write_encoder_card, write_vlm_card

SNAPSHOTS = Path(__file__).parent / "snapshots"
DINOV3 = "facebook/dinov3-vitl16-pretrain-lvd1689m"
RECORD = {
    "stage": 3,
    "description": "encoder fine-tuning through the second channel",
    "config": {"learning_rate": 2e-5, "lr_scheduler_type": "cosine", "max_steps": -1, "bf16": False, "seed": 7},
    "data": [{"name": "org/rooms:single_view:train", "rows": 1234, "fingerprint": "0123456789abcdef" * 4}],
    "trainable_parameters": {"attn_plus": 66304, "projector": 8320, "alpha": 256},
    "frozen_parameters": 269440,
    "learning_rates": {"attn_plus": 2e-5, "alpha": 1e-3},
    "final_loss": 1.5,
    "steps": 400,
    "seconds": 61.2,
    "git_commit": None,
    "versions": {"torch": "2.15.0"},
    "alpha": [{"layer": 0, "mean": 0.5, "min": 0.4, "max": 0.6}, {"layer": 1, "mean": 0.48, "min": 0.1, "max": 0.5}],
}


def boosted(folder):
    config = SpatialBoostConfig(base_encoder=DINOV3, backbone_config={"model_type": "dinov3_vit"})
    write_encoder_card(folder, RECORD, config)


def baseline(folder):
    config = SpatialBoostConfig(base_encoder="openai/clip-vit-base-patch16")
    write_encoder_card(folder, RECORD | {"alpha": [], "description": "LoRA"}, config)


def vlm(folder):
    config = SpatialBoostVLMConfig(vision_config={"base_encoder": "somebody/encoder"})
    config.text_config.name_or_path = "somebody/language-model"
    write_vlm_card(folder, RECORD, config)


def adapter(folder):
    record = {"base_encoder": DINOV3, "model_type": "dinov3_vit", "num_parameters": 66560}
    (folder / "spatialboost_adapter.json").write_text(json.dumps(record))
    (folder / "run.json").write_text(json.dumps(RECORD))
    write_adapter_card(folder)


@pytest.mark.parametrize("write", [boosted, baseline, vlm, adapter])
def test_the_text_is_frozen_and_its_pictures_are_there(tmp_path, write):
    write(tmp_path)
    text = (tmp_path / "README.md").read_text()
    snapshot = SNAPSHOTS / f"{write.__name__}.md"
    if os.environ.get("RENEW_SNAPSHOTS"):
        snapshot.write_text(text)
    assert text == snapshot.read_text(), "the card changed; see the head of this file"
    shown = set(re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text))
    assert shown == {path.name for path in tmp_path.glob("*.png")}
    assert shown == (set() if write is baseline else {METHOD_NAME, ALPHA_NAME})
    assert "$" not in text and "None" not in text.replace(", None", "")


def test_the_figures_are_drawn_and_the_same_twice(tmp_path):
    for folder in ("one", "two"):
        assert main([str(tmp_path / folder)]) == 0
    for name in (METHOD_NAME, ALPHA_NAME):
        first, second = (tmp_path / folder / name for folder in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()
        with Image.open(first) as picture:
            assert picture.width > 800 and len(picture.getcolors(1 << 20)) > 20


def heights(path, colour):
    """Rows of the picture that hold a colour."""
    with Image.open(path) as picture:
        return [y for y in range(picture.height) for x in range(picture.width) if picture.getpixel((x, y)) == colour]


def test_a_higher_alpha_is_drawn_higher_and_the_axis_never_zooms_into_nothing(tmp_path):
    dot, rows = (217, 72, 15), {}
    for name, mean in {"low": 0.45, "high": 0.55, "still": 0.5004}.items():
        draw_alpha(tmp_path / f"{name}.png", [{"layer": 0, "mean": mean, "min": mean, "max": mean}])
        found = heights(tmp_path / f"{name}.png", dot)
        rows[name] = sum(found) / len(found)
    assert rows["high"] < rows["still"] < rows["low"]
    assert rows["low"] - rows["still"] == pytest.approx(61, abs=3)  # half of the axis below 0.5, which spans 0.1
    assert rows["still"] == pytest.approx(178, abs=2)  # the middle, as nothing moved


@pytest.mark.parametrize(
    ("base", "model_type", "told", "licence"),
    [(DINOV3, "dinov3_vit", "* Its [DINOv3 License]", "dinov3-license"),
     (None, "dinov3_vit", "* If the base holds weights that Meta released", None),
     ("facebook/dinov2-large", "dinov2", "stay under its licence", None)],
)  # fmt: skip
def test_the_chain_of_licences(base, model_type, told, licence):
    text = licence_chain(base, model_type, "All weights here")
    assert told in text and ("Built with DINOv3" in text) == model_type.startswith("dinov3")
    assert licence_data(base).get("license_name") == licence and licence_data(base)["license"] == "other"
