"""Which rows share a batch, in which order, what is scored of them, and what happens to images of all kinds."""

import io
import json
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, SkipBatchSampler
from datasets import Dataset
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import BatchSampler
from transformers import TrainerState
from transformers.trainer_pt_utils import DistributedLengthGroupedSampler

from modeling_spatialboost import SpatialBoostProcessor
from tests.commands import train as main
from tests.trainers.conftest import FEATURES, common, row, save_data
from trainers import sft
from trainers.batching import _EpochTeller
from trainers.data import damage_named
from trainers.sft import make_parser, prepare
from trainers.trainer import StageTrainer

STRATEGIES = ["batch_rebalance", "group_by_length"]
RECIPES = Path(sft.__file__).parent / "recipes"
OF_CONVERSATIONS = [
    str(path.relative_to(RECIPES))
    for path in sorted([*RECIPES.glob("*.yaml"), *RECIPES.glob("baselines/*.yaml")])
    if "objective:" not in path.read_text()
]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """32 rows of one to eight views."""
    rows = [row(index, (1, 2, 4, 8)[index % 4]) for index in range(32)]
    return save_data(tmp_path_factory.mktemp("mixed"), mixed=rows)


@pytest.fixture
def make_trainer(encoder, language_model, tmp_path):
    def make(data, stage: int = 1, **overrides) -> StageTrainer:
        argv = ["--stage", str(stage), "--encoder", str(encoder), "--language_model", str(language_model)]
        argv += common(data, tmp_path / "out", **overrides)
        configs = sorted(path.name for path in data.iterdir() if path.is_dir())
        start = argv.index("--datasets") + 1
        argv[start : start + 2] = [f"{data}:{config}" for config in configs]
        run = prepare(*make_parser().parse_args_and_config(argv))
        model, processor = run.parts
        return StageTrainer(
            run.arguments.row, run.training, run.features, model=model, train_dataset=run.dataset,
            processing_class=processor,
        )  # fmt: skip

    return make


def orders(trainer: StageTrainer, epochs: int) -> list[list[list[str]]]:
    """Ids of the rows of each batch of each epoch."""
    loader = trainer.get_train_dataloader()
    found = []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        found.append([batch["rows"] for batch in loader])
    return found


def padding_share(trainer: StageTrainer) -> float:
    masks = [batch["attention_mask"] for batch in trainer.get_train_dataloader()]
    return 1 - sum(mask.sum() for mask in masks).item() / sum(mask.numel() for mask in masks)


