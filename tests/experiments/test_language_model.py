"""The language model: how it splits text, what it learns, and that stage 1 can start from it."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.fitting import command
from experiments.language_model import CONFIGS, Windows, conversations, main, measure, train_language_model
from experiments.tiny_models import train_tokenizer
from modeling_spatialboost import SpatialBoostImageProcessor, SpatialBoostProcessor
from tests.experiments.starting_models import LANGUAGE


@pytest.fixture(scope="module")
def trained(rooms, tmp_path_factory):
    return train_language_model(rooms, tmp_path_factory.mktemp("language"), LANGUAGE, 80, 4, 0)


def test_it_learns_to_speak_of_the_world(trained, rooms):
    record = json.loads((trained / "run.json").read_text())
    assert record["final_loss"] < 0.8 * record["losses"][0]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(trained), AutoTokenizer.from_pretrained(trained)
    assert type(model).__name__ == "Qwen3ForCausalLM" and model.config.use_cache
    texts = conversations(rooms, "test")
    assert measure(model, tokenizer, texts) == pytest.approx(record["perplexity"], rel=1e-2)
    untrained = type(model)(model.config)
    assert measure(untrained, tokenizer, texts)["words"] > 1.5 * record["perplexity"]["words"]


def test_a_coordinate_is_read_in_two_pieces_and_other_decimals_digit_by_digit():
    rooms = "the point (0.477, 0.039) lies 2.477 m away and 30.5 cm up; "
    tokenizer = train_tokenizer([rooms * 9], 400)
    pieces = tokenizer.tokenize("<|im_start|>user\nthe point (0.477, 0.039) 2.477 m 0.477 m 30.5 cm<|im_end|>")
    assert pieces[0] == "<|im_start|>" and pieces[-1] == "<|im_end|>" == tokenizer.eos_token
    assert [*"2477"] == [piece.strip("Ġ.") for piece in pieces if piece.strip("Ġ.").isdigit()][2:6]
    assert [piece.replace("Ġ", " ") for piece in pieces if "0." in piece][:2] == [" (0.4", ", 0.0"]
    assert pieces.count("77") == 1 and pieces.count("39") == 1
    assert tokenizer.decode(tokenizer(rooms)["input_ids"]) == rooms


def test_a_processor_joins_it_with_an_encoder_and_adds_the_image_token_alone(trained):
    tokenizer = AutoTokenizer.from_pretrained(trained)
    known = len(tokenizer)
    processor = SpatialBoostProcessor.from_components(
        SpatialBoostImageProcessor(size={"height": 32, "width": 32}), tokenizer, 8
    )
    assert len(processor.tokenizer) == known + 1 and processor.tokenizer.eos_token == "<|im_end|>"


def test_texts_are_the_conversations_as_the_product_writes_them_without_images(rooms):
    texts = conversations(rooms, "train")
    assert texts.keys() == {name for name in CONFIGS if (rooms / name).is_dir()}
    text = texts["single_view"][0]
    assert text.startswith("<|im_start|>user\nImage coordinates") and text.endswith("<|im_end|>\n")
    assert "<image>" not in text and text.count("<|im_start|>assistant\n") == text.count("<|im_start|>user\n")


def test_a_window_is_cut_from_a_long_text_and_padding_has_no_loss(trained, monkeypatch):
    monkeypatch.setattr("experiments.language_model.LEARNT_TOKENS", 12)
    tokenizer = AutoTokenizer.from_pretrained(trained)
    windows = Windows(tokenizer, ["no", "to the left of the camera " * 9])
    starts = set()
    for _ in range(10):
        batch = windows([0, 1])
        assert batch["input_ids"].shape == batch["labels"].shape == (2, 12)
        length = len(windows.rows[0])
        assert (batch["labels"][0, length:] == -100).all() and batch["attention_mask"][0].sum() == length
        assert (batch["input_ids"][0, length:] == tokenizer.pad_token_id).all()
        whole, window = windows.rows[1].tolist(), batch["input_ids"][1].tolist()
        starts |= {start for start in range(len(whole)) if whole[start : start + 12] == window}
    assert len(starts) > 1


def test_perplexity_counts_the_answers_alone(trained):
    tokenizer = AutoTokenizer.from_pretrained(trained)

    class Knowing(torch.nn.Module):  # knows the digits of answers, and nothing else
        device = torch.device("cpu")

        def forward(self, tokens):
            logits = torch.zeros(1, tokens.shape[1], len(tokenizer))
            following = torch.cat([tokens[0, 1:], tokens[0, :1]])
            known = torch.isin(following, torch.tensor(tokenizer.convert_tokens_to_ids([*"0123456789"])))
            logits[0, torch.arange(len(following)), following] = 100.0 * known
            return type("Output", (), {"logits": logits})

    text = "<|im_start|>user\nwhere 1?<|im_end|>\n<|im_start|>assistant\nat 7 m<|im_end|>\n"
    found = measure(Knowing(), tokenizer, {"one": [text]})
    assert found == {"words": pytest.approx(len(tokenizer), rel=1e-3), "digits": 1}


def test_mistakes_are_told_in_a_sentence(trained, rooms, tmp_path, capsys):
    assert command(lambda: main(["--data", str(tmp_path), "--output", str(tmp_path / "l"), "--steps", "1"])) == 2
    assert "has no conversations" in capsys.readouterr().err
    assert train_language_model(rooms, trained, LANGUAGE, 80, 4, 0) == trained
    with pytest.raises(ValueError, match="differs in batch_size"):
        train_language_model(rooms, trained, LANGUAGE, 80, 5, 0)
