"""Cached features: the same losses to the last bit, nothing computed twice, and nothing of another encoder read."""

import copy
import json
import logging
import os
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from modeling_spatialboost.modeling_spatialboost import SpatialBoostPreTrainedModel
from tests.commands import train as main
from tests.trainers.conftest import common, row, save_data
from tests.trainers.test_sft import losses
from trainers import feature_cache, feature_shards
from trainers.config import FEATURES_FOLDER, StageArguments
from trainers.feature_cache import cache_key, storage_dtype
from trainers.sft import make_parser, prepare
from trainers.stages import STAGES
from trainers.trainer import StageTrainer

NUM_IMAGES = 18  # in the two configs of the `data` fixture


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """Number of images of every call of the encoder."""
    calls: list[int] = []
    encode = SpatialBoostPreTrainedModel.encode

    def counting(self, pixel_values, **kwargs):
        calls.append(len(pixel_values))
        return encode(self, pixel_values, **kwargs)

    monkeypatch.setattr(SpatialBoostPreTrainedModel, "encode", counting)
    return calls


@pytest.fixture
def start(runs, encoder, language_model) -> dict[int, list[str]]:
    """The first arguments of stages 1 and 2."""
    new = ["--encoder", str(encoder), "--language_model", str(language_model)]
    return {1: ["--stage", "1", *new], 2: ["--stage", "2", "--model", str(runs[1])]}


@pytest.fixture
def cached_run(start, data, tmp_path):
    """What `prepare` makes of a stage with its features in `tmp_path`/features."""

    def make(stage: int = 2, data: Path = data, **overrides):
        argv = [*start[stage], *common(data, tmp_path / "out", cache_features=tmp_path / "features", **overrides)]
        return prepare(*make_parser().parse_args_and_config(argv))

    return make


def make_trainer(run) -> StageTrainer:
    model, processor = run.parts
    stage = STAGES[run.arguments.stage]
    return StageTrainer(
        stage, run.training, features=run.features, model=model, train_dataset=run.dataset, processing_class=processor
    )


