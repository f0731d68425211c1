"""The language model in 4 or 8 bits: how near to the plain one, what trains, what is saved; 8-bit optimizers."""

import importlib.util

import pytest
import torch
from safetensors.torch import load_file

from experiments.tiny_models import save_tiny_language_model
from modeling_spatialboost import SpatialBoostForConditionalGeneration
from tests.commands import train as main
from tests.trainers.conftest import ANSWER, QUESTION, common
from trainers.config import StageArguments, TrainingConfig
from trainers.low_rank import merge_adapters, take_out_adapters
from trainers.models import load_model, to_plain_model
from trainers.quantization import check_dimensions, require_bitsandbytes
from trainers.sft import make_parser, prepare
from trainers.stages import STAGES, apply_stage
from trainers.trainer import StageTrainer

pytest.importorskip("bitsandbytes")
# largest relative difference of the loss, smallest cosine of gradients; measured 6e-4 and 0.988, 6e-5 and 0.99996
BOUNDS = {"4bit": (0.01, 0.98), "8bit": (0.003, 0.999)}


@pytest.fixture(scope="module")
def wide_language_model(tmp_path_factory):
    texts = [QUESTION.format(3, 1), ANSWER.format(2), "user assistant"]
    return save_tiny_language_model(tmp_path_factory.mktemp("lm"), texts, 400, hidden_size=64, num_layers=2)


