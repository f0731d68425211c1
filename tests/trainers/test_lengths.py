"""Tokens of every row are known before training, and what a language model has no positions for is named."""

import json
import shutil

import pytest
from datasets import Dataset
from transformers import AutoTokenizer, BloomConfig, Qwen2Config
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from modeling_spatialboost import SpatialBoostImageProcessor, SpatialBoostProcessor
from tests.commands import train as main
from tests.trainers.conftest import FEATURES, common, image, part, row, save_data
from trainers.config import StageArguments
from trainers.data import DataSource, load_training_data
from trainers.lengths import settle_long_rows, with_lengths


@pytest.fixture(scope="module")
def processors(encoder, language_model):
    """By the factor of their pixel shuffle."""

    def make(shuffle: int) -> SpatialBoostProcessor:
        image_processor = SpatialBoostImageProcessor.from_encoder(str(encoder))
        tokenizer = AutoTokenizer.from_pretrained(language_model)
        return SpatialBoostProcessor.from_components(image_processor, tokenizer, 8, projector_shuffle=shuffle)

    return {shuffle: make(shuffle) for shuffle in (1, 2)}


def plain_text_row(num_images: int) -> dict:
    """Contents as texts: TRL itself puts the images first."""
    messages = [{"role": "user", "content": "How deep is it?"}, {"role": "assistant", "content": "It is 1.2 m."}]
    return {"images": [image(index) for index in range(num_images)], "messages": messages}


@pytest.mark.parametrize("shuffle", [1, 2])
@pytest.mark.parametrize("kind", ["parts", "texts"])
def test_lengths_are_those_of_the_collator(processors, shuffle, kind):
    processor = processors[shuffle]
    if kind == "parts":
        silent = row(3, 1) | {"images": []}
        silent["messages"][0]["content"] = [part("text", "Ünïcödé <|im_start|>, twice: 1.25 m.")]
        dataset = Dataset.from_list([row(0, 1), row(1, 2), row(2, 3), silent], features=FEATURES)
    else:
        dataset = Dataset.from_list([plain_text_row(count) for count in (1, 3, 0)])
        dataset = dataset.cast_column("images", FEATURES["images"])
    collator = DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True)
    expected = [int(collator([one])["attention_mask"].sum()) for one in dataset]
    assert with_lengths(dataset, processor)["length"] == expected


def test_no_image_is_read(processors):
    rows = [row(index, 2) for index in range(3)]
    whole = with_lengths(Dataset.from_list(rows, features=FEATURES), processors[1])["length"][:]
    damaged = [one | {"images": [{"bytes": b"no image", "path": None}] * 2} for one in rows]
    dataset = with_lengths(Dataset.from_list(damaged, features=FEATURES), processors[1], num_proc=2)
    assert dataset["length"][:] == whole
    assert set(dataset.column_names) == {*FEATURES, "length"}


def counted(*lengths: int) -> Dataset:
    return Dataset.from_dict({"length": list(lengths), "id": [f"scene_{index}" for index in range(len(lengths))]})


SOURCES = [DataSource("a:single", 2, ""), DataSource("b:multi", 3, "")]


def test_a_long_row_is_named_where_it_came_from():
    config = Qwen2Config(max_position_embeddings=100)
    with pytest.raises(ValueError) as caught:
        settle_long_rows(counted(100, 7, 8, 101, 500), SOURCES, config, "refuse")
    message = str(caught.value)
    assert "datasets='b:multi': row 1 (id 'scene_3') has 101 tokens" in message
    assert "2 of 5 rows are longer than the 100 positions" in message
    assert "--long_samples drop" in message


def test_dropped_rows_are_counted_and_told(caplog):
    kept, dropped = settle_long_rows(
        counted(100, 7, 101, 8, 500), SOURCES, Qwen2Config(max_position_embeddings=100), "drop"
    )
    assert kept["id"][:] == ["scene_0", "scene_1", "scene_3"]
    assert dropped == 2
    assert "2 of 5 rows" in caplog.text and "scene_2" in caplog.text


def test_nothing_is_dropped_where_all_fits():
    dataset = counted(100, 7)
    for config in (Qwen2Config(max_position_embeddings=100), BloomConfig()):  # which has positions without end
        assert settle_long_rows(dataset, SOURCES[:1], config, "refuse") == (dataset, 0)


def test_an_empty_remainder_is_refused():
    with pytest.raises(ValueError, match="nothing is left to train on"):
        settle_long_rows(counted(101, 102), SOURCES[:1], Qwen2Config(max_position_embeddings=100), "drop")


def test_only_two_choices():
    with pytest.raises(ValueError, match="long_samples='cut': pass refuse or drop"):
        StageArguments(stage=2, datasets=["d"], model="m", long_samples="cut")


def test_the_command_refuses_or_drops(encoder, language_model, processors, tmp_path, capsys):
    data = save_data(tmp_path / "data", single_view=[row(0, 1), row(1, 1)], multi_view=[row(2, 3), row(3, 1)])
    names = [f"{data}:single_view", f"{data}:multi_view"]
    lengths = with_lengths(load_training_data(names)[0], processors[1])["length"][:]
    short = shutil.copytree(language_model, tmp_path / "short")
    config = json.loads((short / "config.json").read_text()) | {"max_position_embeddings": max(lengths) - 1}
    (short / "config.json").write_text(json.dumps(config))
    start = ["--stage", "1", "--encoder", str(encoder), "--language_model", str(short)]
    argv = [*start, *common(data, tmp_path / "out", max_steps=1)]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert f"multi_view': row 0 (id 'scene_2') has {max(lengths)} tokens" in error and "Traceback" not in error
    assert main([*argv, "--long_samples", "drop"]) == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["dropped_rows"] == 1
