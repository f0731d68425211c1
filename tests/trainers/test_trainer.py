"""One stage at a time, in memory: what a step changes, at which rate, and on what loss."""

from pathlib import Path

import pytest
import torch

from tests.trainers.conftest import ANSWER, QUESTION, common, row
from trainers.sft import make_parser, prepare
from trainers.stages import STAGES
from trainers.trainer import StageTrainer


@pytest.fixture
def make_trainer(runs, data, encoder, language_model, tmp_path):
    """A trainer of a stage that continues from the finished stage before it."""

    def make(stage: int, **overrides) -> StageTrainer:
        start = {"model": runs[stage - 1]} if stage > 1 else {"encoder": encoder, "language_model": language_model}
        argv = ["--stage", str(stage), *(text for key, value in start.items() for text in (f"--{key}", str(value)))]
        run = prepare(*make_parser().parse_args_and_config([*argv, *common(data, tmp_path, **overrides)]))
        model, processor = run.parts
        return StageTrainer(
            STAGES[stage], run.training, model=model, train_dataset=run.dataset, processing_class=processor
        )

    return make


def answers(index: int) -> str:
    return "".join(ANSWER.format((index + turn) % 10) + "<|im_end|>" for turn in range(3))


@pytest.mark.parametrize("stage, changing, checkpointing", [(1, 4, True), (2, 4 + 24, False), (3, 4 + 14 + 2, True)])
def test_training_changes_exactly_what_the_stage_opens(make_trainer, encoder, stage, changing, checkpointing):
    trainer = make_trainer(stage, activation_checkpointing=checkpointing)
    model = trainer.model
    opened = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = {name: tensor.clone() for name, tensor in model.state_dict(keep_vars=False).items()}
    trainer.train()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}
    assert changed - {"lm_head.weight"} == opened  # which is tied to the embeddings
    assert len(opened) == changing
    assert ("lm_head.weight" in changed) == (stage == 2)
    report = model.vision_tower.verify_base_channel(str(encoder))
    assert report
    assert report.compared > 30


def test_a_moved_base_weight_would_be_seen(make_trainer, encoder):
    model = make_trainer(3).model
    with torch.no_grad():
        next(p for n, p in model.vision_tower.named_parameters() if "attn_plus" not in n).add_(1e-4)
    assert not model.vision_tower.verify_base_channel(str(encoder))


def test_every_group_steps_at_its_own_rate(make_trainer):
    trainer = make_trainer(
        3, learning_rate=1e-3, alpha_learning_rate=5e-2, projector_learning_rate=2e-4, weight_decay=0.1, max_steps=1,
        lr_scheduler_type="constant",
    )  # fmt: skip
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    with torch.no_grad():  # apart, so that alpha has a gradient in the first step
        for name, parameter in trainer.model.named_parameters():
            if "attn_plus" in name:
                parameter.add_(0.01)
                before[name] = parameter.clone()
    trainer.train()
    groups = trainer.optimizer.param_groups
    assert {(group["name"], group["lr"], group["weight_decay"]) for group in groups} == {
        ("attn_plus", 1e-3, 0.1),
        ("attn_plus", 1e-3, 0.0),  # biases
        ("projector", 2e-4, 0.1),
        ("projector", 2e-4, 0.0),
        ("alpha", 5e-2, 0.0),
    }
    # the first step of Adam moves every number by its rate, whatever the gradient
    moved = {
        name: (parameter - before[name]).abs().max().item() for name, parameter in trainer.model.named_parameters()
    }
    assert moved["model.multi_modal_projector.linear_2.bias"] == pytest.approx(2e-4, rel=0.02)
    assert max(value for name, value in moved.items() if name.endswith("alpha_logit")) == pytest.approx(5e-2, rel=0.02)
    bias = max(value for name, value in moved.items() if name.endswith("attn_plus.v_proj.bias"))
    assert bias == pytest.approx(1e-3, rel=0.02)
    logged = trainer.state.log_history[0]
    assert (logged["learning_rate/alpha"], logged["learning_rate/projector"]) == pytest.approx((5e-2, 2e-4))


