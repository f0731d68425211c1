"""The formula of memory beside steps whose bytes are counted, and beside real quantised tensors."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks import memory
from benchmarks.memory import SMALL_SAMPLE, fits, model_config, plans
from benchmarks.memory_trace import AnswerHead, FullLogits, count_step, measure_on_gpu
from experiments.tiny_models import save_tiny_language_model
from trainers.memory import BITS_4_BYTES, Plan, Sample, compute_memory
from trainers.quantization import quantization_config
from trainers.stages import ENCODER_TUNINGS, STAGE_2_LORA, STAGES

PLANS = {
    "stage 1": Plan(STAGES[1]),
    "stage 2": Plan(STAGES[2], activation_checkpointing=False),
    "LoRA": Plan(STAGE_2_LORA, lora_rank=8, activation_checkpointing=False),
    "stage 3": Plan(STAGES[3], activation_checkpointing=False),
    "stage 3, recomputed": Plan(STAGES[3]),
}
SAMPLE = Sample(num_images=4, num_tokens=900, num_answer_tokens=40)


@pytest.mark.parametrize("name", PLANS)
def test_the_formula_is_near_what_is_counted(name):
    plan = PLANS[name]
    config = model_config("ViT-tiny", "tiny", plan)
    counted = count_step(config, plan, SAMPLE, fake=False)
    computed = compute_memory(config, plan, SAMPLE)
    lasting = computed.weights + computed.gradients + computed.optimizer
    assert lasting == pytest.approx(counted.lasting, rel=0.02)
    assert computed.activations == pytest.approx(counted.kept, rel=0.1)
    assert computed.total == pytest.approx(counted.peak, rel=0.06)


def test_what_two_channels_keep():
    """The difference between stages 3 and 1 is the encoder's alone."""
    counted, computed = [], []
    for stage in (STAGES[1], STAGES[3]):
        plan = Plan(stage, activation_checkpointing=False)
        config = model_config("ViT-tiny", "tiny", plan)
        counted.append(count_step(config, plan, SAMPLE, fake=False).kept)
        computed.append(compute_memory(config, plan, SAMPLE).activations)
    # in the first layer neither the frozen channel nor the first norm keeps anything: 12 d bytes for each token
    first = 4 * 201 * 12 * 128
    assert computed[1] - computed[0] - first == pytest.approx(counted[1] - counted[0], rel=0.03)


def test_tensors_without_memory_count_the_same():
    plan = PLANS["stage 3, recomputed"]
    config = model_config("ViT-tiny", "tiny", plan)
    real, fake = (count_step(config, plan, SAMPLE, fake=fake) for fake in (False, True))
    assert fake.kept == real.kept and fake.peak == pytest.approx(real.peak, rel=1e-3)


def test_checkpointing_keeps_less():
    plain, recomputed = (
        compute_memory(model_config("ViT-S", "small", PLANS[name]), PLANS[name], SAMPLE)
        for name in ("stage 3", "stage 3, recomputed")
    )
    assert recomputed.activations < 0.2 * plain.activations
    assert (recomputed.weights, recomputed.optimizer) == (plain.weights, plain.optimizer)


def test_sharding_and_8_bit_states():
    config = model_config("ViT-S", "small", PLANS["stage 2"])
    one, eight, light = (
        compute_memory(config, Plan(STAGES[2], **settings), SAMPLE)
        for settings in ({}, {"num_shards": 8}, {"eight_bit_optimizer": True})
    )
    assert eight.weights == one.weights / 8 and eight.optimizer == one.optimizer / 8
    assert light.optimizer == pytest.approx(one.optimizer / 4, rel=0.02)


@pytest.mark.parametrize("choice", ["4bit", "8bit"])
def test_quantised_weights_take_what_is_computed(tmp_path, choice):
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM

    save_tiny_language_model(tmp_path, ["a"], 300, hidden_size=256, num_layers=2)
    settings = quantization_config(choice, torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=settings, dtype=torch.bfloat16)
    found = wanted = 0.0
    for module in model.modules():
        if type(module).__name__ in ("Linear4bit", "Linear8bitLt"):
            numbers = module.in_features * module.out_features
            tensors = [module.weight]
            if choice == "4bit":
                state = module.weight.quant_state
                tensors += [state.absmax, state.state2.absmax]
                wanted += BITS_4_BYTES * numbers
            else:
                tensors += [module.weight.SCB]
                wanted += numbers + 4 * module.out_features
            found += sum(tensor.nbytes for tensor in tensors)
    assert found == pytest.approx(wanted, rel=0.01)


def test_every_row_of_the_table_is_computed(capsys):
    rows = fits(SMALL_SAMPLE, (("ViT-tiny", "tiny"),))
    assert len(rows) == len(plans()) and {row["how"] for row in rows} == {"computed"}
    assert capsys.readouterr().out.count("| yes | yes | yes | yes |") == len(rows)


def test_full_logits_are_those_of_a_plain_model():
    head, hidden, labels = nn.Linear(8, 50), torch.randn(1, 20, 8), torch.arange(20)[None]
    loss = FullLogits(SimpleNamespace(lm_head=head)).forward(hidden, labels=labels).loss
    assert torch.allclose(loss, nn.functional.cross_entropy(head(hidden)[0, :-1], labels[0, 1:]))
    plan = PLANS["stage 3, recomputed"]
    config = model_config("ViT-tiny", "tiny", plan)
    full, ours = (count_step(config, plan, SAMPLE, True, form) for form in (FullLogits, AnswerHead))
    logarithms = 4 * SAMPLE.num_tokens * config.text_config.vocab_size  # what softmax keeps
    assert full.kept - ours.kept == pytest.approx(logarithms, rel=0.03)
    assert full.peak > ours.peak + 0.9 * logarithms


def test_heads_are_compared_in_whole_batches_and_in_micro_batches(capsys, monkeypatch):
    monkeypatch.setitem(memory.ENCODERS, "ViT-L", memory.ENCODERS["ViT-tiny"])
    monkeypatch.setattr(memory, "BATCHES", {("tiny", 1): (2, 1)})
    whole, micro = memory.heads()
    assert (whole["in memory"], micro["in memory"]) == ("2 of 2", "1 of 2")
    assert whole["memory"] == whole["ours"] / whole["full"] and micro["memory"] == micro["ours"] / whole["full"]
    assert capsys.readouterr().out.count("| tiny | 1 |") == 2


def test_other_tunings_are_not_computed():
    plan = Plan(ENCODER_TUNINGS["full"])
    with pytest.raises(ValueError, match="memory is computed for the second channel or a frozen encoder"):
        compute_memory(model_config("ViT-tiny", "tiny", plan), plan, SAMPLE)
    with pytest.raises(ValueError, match="quantised and sharded plans are computed only"):
        measure_on_gpu(model_config("ViT-tiny", "tiny", plan), Plan(STAGES[3], quantize="4bit"), SAMPLE)
