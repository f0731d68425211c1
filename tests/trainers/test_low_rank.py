"""What trains in the encoder besides the second channel (full, LoRA, frozen), and LoRA on the language model."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modeling_spatialboost import SpatialBoostForConditionalGeneration, SpatialBoostModel
from modeling_spatialboost.channel_fusion import projection_names
from modeling_spatialboost.dual_channel_attention import attention_modules
from modeling_spatialboost.patch_tokens import to_map
from tests.commands import train as main
from tests.modeling_spatialboost.encoders import BUILDERS, tiny_encoder
from tests.trainers.conftest import common
from trainers.config import StageArguments
from trainers.low_rank import (
    adapt_encoder,
    adapt_language_model,
    attention_linears,
    matched_rank,
    merge_adapters,
    rank_of_adapters,
    take_out_adapters,
)
from trainers.models import load_model
from trainers.run_record import read_record
from trainers.sft import make_parser
from trainers.stages import ENCODER_TUNINGS, STAGE_2_LORA, apply_stage

RECIPES = Path(__file__).parents[2] / "trainers" / "recipes"
TUNINGS = {"full": [], "lora": ["--lora_rank", "2"], "lora_matched": [], "frozen": []}


def start(runs, **settings) -> SpatialBoostForConditionalGeneration:
    arguments = StageArguments(**{"stage": 3, "datasets": ["none"], "model": str(runs[2]), **settings})
    torch.manual_seed(0)
    return load_model(arguments)[0]


@pytest.fixture(scope="module")
def tuned(runs, data, tmp_path_factory):
    """Output folders of stage 3 with each tuning of the encoder."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("tuned")
    for tuning, extra in TUNINGS.items():
        settings = common(data, root / tuning, activation_checkpointing=tuning != "frozen")
        command = ["--stage", "3", "--model", str(runs[2]), "--encoder_tuning", tuning, *extra]
        assert main([*command, *settings]) == 0
    return {tuning: root / tuning for tuning in TUNINGS}


def test_every_tuning_saves_an_encoder_of_the_plain_form(tuned, runs):
    before = load_file(runs[2] / "model.safetensors")
    for tuning, folder in tuned.items():
        after = load_file(folder / "model.safetensors")
        assert after.keys() == before.keys()
        encoder = SpatialBoostModel.from_pretrained(folder / "encoder")
        assert encoder.config.boosted_layers == [] and encoder.alpha_table() == []
        whole = SpatialBoostForConditionalGeneration.from_pretrained(folder).vision_tower.state_dict()
        assert all(torch.equal(tensor, whole[name]) for name, tensor in encoder.state_dict().items())
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert {name for name in changed if "multi_modal_projector" in name}
        assert not any("language_model" in name or "lm_head" in name for name in changed)
        vision = {name for name in changed if "vision_tower" in name}
        attention = {
            name for name in before if "vision_tower" in name and "_proj.weight" in name and "attention" in name
        }
        if tuning == "full":
            assert len(vision) == len([name for name in before if "vision_tower" in name and "mask_token" not in name])
        else:
            assert vision == (set() if tuning == "frozen" else attention)
            assert len(attention) == 8


def test_records_and_cards_tell_the_tuning(tuned):
    records = {tuning: read_record(folder) for tuning, folder in tuned.items()}
    assert list(records["full"]["trainable_parameters"]) == ["encoder", "projector"]
    assert list(records["frozen"]["trainable_parameters"]) == ["projector"]
    assert records["lora"]["lora_rank"] == 2 and records["full"]["lora_rank"] is None
    assert records["lora"]["trainable_parameters"]["encoder_lora"] == 2 * 2 * 4 * 64
    matched = records["lora_matched"]
    dual_channel = 8384 + 64  # of test_sft.py
    assert matched["trainable_parameters"]["encoder_lora"] == matched["lora_rank"] * 512
    assert abs(matched["trainable_parameters"]["encoder_lora"] - dual_channel) <= 256
    for tuning, folder in tuned.items():
        assert ENCODER_TUNINGS[tuning].description in (folder / "README.md").read_text()
        card = (folder / "encoder" / "README.md").read_text()
        assert "a trained copy of it" not in card and "| layer |" not in card


@pytest.mark.parametrize("tuning", [*TUNINGS])
def test_what_each_tuning_opens(runs, tuning):
    model = start(runs, encoder_tuning=tuning, lora_rank=3 if tuning == "lora" else None)
    counts = apply_stage(model, ENCODER_TUNINGS[tuning])
    opened = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    vision = {name for name in opened if "vision_tower" in name}
    assert {name.split(".")[1] for name in opened - vision} == {"multi_modal_projector"}
    assert all(".lora_" in name for name in vision) == (tuning != "full")
    assert counts.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", BUILDERS)
