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


def teach(folder, output, shown, steps=70):
    """Train projector and language model of a saved model to answer by one letter; save it to `output`.

    Args:
        folder: of `save_tiny_vlm`.
        output: of the trained model.
        shown: step -> (images, questions, letters) of a batch.
        steps: of AdamW.
    """
    model = SpatialBoostForConditionalGeneration.from_pretrained(folder)
    processor = SpatialBoostProcessor.from_pretrained(folder)
    trained = [parameter for name, parameter in model.named_parameters() if "vision_tower" not in name]
    optimizer = torch.optim.AdamW(trained, lr=4e-3)
    for step in range(steps):
        images, questions, letters = shown(step)
        chats = [
            processor.apply_chat_template(
                [
                    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
                    {"role": "assistant", "content": [{"type": "text", "text": letter}]},
                ],
                tokenize=False,
            )
            for question, letter in zip(questions, letters)
        ]
        inputs = processor(
            text=chats, images=[[image] for image in images], padding=True, padding_side="left", return_tensors="pt"
        )
        logits = model(**inputs).logits[:, -4:-2]  # of the letter and the end of the turn; a newline follows
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), inputs["input_ids"][:, -3:-1].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(output)
    processor.save_pretrained(output)
    return output
