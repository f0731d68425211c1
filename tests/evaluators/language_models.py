"""Tiny vision-language models with random weights, and what their answers can be replaced by."""

from pathlib import Path

import torch
from transformers import AutoImageProcessor, AutoTokenizer

from evaluators.language.vlm import VisionLanguageModel
from experiments.tiny_models import save_tiny_encoder, save_tiny_language_model
from modeling_spatialboost import SpatialBoostForConditionalGeneration, SpatialBoostProcessor

TEXTS = ["What is the depth at the point (0.123, 0.456)?", "The depth is 1.234 m.", "Yes, it is. No. user assistant"]


def save_tiny_vlm(folder, seed=0):
    """Save a random vision-language model of 32 x 32 images; return the folder."""
    encoder = save_tiny_encoder(
        folder / "encoder", image_size=32, patch_size=8, hidden_size=32, num_layers=2, seed=seed
    )
    language_model = save_tiny_language_model(folder / "lm", TEXTS, 400, hidden_size=32, num_layers=2, seed=seed)
    processor = SpatialBoostProcessor.from_components(
        AutoImageProcessor.from_pretrained(encoder), AutoTokenizer.from_pretrained(language_model), 8
    )
    torch.manual_seed(seed)
    model = SpatialBoostForConditionalGeneration.from_components(str(encoder), str(language_model), processor)
    model.save_pretrained(folder / "vlm")
    processor.save_pretrained(folder / "vlm")
    return Path(folder / "vlm")


def answer_with(monkeypatch, answer):
    """Let every model answer `answer(prompt)`."""

    def answer_all(_self, prompt_of, count, *_args, **_kwargs):
        return [answer(prompt_of(place)) for place in range(count)]

    monkeypatch.setattr(VisionLanguageModel, "answer", answer_all)