@pytest.fixture(scope="module")
def first(data, encoder, wide_language_model, tmp_path_factory):
    """Output of a stage 1 with a language model that fits 4 bits."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("first")
    start = ["--encoder", str(encoder), "--language_model", str(wide_language_model)]
    assert main(["--stage", "1", *start, *common(data, folder, max_steps=1)]) == 0
    return folder


@pytest.fixture(scope="module")
def second(data, first, tmp_path_factory):
    """Output of the stage 2 that continued from it."""
    folder = tmp_path_factory.mktemp("second")
    assert main(["--stage", "2", "--model", str(first), *common(data, folder, max_steps=1)]) == 0
    return folder


def arguments(model, quantize=None, **settings) -> StageArguments:
    choice = {"stage": 3, "datasets": ["none"], "model": str(model), "quantize_language_model": quantize}
    return StageArguments(**(choice | settings))


def loss_and_gradients(second, data, tmp_path, quantize, dtype=torch.float32, checkpointing=False):
    """Loss of one batch and the gradients of what stage 3 trains."""
    command = ["--stage", "3", "--model", str(second), *common(data, tmp_path, activation_checkpointing=checkpointing)]
    run = prepare(*make_parser().parse_args_and_config(command))
    model, _ = load_model(arguments(second, quantize), dtype)
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if name.endswith("alpha_logit") or "attn_plus" in name:  # alpha has no gradient where both channels are equal
            parameter.data += 0.1 * torch.randn_like(parameter)
    apply_stage(model, STAGES[3])
    trainer = StageTrainer(
        STAGES[3], run.training, model=model, train_dataset=run.dataset, processing_class=run.parts[1]
    )
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = trainer.compute_loss(model.train(), batch)
    loss.backward()
    gradients = {name: p.grad.float() for name, p in model.named_parameters() if p.requires_grad}
    return loss.item(), gradients


def cosine(ours, theirs, part):
    flat = [torch.cat([g[name].flatten() for name in sorted(g) if part in name]) for g in (ours, theirs)]
    return torch.cosine_similarity(*flat, dim=0).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_loss_and_gradients_stay_near(second, data, tmp_path, quantize, dtype):
    loss, gradients = loss_and_gradients(second, data, tmp_path, None, dtype)
    near, ours = loss_and_gradients(second, data, tmp_path, quantize, dtype)
    difference, smallest = BOUNDS[quantize]
    found = {part: cosine(ours, gradients, part) for part in ("attn_plus", "alpha_logit", "multi_modal_projector")}
    print(quantize, dtype, loss, near, found)
    assert 0 < abs(near - loss) < difference * loss
    assert all(smallest < value < 1 for value in found.values())


@pytest.mark.parametrize("quantize", [None, "4bit"])
def test_recomputed_activations_give_the_same_gradients(second, data, tmp_path, quantize):
    _, plain = loss_and_gradients(second, data, tmp_path, quantize)
    _, recomputed = loss_and_gradients(second, data, tmp_path, quantize, checkpointing=True)
    assert all(torch.allclose(recomputed[name], plain[name], rtol=1e-4, atol=1e-7) for name in plain)
    assert all(plain[name].any() for name in plain if "o_proj" in name and "attn_plus" in name)


def test_only_the_blocks_of_the_language_model_are_quantised(second):
    model, _ = load_model(arguments(second, "4bit"))
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    quantised = {name for name, kind in kinds.items() if kind == "Linear4bit"}
    assert len(quantised) == 2 * 7
    assert all(name.startswith("model.language_model.layers.") for name in quantised)
    assert kinds["lm_head"] == "Linear"
    assert not hasattr(model.config, "quantization_config") and not getattr(model, "is_loaded_in_4bit", False)
    assert type(model) is SpatialBoostForConditionalGeneration


@pytest.mark.parametrize("quantize", [None, "4bit", "8bit"])
def test_dtypes_are_those_of_reading(second, quantize):
    """The frozen language model is never in float32, all else always, the new second channel too."""
    model, _ = load_model(arguments(second, quantize), torch.bfloat16)
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    text = {name for name in dtypes if "language_model" in name or "lm_head" in name}
    allowed = {torch.bfloat16} | ({torch.uint8, torch.int8} if quantize else set())
    assert {dtypes[name] for name in text} <= allowed
    assert {dtypes[name] for name in dtypes.keys() - text} == {torch.float32}
    plain, _ = load_model(arguments(second))
    weights = plain.state_dict()
    vision = {name: tensor for name, tensor in model.state_dict().items() if "vision_tower" in name}
    assert all(torch.equal(tensor, weights[name]) for name, tensor in vision.items())
    frequencies = model.model.language_model.rotary_emb.inv_freq
    assert torch.equal(frequencies, plain.model.language_model.rotary_emb.inv_freq)


def test_reading_in_bf16_equals_casting_afterwards(second, encoder, wide_language_model):
    settings = {"datasets": ["none"], "encoder": str(encoder), "language_model": str(wide_language_model)}
    for choice in (arguments(second), StageArguments(stage=1, **settings)):
        torch.manual_seed(0)
        plain, _ = load_model(choice)
        torch.manual_seed(0)
        read, _ = load_model(choice, torch.bfloat16)
        weights = plain.state_dict()
        for name, tensor in read.state_dict().items():
            rows = slice(-1) if choice.stage == 1 and name.endswith(("embed_tokens.weight", "lm_head.weight")) else ...
            assert torch.equal(tensor[rows], weights[name][rows].to(tensor.dtype))  # the image token's row is drawn
        assert read.model.multi_modal_projector.linear_1.weight.dtype == torch.float32


@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_stage_3_saves_the_language_models_own_weights(second, data, tmp_path, quantize):
    command = ["--stage", "3", "--model", str(second), "--quantize_language_model", quantize]
    assert main([*command, *common(data, tmp_path, activation_checkpointing=True)]) == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (second, tmp_path))
    text = {name for name in before if "language_model" in name}
    assert all(torch.equal(before[name], after[name]) for name in text)
    channel = {name for name in after if "attn_plus" in name and name.endswith("weight")}
    base = {name: name.replace(".attn_plus", "") for name in channel}
    assert channel and not any(torch.equal(after[name], after[base[name]]) for name in channel)
    assert "quantization_config" not in (tmp_path / "config.json").read_text()
    SpatialBoostForConditionalGeneration.from_pretrained(tmp_path)


def test_stage_2_with_qlora_goes_on_in_stage_3(first, data, tmp_path):
    folders = tmp_path / "stage2", tmp_path / "stage3"
    command = ["--stage", "2", "--model", str(first), "--lora_rank", "4", "--quantize_language_model", "4bit"]
    assert main([*command, *common(data, folders[0], activation_checkpointing=True)]) == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (first, folders[0]))
    assert {name: tensor.shape for name, tensor in after.items()} == {n: t.shape for n, t in before.items()}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    linears = {name for name in before if "language_model.layers" in name and "_proj.weight" in name}
    assert changed == linears | {name for name in before if "multi_modal_projector" in name}
    for name in linears:  # a small change to the weights that came in, not rounding to 4 bits
        difference = after[name] - before[name]
        assert torch.linalg.matrix_rank(difference.double(), rtol=1e-4) <= 4
    assert main(["--stage", "3", "--model", str(folders[0]), *common(data, folders[1], max_steps=1)]) == 0


def test_qlora_merges_the_same_pairs_into_the_own_weights(first):
    choice = arguments(first, "4bit", stage=2, lora_rank=4)
    model, _ = load_model(choice)
    torch.manual_seed(0)
    pairs = {name: tensor for name, tensor in model.named_parameters() if "lora_B" in name}
    for tensor in pairs.values():
        torch.nn.init.normal_(tensor, std=0.05)
    plain, _ = load_model(arguments(first, stage=2, lora_rank=4))
    plain.load_state_dict({n: t for n, t in model.state_dict().items() if ".lora_" in n}, strict=False)
    tokens = torch.arange(30)[None]
    with torch.no_grad():
        expected = plain(input_ids=tokens).logits
        to_plain_model(model, choice)
        assert torch.allclose(model(input_ids=tokens).logits, expected, atol=1e-4)
        merge_adapters(plain, take_out_adapters(plain))
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in plain.state_dict().items())


@pytest.mark.parametrize("quantize", [None, "4bit", "8bit"])
def test_the_space_that_is_sought_is_that_of_the_saved_files(second, data, tmp_path, quantize, monkeypatch):
    asked = []
    monkeypatch.setattr("trainers.sft.check_space", lambda folder, num_bytes, what: asked.append(num_bytes))
    choice = [] if quantize is None else ["--quantize_language_model", quantize]
    assert main(["--stage", "3", "--model", str(second), *choice, *common(data, tmp_path, max_steps=1)]) == 0
    files = [tmp_path / "model.safetensors", tmp_path / "encoder" / "model.safetensors"]
    tensors = [tensor for path in files for tensor in load_file(path).values()]
    assert asked == [sum(tensor.numel() * tensor.element_size() for tensor in tensors)]


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw_8bit"])
def test_8_bit_optimizers_keep_the_rates_of_the_groups(second, data, tmp_path, optimizer):
    command = ["--stage", "3", "--model", str(second), "--alpha_learning_rate", "0.05"]
    run = prepare(*make_parser().parse_args_and_config([*command, *common(data, tmp_path, optim=optimizer)]))
    trainer = StageTrainer(
        STAGES[3], run.training, model=run.parts[0], train_dataset=run.dataset, processing_class=run.parts[1]
    )
    made = trainer.create_optimizer()
    assert "8bit" in type(made).__name__ or made.args.optim_bits == 8
    rates = {group["name"]: group["lr"] for group in made.param_groups}
    assert rates == {"attn_plus": 0.01, "projector": 0.01, "alpha": 0.05}
    before = {name: p.detach().clone() for name, p in run.parts[0].named_parameters() if p.requires_grad}
    trainer.train()
    after = dict(run.parts[0].named_parameters())
    assert not any(torch.equal(after[name], tensor) for name, tensor in before.items() if "k_proj" not in name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantize": "2bit"}, "quantize_language_model='2bit': pass one of 4bit, 8bit"),
        ({"quantize": "4bit", "stage": 2}, "not in a plain stage 2: set lora_rank, or remove it"),
        ({"quantize": "4bit", "stage": 1, "model": None}, "not in a plain stage 1: remove it"),
    ],
)
def test_wrong_combinations(settings, message):
    with pytest.raises(ValueError, match=message):
        arguments(**{"model": "none"} | settings)


def test_dimensions_that_do_not_fit(runs):
    with pytest.raises(ValueError, match=r"q_proj of this 'qwen3' language model has 32 inputs.*of 64: pass 8bit"):
        load_model(arguments(runs[2], "4bit"))
    model, _ = load_model(arguments(runs[2], "8bit"))
    with pytest.raises(ValueError, match="multiple of 64"):
        check_dimensions(model.config.text_config)


def test_sharded_runs_are_refused(second, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="quantize_language_model='4bit' and FSDP or ZeRO-3 exclude each other"):
        load_model(arguments(second, "4bit"))
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    monkeypatch.setattr("trainers.models.is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(ValueError, match="lora_rank=2 and ZeRO-3 exclude each other"):
        load_model(arguments(second, encoder_tuning="lora", lora_rank=2))


def test_without_bitsandbytes(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name))
    with pytest.raises(ValueError, match=r"'4bit' needs bitsandbytes: install it with `pip install 'spatialboo"):
        arguments("none", "4bit")
    with pytest.raises(ValueError, match="optim='paged_adamw_8bit' needs bitsandbytes"):
        TrainingConfig(output_dir=str(tmp_path), optim="paged_adamw_8bit")
    monkeypatch.undo()
    require_bitsandbytes("optim='adamw_8bit'")