def shards(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


@pytest.mark.parametrize("stage, precision", [(1, {}), (2, {}), (2, {"bf16": "true", "use_cpu": "true"})])
def test_losses_and_weights_equal_the_uncached_ones_to_the_last_bit(start, data, tmp_path, encoded, stage, precision):
    settings = {"max_steps": 6, **precision}  # two epochs
    plain, cached = tmp_path / "plain", tmp_path / "cached"
    assert main([*start[stage], *common(data, plain, **settings)]) == 0
    assert sum(encoded) > NUM_IMAGES
    encoded.clear()
    folder = tmp_path / "features"
    assert main([*start[stage], "--cache-features", str(folder), *common(data, cached, **settings)]) == 0
    assert sum(encoded) == NUM_IMAGES
    assert len(losses(plain)) == 6 and losses(cached) == losses(plain)
    ours, theirs = load_file(cached / "model.safetensors"), load_file(plain / "model.safetensors")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    (shard,) = shards(folder)
    features = load_file(shard)["features"]
    assert features.shape == (NUM_IMAGES, 16, 32)
    assert features.dtype == (torch.bfloat16 if precision else torch.float32)


def test_stage_2_and_later_runs_compute_nothing(cached_run, encoded):
    cached_run(1)
    assert sum(encoded) == NUM_IMAGES
    cached_run(2)
    cached_run(2, learning_rate=0.5)
    assert sum(encoded) == NUM_IMAGES


def test_the_same_image_is_stored_once_and_text_only_rows_have_none(cached_run, encoded, tmp_path):
    rows = [row(0, 2), row(0, 1), row(1, 2), row(1, 1)]
    text = row(2, 1) | {"images": []}
    text["messages"][0]["content"] = text["messages"][0]["content"][1:]
    data = save_data(tmp_path / "data", single_view=[*rows, text], multi_view=[row(0, 3), text])
    run = cached_run(data=data, per_device_train_batch_size=1, max_steps=7)
    assert sum(encoded) == 5  # of scene 0 three views, of scene 1 two
    assert run.dataset["images"][:] == [[0, 1], [0], [2, 3], [2], [], [0, 1, 4], []]
    trainer = make_trainer(run)
    trainer.train()
    assert sum(encoded) == 5 and trainer.state.global_step == 7
    full, processor = run.parts
    pixels = processor.image_processor(rows[2]["images"], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = full.eval().model.vision_features(pixels)
    assert torch.equal(torch.stack([run.features[2], run.features[3]]), expected)


@pytest.mark.parametrize("remove_unused_columns", [True, False])
def test_batches_equal_those_of_images_through_several_workers(cached_run, remove_unused_columns):
    run = cached_run(remove_unused_columns=remove_unused_columns, dataloader_num_workers=2)
    trainer = make_trainer(run)
    loader = DataLoader(run.dataset, 4, collate_fn=trainer.data_collator, num_workers=2)
    plain = copy.copy(trainer.data_collator.collator)
    plain.processor = run.parts[1]
    for number, batch in enumerate(loader):
        rows = [row(index if index < 8 else index + 2, 1) for index in range(4 * number, 4 * number + 4)]
        if number == 2:
            rows = [row(10 + index, 2 + index % 2) for index in range(4)]
        images = plain(rows)
        pixels = images.pop("pixel_values")
        assert batch.keys() == {*images, "vision_features"}
        assert all(torch.equal(tensor, batch[name]) for name, tensor in images.items())
        with torch.no_grad():
            features = run.parts[0].eval().model.vision_features(pixels)
        assert torch.equal(batch["vision_features"], features)
        assert batch["vision_features"].stride() == features.stride()  # else gradients of real sizes round otherwise
    trainer.train()
    assert trainer.state.global_step == 3


def test_a_resumed_run_equals_an_undisturbed_one_without_a_cache(start, data, tmp_path, encoded):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    plain, cached = tmp_path / "plain", tmp_path / "cached"
    features = ["--cache_features", str(tmp_path / "features")]
    assert main([*start[2], *common(data, plain, **settings)]) == 0
    assert main([*start[2], *features, *common(data, cached, **settings | {"save_steps": 2})]) == 0
    (cached / "model.safetensors").unlink()
    (cached / "run.json").unlink()
    for file in (cached / "checkpoint-4").iterdir():
        file.unlink()
    (cached / "checkpoint-4").rmdir()
    encoded.clear()
    assert main([*start[2], *features, *common(data, cached, **settings, resume_from_checkpoint="true")]) == 0
    assert not encoded
    assert losses(cached) == losses(plain)
    ours, theirs = load_file(cached / "model.safetensors"), load_file(plain / "model.safetensors")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_the_key_follows_encoder_preprocessing_and_precision(cached_run):
    model, processor = cached_run().parts
    key = cache_key(model, processor, torch.float32)
    assert cache_key(model, processor, torch.float32) == key
    keys = {key, cache_key(model, processor, torch.bfloat16)}
    model.config.use_cls_token = True
    keys.add(cache_key(model, processor, torch.float32))
    model.config.use_cls_token = False
    for name, value in (("image_mean", [0.5, 0.5, 0.5]), ("size", {"height": 48, "width": 48}), ("resample", 0)):
        before = getattr(processor.image_processor, name)
        setattr(processor.image_processor, name, value)
        keys.add(cache_key(model, processor, torch.float32))
        setattr(processor.image_processor, name, before)
    with torch.no_grad():
        model.model.multi_modal_projector.linear_1.weight.add_(1)  # which the features do not depend on
        assert cache_key(model, processor, torch.float32) == key
        next(model.vision_tower.parameters()).view(-1)[0].add_(1e-3)
    keys.add(cache_key(model, processor, torch.float32))
    assert len(keys) == 7


def test_the_shards_of_another_encoder_are_not_read(cached_run, encoded, tmp_path, caplog):
    run = cached_run()
    (shard,) = shards(tmp_path / "features")
    tensors = load_file(shard)
    tensors["features"] = tensors["features"] + 1
    save_file(tensors, shard, metadata={"key": "0" * 64})  # put into the wrong folder by hand
    encoded.clear()
    again = cached_run()
    assert sum(encoded) == NUM_IMAGES and "made by another encoder" in caplog.text
    assert torch.equal(again.features[3], run.features[3])


def test_a_killed_run_leaves_whole_shards_and_only_the_rest_is_computed(cached_run, encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "SHARD_BYTES", 5 * 16 * 32 * 4)  # five images
    replace, finished = os.replace, []

    def killed(source, target):
        if len(finished) == 2:
            raise KeyboardInterrupt
        finished.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        cached_run()
    monkeypatch.setattr(os, "replace", replace)
    assert len(shards(tmp_path / "features")) == 2 and sum(encoded) == 15
    (partial,) = (tmp_path / "features").rglob("*.partial")
    os.utime(partial, (0, time.time() - 2 * feature_shards.STALE_SECONDS))
    encoded.clear()
    run = cached_run()
    assert sum(encoded) == NUM_IMAGES - 10 and not partial.exists()
    assert [len(load_file(shard)["features"]) for shard in run.features.shards].count(5) == 3
    assert len(run.features.shards) == 4


def test_a_cut_shard_is_computed_again(cached_run, encoded, tmp_path, caplog):
    before = cached_run().features[7]
    (shard,) = shards(tmp_path / "features")
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 100)
    encoded.clear()
    feature_shards._open_shard.cache_clear()
    assert torch.equal(cached_run().features[7], before)
    assert sum(encoded) == NUM_IMAGES and f"{shard} is removed" in caplog.text


def test_a_damaged_shard_is_noticed_when_it_is_read(cached_run, tmp_path):
    run = cached_run()
    (shard,) = shards(tmp_path / "features")
    content = bytearray(shard.read_bytes())
    with safe_open(shard, "pt") as opened:
        start = len(content) - sum(opened.get_tensor(name).nbytes for name in opened.keys())  # noqa: SIM118
    whole = load_file(shard)
    raw = whole["features"].numpy().tobytes()
    content[content.index(raw, start) + 4 * 16 * 32 * 4] ^= 1  # one bit of image 4
    shard.write_bytes(content)
    feature_shards._open_shard.cache_clear()
    assert torch.equal(run.features[3], whole["features"][3])
    with pytest.raises(ValueError, match=r"cache_features=.*\.safetensors is damaged: delete this file and go on"):
        run.features[4]


def test_stage_3_and_a_trained_encoder_are_refused(runs, data, cached_run, tmp_path, capsys):
    out = tmp_path / "out"
    argv = ["--stage", "3", "--model", str(runs[2]), *common(data, out, cache_features=tmp_path / "features")]
    assert main(argv) == 2
    assert "stage 3 trains the encoder, so its outputs change with every step" in capsys.readouterr().err
    assert not out.exists() and not (tmp_path / "features").exists()
    run = cached_run()
    next(run.parts[0].vision_tower.parameters()).requires_grad_(True)
    with pytest.raises(ValueError, match="the encoder trains here"):
        feature_cache.cache_features("somewhere", run.dataset, run.parts, run.training)


def test_a_full_disk_ends_with_one_sentence_and_code_2(start, data, tmp_path, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")
    argv = [*start[2], *common(data, tmp_path / "out", cache_features=tmp_path / "features")]
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: usage(1, 1, 1000))
        assert main(argv) == 2
    assert "the features take 3.69e-05 GB and 1e-06 GB are free there: make space" in capsys.readouterr().err

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_shards, "save_file", full)
    assert main(argv) == 2
    assert "a shard cannot be written there ([Errno 28] No space left on device): make" in capsys.readouterr().err
    assert not list((tmp_path / "features").rglob("*.*"))