def test_loss_is_on_the_answers_only(make_trainer):
    trainer = make_trainer(2)
    batch = trainer.data_collator([row(3, 1), row(4, 3)])
    tokenizer = trainer.processing_class.tokenizer
    for index, labels in zip((3, 4), batch["labels"]):
        assert tokenizer.decode(labels[labels != -100]) == answers(index)
    text = tokenizer.decode(batch["input_ids"][0])
    assert QUESTION.format(3, 1) in text
    assert (batch["input_ids"] == tokenizer.convert_tokens_to_ids("<image>")).sum(1).tolist() == [16, 48]


def total_loss(trainer: StageTrainer, rows: list[dict]) -> torch.Tensor:
    """Sum over the answers' tokens."""
    batch = trainer.data_collator(rows)
    return trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(1))


def test_a_batch_may_mix_numbers_of_images(make_trainer):
    trainer = make_trainer(3)
    rows = [row(1, 2), row(2, 1), row(3, 3)]
    with torch.no_grad():
        together = total_loss(trainer, rows)
        apart = [total_loss(trainer, [one]) for one in rows]
        swapped = [row(1, 2), row(2, 1) | {"images": row(9, 1)["images"]}, row(3, 3)]
        other = total_loss(trainer, swapped)
    assert together.item() == pytest.approx(sum(apart).item(), rel=1e-5)
    assert other.item() != pytest.approx(together.item(), rel=1e-7)  # the images are read


def test_training_and_evaluation_mode_give_one_loss(make_trainer):
    trainer = make_trainer(3)
    rows = [row(1, 2), row(2, 1)]
    pixels = trainer.data_collator(rows)["pixel_values"]
    losses, features = {}, {}
    with torch.no_grad():
        for mode in (True, False):
            trainer.model.train(mode)
            losses[mode] = total_loss(trainer, rows)
            features[mode] = trainer.model.model.vision_features(pixels)
        for module in trainer.model.vision_tower.backbone.modules():
            module.training = True  # DINOv3's own way: patch coordinates are jittered
        jittered = trainer.model.model.vision_features(pixels)
    assert torch.equal(losses[True], losses[False])
    assert torch.equal(features[True], features[False])
    assert not torch.equal(jittered, features[False])


def test_stage_3_starts_where_stage_2_ended(make_trainer, runs):
    from modeling_spatialboost import SpatialBoostForConditionalGeneration

    trainer = make_trainer(3)
    batch = trainer.data_collator([row(1, 2), row(2, 1)])
    labels = batch.pop("labels")
    plain = SpatialBoostForConditionalGeneration.from_pretrained(runs[2]).eval()
    assert plain.config.vision_config.boosted_layers == []
    assert not plain.vision_tower.alpha_table()
    with torch.no_grad():
        before, after = plain(**batch).logits, trainer.model.eval()(**batch).logits
    assert labels.shape == before.shape[:2]
    assert torch.equal(before, after)
    assert [line["mean"] for line in trainer.model.vision_tower.alpha_table()] == [0.5, 0.5]


def test_frozen_language_model_in_bf16(make_trainer, encoder):
    trainer = make_trainer(3, bf16="true", use_cpu="true")
    dtypes = {name: parameter.dtype for name, parameter in trainer.model.named_parameters()}
    assert {dtype for name, dtype in dtypes.items() if "language_model" in name} == {torch.bfloat16}
    assert {dtype for name, dtype in dtypes.items() if "language_model" not in name} == {torch.float32}
    inverse_frequencies = trainer.model.model.language_model.rotary_emb.inv_freq
    assert inverse_frequencies.dtype == torch.float32
    trainer.train()
    assert trainer.state.global_step == 3
    assert all(0 < entry["loss"] < 20 for entry in trainer.state.log_history if "loss" in entry)
    assert trainer.model.vision_tower.verify_base_channel(str(encoder))


def test_a_checkpoint_brings_back_all_that_trains(make_trainer, tmp_path: Path):
    trainer = make_trainer(3, save_strategy="steps", save_steps=3)
    trainer.train()
    fresh = make_trainer(3)
    assert not torch.equal(alpha(fresh), alpha(trainer))
    fresh._load_from_checkpoint(str(tmp_path / "checkpoint-3"))
    saved = trainer.model.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in fresh.model.state_dict().items())


def alpha(trainer: StageTrainer) -> torch.Tensor:
    return torch.cat([p for name, p in trainer.model.named_parameters() if name.endswith("alpha_logit")])