def test_similar_lengths_share_a_batch(make_trainer, mixed):
    batches = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    random = padding_share(make_trainer(mixed, **batches))
    shares = [padding_share(make_trainer(mixed, train_sampling_strategy=name, **batches)) for name in STRATEGIES]
    assert random > 0.12
    assert max(shares) < random / 2


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_row_comes_once_in_an_order_of_seed_and_epoch(make_trainer, mixed, strategy):
    options = {"train_sampling_strategy": strategy, "gradient_accumulation_steps": 2}
    torch.manual_seed(1)
    first, second = orders(make_trainer(mixed, **options), 2)
    for epoch in (first, second):
        assert sorted(chain(*epoch)) == sorted(f"scene_{index}" for index in range(32))
    assert first != second
    torch.manual_seed(2)  # the global generator has no say
    assert orders(make_trainer(mixed, **options), 2) == [first, second]
    assert orders(make_trainer(mixed, seed=7, **options), 1) != [first]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_resumed_run_goes_on_in_the_same_order(make_trainer, mixed, strategy, tmp_path, monkeypatch):
    seen = []
    step = StageTrainer.training_step
    monkeypatch.setattr(
        StageTrainer, "training_step", lambda self, model, inputs, *rest: (
            seen.append(inputs["rows"]) or step(self, model, inputs, *rest)
        ),
    )  # fmt: skip
    options = {
        "train_sampling_strategy": strategy, "max_steps": 7, "save_steps": 6, "save_strategy": "steps",
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
    }  # fmt: skip
    trainer = make_trainer(mixed, **options)  # four steps an epoch: the checkpoint lies in the second
    trainer.train()
    whole = list(seen)
    seen.clear()
    torch.manual_seed(5)
    resumed = make_trainer(mixed, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-6"))
    assert seen == whole[12:]
    assert len(seen) == 2


def test_the_epoch_reaches_a_sampler_of_a_resumed_distributed_run():
    sampler = DistributedLengthGroupedSampler(2, num_replicas=1, rank=0, lengths=[5, 4, 3, 2])
    shard = BatchSamplerShard(BatchSampler(sampler, 1, False), num_processes=2)

    class Loader:
        batch_sampler = SkipBatchSampler(shard, 1)

    _EpochTeller().on_epoch_begin(None, TrainerState(epoch=3.4), None, train_dataloader=Loader())
    assert sampler.epoch == 3


def test_cached_features_come_in_the_same_order(make_trainer, mixed, tmp_path):
    options = {"train_sampling_strategy": "batch_rebalance"}
    plain = orders(make_trainer(mixed, **options), 1)
    assert orders(make_trainer(mixed, cache_features=tmp_path / "features", **options), 1) == plain


# The loss head


class LargestLogits(TorchDispatchMode):
    """Most positions of any tensor over the vocabulary."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.positions = vocabulary, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, (tuple, list)) else [output]:
            # the head's own weight is (vocabulary, width)
            if isinstance(tensor, torch.Tensor) and tensor.ndim > 1 and tensor.shape[-1] == self.vocabulary:
                self.positions = max(self.positions, tensor.numel() // self.vocabulary)
        return output


def loss_and_gradients(trainer: StageTrainer, batch: dict, compute) -> tuple[torch.Tensor, torch.Tensor]:
    trainer.model.zero_grad()
    loss = compute(trainer.model, dict(batch), num_items_in_batch=torch.tensor(7))
    loss.backward()
    weight = trainer.model.model.multi_modal_projector.linear_1.weight
    return loss.detach(), weight.grad.clone()


def test_the_head_scores_answers_only_and_the_loss_is_the_same(make_trainer, mixed):
    trainer = make_trainer(mixed, activation_checkpointing=True)
    batch = trainer.data_collator([row(1, 2), row(2, 1), row(3, 4)])
    num_answers = int((batch["labels"][:, 1:] != -100).sum())
    vocabulary = trainer.model.config.text_config.vocab_size
    with LargestLogits(vocabulary) as ours:
        loss, gradient = loss_and_gradients(trainer, batch, trainer.compute_loss)
    assert ours.positions == num_answers < batch["labels"].numel() / 2
    compute = super(StageTrainer, trainer).compute_loss
    with LargestLogits(vocabulary) as theirs:
        expected, expected_gradient = loss_and_gradients(trainer, batch, compute)
    assert theirs.positions == batch["labels"][:, 1:].numel()  # TRL by itself, without Triton
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-7)
    full = trainer.model(**batch).loss * num_answers / 7  # all logits
    torch.testing.assert_close(loss, full.detach(), rtol=1e-5, atol=0)


def test_no_logits_of_a_whole_batch_are_made_in_a_training_step(make_trainer, mixed):
    trainer = make_trainer(
        mixed, max_steps=2, gradient_accumulation_steps=2, train_sampling_strategy="batch_rebalance"
    )
    with LargestLogits(trainer.model.config.text_config.vocab_size) as most:
        trainer.train()
    batches = [batch["labels"] for batch in trainer.get_train_dataloader()]
    assert 0 < most.positions <= max(int((labels[:, 1:] != -100).sum()) for labels in batches)


def test_metrics_stay_those_of_trl(make_trainer, mixed):
    trainer = make_trainer(mixed)
    batch = trainer.data_collator([row(1, 2), row(2, 1)])
    found = []
    for compute in (trainer.compute_loss, super(StageTrainer, trainer).compute_loss):
        trainer._metrics["train"].clear()
        trainer._total_train_tokens = 0
        compute(trainer.model, dict(batch))
        found.append({key: values[-1] for key, values in trainer._metrics["train"].items()})
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0]["num_tokens"] == batch["attention_mask"].sum()


# Images


def odd_images() -> list[Image.Image]:
    """Sizes and modes that do not go together."""
    pixels = np.random.default_rng(3)
    sizes = {"RGB": (40, 32), "RGBA": (17, 90), "L": (300, 20), "P": (33, 33), "CMYK": (64, 128)}
    return [
        Image.fromarray(pixels.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)
        for mode, (width, height) in sizes.items()
    ]


def as_file(picture: Image.Image) -> dict:
    file = io.BytesIO()
    picture.save(file, "TIFF" if picture.mode == "CMYK" else "PNG")
    return {"bytes": file.getvalue(), "path": None}


def test_images_of_mixed_sizes_train(make_trainer, tmp_path):
    pictures = odd_images()
    rows = [row(0, 3) | {"images": [as_file(one) for one in pictures[:3]]}]
    rows.append(row(1, 2) | {"images": [as_file(one) for one in pictures[3:]]})
    trainer = make_trainer(save_data(tmp_path / "odd", odd=rows), per_device_train_batch_size=2, max_steps=2)
    batch = trainer.data_collator([trainer.train_dataset[0], trainer.train_dataset[1]])
    assert batch["pixel_values"].shape == (5, 3, 32, 32)
    alone = trainer.processing_class.image_processor(pictures[1].convert("RGB"), return_tensors="pt")["pixel_values"]
    assert torch.equal(batch["pixel_values"][1], alone[0])  # squashed to the square, whatever its neighbours
    assert np.isfinite(trainer.train().training_loss)


def test_stages_keep_the_pixel_shuffle_of_stage_1(encoder, language_model, data, tmp_path, capsys):
    argv = ["--stage", "1", "--encoder", str(encoder), "--language_model", str(language_model)]
    argv += ["--projector_shuffle", "2", "--cache-features", str(tmp_path / "features")]
    assert main([*argv, *common(data, tmp_path / "stage1", max_steps=1)]) == 0
    (cache,) = (tmp_path / "features").iterdir()  # of the encoder alone: the shuffle comes behind it
    argv[argv.index("2")] = "1"
    assert main([*argv, *common(data, tmp_path / "other", max_steps=1)]) == 0
    assert list((tmp_path / "features").iterdir()) == [cache]
    later = ["--stage", "2", "--model", str(tmp_path / "stage1")]
    assert main([*later, *common(data, tmp_path / "stage2", max_steps=1)]) == 0
    assert json.loads((tmp_path / "stage2" / "config.json").read_text())["projector_shuffle"] == 2
    assert main([*later, "--projector_shuffle", "2", *common(data, tmp_path / "again")]) == 2
    assert "projector_shuffle=2 has no effect in stage 2: remove it." in capsys.readouterr().err


def test_a_shuffle_that_does_not_fit_is_one_sentence(encoder, language_model, data, tmp_path, capsys):
    argv = ["--stage", "1", "--encoder", str(encoder), "--language_model", str(language_model)]
    assert main([*argv, "--projector_shuffle", "3", *common(data, tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "projector_shuffle=3" in error and "multiple of 24 pixels" in error and error.count("\n") == 1


def test_answers_are_marked_where_transformers_marks_them(make_trainer, mixed, monkeypatch):
    trainer = make_trainer(mixed)
    rows = [row(1, 3), row(2, 1)]
    rows[0]["messages"][1]["content"][0]["text"] = "Ünïcödé 深度 1.25 m"
    ours = trainer.data_collator(rows)["labels"]
    monkeypatch.delattr(SpatialBoostProcessor, "_adjust_assistant_masks_indices")
    assert torch.equal(ours, trainer.data_collator(rows)["labels"])


@pytest.fixture
def files(tmp_path):
    """A data set whose images are files beside it, which can be damaged after the check."""
    rows = []
    for index in range(6):
        one = row(index, 2)
        for view, picture in enumerate(one["images"]):
            picture.save(tmp_path / f"{index}_{view}.png")
        one["images"] = [{"bytes": None, "path": str(tmp_path / f"{index}_{view}.png")} for view in range(2)]
        rows.append(one)
    folder = tmp_path / "data" / "single_view"
    folder.mkdir(parents=True)
    table = Dataset.from_list(rows, features=FEATURES).with_format("arrow")[:]
    pq.write_table(table, folder / "train.parquet")  # `to_parquet` would take the files in
    return tmp_path


@pytest.mark.parametrize(("num_workers", "damage"), [(0, "cut"), (1, "absent"), (1, "noise")])
def test_damage_after_the_check_is_named(encoder, language_model, files, monkeypatch, capsys, num_workers, damage):
    path = files / "4_1.png"
    fit = sft.fit

    def damaged(*arguments):
        data = path.read_bytes()
        path.unlink() if damage == "absent" else path.write_bytes(data[:200] if damage == "cut" else b"noise")
        return fit(*arguments)

    monkeypatch.setattr(sft, "fit", damaged)
    argv = ["--stage", "1", "--encoder", str(encoder), "--language_model", str(language_model)]
    argv += common(files / "data", files / "out", dataloader_num_workers=num_workers)
    argv.remove(f"{files / 'data'}:multi_view")
    argv[argv.index(f"{files / 'data'}:single_view")] = str(files / "data")
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "row 4 (id 'scene_4') has an image that cannot be read, number 2" in error
    assert "1 of 6 rows" in error and "Traceback" not in error


def test_other_errors_stay_what_they_are():
    with pytest.raises(FileNotFoundError, match="elsewhere"), damage_named(["no data set"]):
        Path("elsewhere").read_text()
    with pytest.raises(ValueError, match="^something else$"), damage_named([]):
        raise ValueError("something else")


def test_a_damaged_shard_found_by_a_worker_is_one_sentence(encoder, language_model, data, tmp_path, capsys):
    argv = ["--stage", "1", "--encoder", str(encoder), "--language_model", str(language_model)]
    argv += ["--cache-features", str(tmp_path / "features")]
    assert main([*argv, *common(data, tmp_path / "first", max_steps=1)]) == 0
    (shard,) = (tmp_path / "features").glob("*/*.safetensors")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    shard.write_bytes(content)
    assert main([*argv, *common(data, tmp_path / "second", max_steps=3, dataloader_num_workers=1)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("spatialboost train: error: cache_features=") and "is damaged" in error


@pytest.mark.parametrize("name", OF_CONVERSATIONS)
def test_recipes_group_by_length_and_their_workers_can_be_turned_off(name):
    recipe = RECIPES / name
    _, training = make_parser().parse_args_and_config(["--config", str(recipe), "--report_to", "none"])
    assert training.train_sampling_strategy == "batch_rebalance"
    # those of a step are fetched at once when it begins
    ready = training.dataloader_num_workers * training.dataloader_prefetch_factor
    assert ready >= training.gradient_accumulation_steps
    argv = ["--config", str(recipe), "--report_to", "none", "--dataloader_num_workers", "0"]
    _, alone = make_parser().parse_args_and_config(argv)
    assert (alone.dataloader_prefetch_factor, alone.dataloader_persistent_workers) == (None, False)