def test_a_folder_that_is_a_file_ends_with_one_sentence_and_code_2(start, data, tmp_path, capsys):
    (tmp_path / "features").write_text("")
    argv = [*start[2], *common(data, tmp_path / "out", cache_features=tmp_path / "features")]
    assert main(argv) == 2
    assert "features' cannot be a folder ([Errno 20]" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["flag", "recipe"])
def test_without_a_value_the_folder_is_in_the_hubs_cache(given, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"stage: 2\nmodel: m\ndatasets: d\noutput_dir: o\n{'cache_features: true' * (given != 'flag')}")
    argv = ["--config", str(recipe), *(["--cache-features"] if given == "flag" else [])]
    arguments = make_parser().parse_args_and_config(argv)[0]
    assert arguments.cache_features == FEATURES_FOLDER
    assert StageArguments(stage=2, model="m", datasets=["d"], cache_features="false").cache_features is None
    assert StageArguments(stage=3, model="m", datasets=["d"]).cache_features is None


def test_the_record_names_the_folder_but_it_makes_no_other_run(start, data, tmp_path, caplog):
    caplog.set_level(logging.INFO, "trainers")
    argv = [*start[2], *common(data, tmp_path / "out", max_steps=1)]
    assert main(argv) == 0
    features = tmp_path / "features"
    assert main([*argv, "--cache-features", str(features)]) == 0
    assert "holds this run, finished" in caplog.text
    assert main([*argv, "--cache-features", str(features), "--force"]) == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["config"]["cache_features"] == str(features)
    assert f"Features of {NUM_IMAGES} images in {features}" in caplog.text


def test_the_model_refuses_features_beside_pixels(cached_run):
    model, _ = cached_run().parts
    ids = torch.full((1, 16), model.config.image_token_index)
    with pytest.raises(ValueError, match="pass one of both"):
        model(input_ids=ids, pixel_values=torch.zeros(1, 3, 32, 32), vision_features=torch.zeros(1, 16, 32))


def test_storage_is_what_the_projector_reads(cached_run):
    run = cached_run()
    assert storage_dtype(run.parts[0], run.training) == torch.float32
    run.parts[0].model.multi_modal_projector.bfloat16()
    assert storage_dtype(run.parts[0], run.training) == torch.bfloat16