def test_full_tuning_opens_what_the_patch_tokens_depend_on(name):
    """No more, or data-parallel training would wait for a gradient; no less."""
    encoder = SpatialBoostModel.from_encoder(tiny_encoder(name), []).train()
    holder = torch.nn.ModuleDict({"vision_tower": encoder, "multi_modal_projector": torch.nn.Linear(1, 1)})
    apply_stage(holder, ENCODER_TUNINGS["full"])
    assert patch_tokens(encoder).sum().isfinite()
    opened = {key for key, parameter in encoder.named_parameters() if parameter.requires_grad}
    encoder.requires_grad_(True)
    patch_tokens(encoder).square().sum().backward()
    assert opened == {key for key, parameter in encoder.named_parameters() if parameter.grad is not None}


def patch_tokens(encoder: SpatialBoostModel) -> torch.Tensor:
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = encoder.encode(pixels).last_hidden_state
    return to_map(tokens if encoder.normalised else encoder.final_norm(tokens), encoder.patch_grid(pixels))


@pytest.mark.parametrize("name", BUILDERS)
def test_every_pair_on_every_encoder_is_used_and_merges(name):
    model = torch.nn.Module()
    model.vision_tower = SpatialBoostModel.from_encoder(tiny_encoder(name), [])
    encoder = model.vision_tower
    if not projection_names(attention_modules(encoder.backbone, encoder.config.backbone_config.model_type)[0]):
        pytest.skip("its projections had other names in this version of transformers; fusing refuses it too")
    plain = {key: tensor.clone() for key, tensor in model.vision_tower.state_dict().items()}
    linears = attention_linears(model.vision_tower)
    assert len(linears) == (4 if name == "pe_core" else 8)
    before = patch_tokens(model.vision_tower)
    adapt_encoder(model, 2)
    assert torch.equal(patch_tokens(model.vision_tower), before)  # the second matrices start at zero
    pairs = {key: tensor for key, tensor in model.vision_tower.named_parameters() if ".lora_B." in key}
    assert len(pairs) == len(linears)
    patch_tokens(model.vision_tower).square().sum().backward()
    assert all(tensor.grad is not None and tensor.grad.any() for tensor in pairs.values())
    torch.manual_seed(0)
    for tensor in pairs.values():
        torch.nn.init.normal_(tensor, std=0.1)
    adapted = patch_tokens(model.vision_tower)
    assert (adapted - before).abs().max() > 1e-3
    merge_adapters(model, take_out_adapters(model))
    assert torch.allclose(patch_tokens(model.vision_tower), adapted, rtol=1e-4, atol=1e-5)
    assert model.vision_tower.state_dict().keys() == plain.keys()


def test_matched_rank_is_the_nearest(runs):
    encoder = start(runs, encoder_tuning="frozen").vision_tower
    linears = attention_linears(encoder)
    dual = SpatialBoostModel.from_encoder(copy.deepcopy(encoder.backbone))
    wanted = sum(p.numel() for n, p in dual.named_parameters() if "attn_plus" in n or "alpha_logit" in n)
    size = sum(linear.in_features + linear.out_features for linear in linears.values())
    rank = matched_rank(encoder, linears)
    assert abs(rank * size - wanted) <= min(abs((rank - 1) * size - wanted), abs((rank + 1) * size - wanted))


def test_lora_on_the_language_model_merges_into_the_same_outputs(runs):
    model = start(runs, stage=2, model=str(runs[1]), lora_rank=4)
    assert rank_of_adapters(model) == 4
    counts = apply_stage(model, STAGE_2_LORA)
    assert counts.by_group["projector"] == 2112
    layers = [name for name, _ in model.named_parameters() if "lora_A" in name]
    assert len(layers) == 2 * 7 and all("language_model" in name for name in layers)
    tokens = torch.arange(20)[None]
    for parameter in (p for n, p in model.named_parameters() if "lora_B" in n):
        torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        adapted = model(input_ids=tokens).logits
        merge_adapters(model, take_out_adapters(model))
        merged = model(input_ids=tokens).logits
    assert torch.allclose(merged, adapted, atol=1e-4)
    assert not any("lora" in name or "base_layer" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("checkpointing", [True, False])
def test_stage_2_with_lora_goes_on_in_stage_3(runs, data, tmp_path, checkpointing):
    folders = tmp_path / "stage2", tmp_path / "stage3"
    command = ["--stage", "2", "--model", str(runs[1]), "--lora_rank", "4"]
    assert main([*command, *common(data, folders[0], activation_checkpointing=checkpointing)]) == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (runs[1], folders[0]))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    linears = {name for name in before if "language_model.layers" in name and "_proj.weight" in name}
    assert changed == linears | {name for name in before if "multi_modal_projector" in name}
    assert read_record(folders[0])["learning_rates"] == {"projector": 0.01, "language_model_lora": 0.01}
    assert main(["--stage", "3", "--model", str(folders[0]), *common(data, folders[1], max_steps=1)]) == 0


def test_features_may_be_cached_where_the_encoder_is_frozen(runs, data, tuned, tmp_path):
    command = ["--stage", "3", "--model", str(runs[2]), "--encoder_tuning", "frozen"]
    assert main([*command, *common(data, tmp_path / "out", cache_features=tmp_path / "features")]) == 0
    cached, plain = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", tuned["frozen"]))
    assert all(torch.allclose(cached[name], plain[name], atol=1e-6) for name in plain)


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("baselines/full", {"encoder_tuning": "full"}),
        ("baselines/lora", {"encoder_tuning": "lora", "lora_rank": 16}),
        ("baselines/lora_matched", {"encoder_tuning": "lora_matched"}),
        ("baselines/frozen", {"encoder_tuning": "frozen"}),
        ("stage2_qlora", {"lora_rank": 64, "quantize_language_model": "4bit"}),
        ("stage3_4bit", {"quantize_language_model": "4bit"}),
    ],
)
def test_recipes_are_those_of_the_stage_but_for_what_they_are_named_after(recipe, settings):
    stage = f"stage{2 if 'qlora' in recipe else 3}"
    (ours, training), (plain, usual) = (
        make_parser().parse_args_and_config(["--config", str(RECIPES / f"{name}.yaml"), "--use_cpu"])
        for name in (recipe, stage)
    )
    for key, value in settings.items():
        assert getattr(ours, key) == value
    assert ours.datasets == plain.datasets and ours.model == plain.model
    for key in ("total_batch_size", "num_train_epochs", "lr_scheduler_type", "warmup_steps", "weight_decay", "seed"):
        assert getattr(training, key) == getattr(usual, key)
    rates = {group.name: training.learning_rate_of(group) for group in ours.row.groups}
    assert rates == {group.name: group.learning_rate for group in ours.row.groups}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder_tuning": "partial"}, "encoder_tuning='partial': pass one of dual_channel, full"),
        ({"encoder_tuning": "lora"}, "lora_rank=None: encoder_tuning='lora' needs one"),
        ({"encoder_tuning": "lora", "lora_rank": 0}, "lora_rank=0: pass at least 1"),
        ({"lora_rank": 8}, "lora_rank=8 has no effect in stage 3 with encoder_tuning='dual_channel': remove it"),
        ({"encoder_tuning": "full", "lora_rank": 8}, "has no effect in stage 3 with encoder_tuning='full'"),
        ({"encoder_tuning": "lora_matched", "lora_rank": 8}, "with encoder_tuning='lora_matched': remove it"),
        (
            {"encoder_tuning": "lora", "lora_rank": 8, "boosted_layers": [1]},
            r"boosted_layers=\[1\]: encoder_tuning='l",
        ),
        ({"encoder_tuning": "full", "cache_features": "true"}, "stage 3 trains the encoder"),
        ({"stage": 2, "encoder_tuning": "full"}, "encoder_tuning='full' has no effect in stage 2: remove it"),
        ({"stage": 1, "lora_rank": 8, "model": None}, "lora_rank=8 has no effect in stage 1: remove it"),
    ],
)
def test_wrong_combinations(settings, message):
    with pytest.raises(ValueError, match=message):
        StageArguments(**{"stage": 3, "datasets": ["none"], "model": "none", **settings})


@pytest.mark.parametrize("tuning", [*TUNINGS])
def test_other_tunings_start_from_a_plain_encoder(runs, tuning):
    with pytest.raises(ValueError, match=r"starts from a plain encoder.*stage3' has boosted_layers=None"):
        start(runs, model=str(runs[3]), encoder_tuning=tuning, lora_rank=2 if tuning == "lora" else None)


def test_an_attention_that_lora_cannot_reach_is_named(runs):
    model = start(runs, encoder_tuning="frozen")
    del model.vision_tower.backbone.model.layer[1].attention.o_proj
    with pytest.raises(ValueError, match=r"DINOv3ViTAttention has no q, k, v and output.*encoder_tuning='full'"):
        adapt_encoder(model, 2)


def test_rates_of_lora_are_ten_times_those_of_the_weights(runs):
    model = start(runs, stage=2, model=str(runs[1]))
    adapt_language_model(model, 2)
    rates = {group.name: group.learning_rate for group in STAGE_2_LORA.groups}
    assert rates == {"projector": 2e-5, "language_model_lora": 2e-4}
    assert ENCODER_TUNINGS["lora"].groups[0].learning_rate == 2e-4
