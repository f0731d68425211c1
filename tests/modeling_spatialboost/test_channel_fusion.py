"""The fused dual channel equals the plain one, comes apart again, and training keeps no more than it needs."""

import copy
import json
import pickle

import pytest
import torch
import transformers as t
from torch import nn
from transformers import AutoTokenizer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import modeling_spatialboost as sb
from benchmarks import encoder as encoder_benchmark
from experiments.tiny_models import save_tiny_language_model
from modeling_spatialboost import channel_fusion
from modeling_spatialboost.dual_channel_attention import attention_modules, boosted_modules, is_second_channel
from tests.modeling_spatialboost.encoders import BUILDERS, native_inputs, tiny_encoder

ALL = sorted(BUILDERS)
IMAGES = native_inputs("dinov3")["pixel_values"]


def trained(name="dinov3", model_class=sb.SpatialBoostModel, **kwargs):
    """A model whose second channel and alpha have moved, as after stage 3, and differ from layer to layer."""
    encoder = tiny_encoder(name) if isinstance(name, str) else name
    model = model_class.from_encoder(encoder, **kwargs).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for key, parameter in model.backbone.named_parameters():
            if is_second_channel(key):
                scale = 2.0 if key.endswith("alpha_logit") else 0.2
                parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def output(model, **inputs):
    with torch.no_grad():
        return model(**(inputs or {"pixel_values": IMAGES})).last_hidden_state


def relative_error(actual, expected):
    return ((actual.double() - expected.double()).abs().max() / expected.double().abs().max()).item()


@pytest.mark.parametrize("layers", [None, [1]], ids=["all", "one"])
@pytest.mark.parametrize("name", ALL)
def test_fused_equals_plain_and_comes_apart_bit_for_bit(name, layers):
    model, inputs = trained(name, boosted_layers=layers), native_inputs(name)
    expected, unboosted = output(model, **inputs), output(tiny_encoder(name), **inputs)
    assert relative_error(unboosted, expected) > 0.01  # the second channel matters
    before = {key: (parameter, parameter.detach().clone()) for key, parameter in model.named_parameters()}
    keys, classes = list(model.state_dict()), [type(module) for module in model.modules()]
    report = model.fuse_channels()
    assert report == ((layers or [0, 1]), {})
    assert relative_error(output(model, **inputs), expected) < 1e-5
    assert list(model.state_dict()) == keys
    assert model.unfuse_channels() is model
    assert [type(module) for module in model.modules()] == classes and list(model.state_dict()) == keys
    for key, parameter in model.named_parameters():
        same, values = before[key]
        assert parameter is same and parameter.requires_grad and torch.equal(parameter, values), key
        assert parameter.untyped_storage().nbytes() == parameter.nbytes, key
    assert torch.equal(output(model, **inputs), expected)


@pytest.mark.parametrize("name", ALL)
def test_in_bf16_the_fused_form_is_as_near_to_the_truth_as_the_plain_one(name):
    """Both round at other places; the bound is 2 % of the largest output, and 1.5 times the plain form's distance."""
    truth = output(trained(name), **native_inputs(name))
    model, inputs = trained(name).bfloat16(), native_inputs(name, torch.bfloat16)
    plain = relative_error(output(model, **inputs), truth)
    model.fuse_channels()
    fused = relative_error(output(model, **inputs), truth)
    assert 0 < fused < 0.02 and fused < 1.5 * plain


def test_one_product_in_one_call_of_twice_the_heads_one_product_out(monkeypatch):
    """Through transformers' attention interface, so FlashAttention gets the same; mask and scale come along."""
    calls, products = [], []

    def attention(module, query, key, value, mask, **kwargs):
        calls.append((query.shape[1], kwargs["scaling"], mask is not None, module.is_causal))
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)

    def linear(x, weight, bias=None, product=nn.functional.linear):
        products.append(weight.shape)
        return product(x, weight, bias)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", attention)
    monkeypatch.setattr(nn.functional, "linear", linear)
    for name, masked in (("dinov3", False), ("siglip2_naflex", True)):
        model, inputs = trained(name), native_inputs(name)
        calls.clear(), products.clear()
        output(model, **inputs)
        assert calls == [(2, 0.25, masked, False)] * 4 and products.count((32, 32)) >= 16
        plain = len(products)
        model.fuse_channels()
        calls.clear()
        model.set_attn_implementation("eager")  # what is set later reaches the fused form, too
        output(model, **inputs)
        assert not calls
        model.set_attn_implementation("sdpa")
        calls.clear(), products.clear()
        output(model, **inputs)
        assert calls == [(4, 0.25, masked, False)] * 2
        assert len(products) == plain - 12 and products.count((192, 32)) == 2


@pytest.mark.parametrize("name", [name for name in ALL if name != "pe_core"])  # timm gives no attentions
def test_attentions_of_the_fused_model_are_the_base_channels(name):
    model, inputs = trained(name), native_inputs(name)
    model.set_attn_implementation("eager")
    expected = model(**inputs, output_attentions=True).attentions
    model.fuse_channels()
    attentions = model(**inputs, output_attentions=True).attentions
    assert len(attentions) == len(expected) == 2
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(attentions, expected))


@pytest.mark.parametrize("name", ["dinov3", "pe_core"])
def test_a_fused_model_is_saved_as_a_plain_one(name, tmp_path):
    model = trained(name)
    expected = output(model)
    model.save_pretrained(tmp_path / "plain")
    model.fuse_channels()
    model.save_pretrained(tmp_path / "fused")
    plain, fused = ((tmp_path / folder / "model.safetensors").read_bytes() for folder in ("plain", "fused"))
    assert plain == fused and (tmp_path / "fused" / "channel_fusion.py").exists()
    assert (tmp_path / "plain" / "config.json").read_text() == (tmp_path / "fused" / "config.json").read_text()
    loaded = sb.SpatialBoostModel.from_pretrained(tmp_path / "fused").eval()
    assert all(attention.fused_channels is None for attention in boosted_modules(loaded))
    assert torch.equal(output(loaded), expected)


def test_the_joined_weights_take_no_second_place_in_memory():
    model = trained()
    model.fuse_channels()
    for attention in boosted_modules(model):
        joined = attention.fused_channels.projection.weight
        for channel in (attention, attention.attn_plus):
            for name in ("q_proj", "k_proj", "v_proj"):
                assert getattr(channel, name).weight.untyped_storage().data_ptr() == joined.data_ptr()
    own = sum(parameter.numel() for parameter in model.parameters())
    extra = sum(buffer.numel() for key, buffer in model.named_buffers() if key.endswith("o_proj.weight"))
    assert extra == 2 * 2 * 32 * 32 < own


@pytest.mark.parametrize("name", ["dinov3", "siglip2_naflex", "pe_core"])
def test_fused_as_one_compiled_graph(name):
    model, inputs = trained(name), native_inputs(name)
    if name == "siglip2_naflex":  # its position embeddings are resized image by image, which breaks any graph
        mask = torch.ones(1, 1, 16, 16)
        expected = [attention(torch.ones(1, 16, 32), attention_mask=mask)[0] for attention in boosted_modules(model)]
        model.fuse_channels()
        for attention, plain in zip(boosted_modules(model), expected):
            compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
            assert relative_error(compiled(torch.ones(1, 16, 32), attention_mask=mask)[0], plain) < 1e-5
        return
    expected = output(model, **inputs)
    model.fuse_channels()
    assert relative_error(output(torch.compile(model, fullgraph=True, backend="aot_eager"), **inputs), expected) < 1e-5


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_of_a_fused_model_are_fused_and_independent(twin_of):
    model = trained()
    expected = output(model)
    model.fuse_channels()
    twin = twin_of(model)
    assert torch.equal(output(twin), output(model))
    with torch.no_grad():
        boosted_modules(twin)[0].fused_channels.projection.weight.zero_()
    assert not torch.equal(output(twin), output(model))
    twin.unfuse_channels(), model.unfuse_channels()
    assert torch.equal(output(model), expected)


def test_a_fused_model_moves_to_another_dtype():
    model = trained()
    expected = output(model)
    model.fuse_channels()
    assert relative_error(output(model.double(), pixel_values=IMAGES.double()), expected) < 1e-5
    assert torch.equal(output(model.float().unfuse_channels()), expected)


def test_fusing_again_takes_the_weights_as_they_are_now():
    model = trained()
    model.fuse_channels()
    with torch.no_grad():
        for attention in boosted_modules(model):
            attention.o_proj.weight.mul_(2)
            attention.alpha_logit.zero_()
    alpha = model.alpha_table()
    assert model.fuse_channels().fused == [0, 1] and model.alpha_table() == alpha
    fused = output(model)
    assert relative_error(fused, output(model.unfuse_channels())) < 1e-5
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_other_classes_fuse_too():
    for model_class in (sb.SpatialBoostForDepthEstimation, sb.SpatialBoostBackbone):
        model = trained(model_class=model_class)
        with torch.no_grad():
            expected = model(IMAGES)[0]
            assert model.fuse_channels().fused == [0, 1]
            actual = model(IMAGES)[0]
        for a, b in zip(actual, expected):
            assert relative_error(a, b) < 1e-5


def test_a_head_trains_on_a_fused_encoder_and_the_encoder_does_not():
    model = trained(model_class=sb.SpatialBoostForDepthEstimation).train()
    model.fuse_channels()
    model(IMAGES, labels=torch.ones(2, 32, 32)).loss.backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert any("depth_head" in name for name in with_gradient)
    assert not any("attention" in name for name in with_gradient)


def test_training_and_loading_are_refused_while_fused():
    model = trained()
    model.fuse_channels()
    model(IMAGES)  # nothing trains, so gradients need not be switched off by hand
    model.freeze_base_channel()
    with pytest.raises(RuntimeError, match="inference only.*unfuse_channels"):
        model(IMAGES)
    output(model)
    with pytest.raises(RuntimeError, match="load weights after model.unfuse_channels"):
        model.load_state_dict(model.state_dict())


def test_unfusing_gives_back_what_trained():
    model = trained().freeze_base_channel()
    before = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.fuse_channels()
    assert not any(p.requires_grad for attention in boosted_modules(model) for p in attention.parameters())
    model.unfuse_channels()(IMAGES).last_hidden_state.sum().backward()
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == before
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == before


def test_fused_in_the_vision_language_model(tmp_path):
    save_tiny_language_model(tmp_path / "lm", ["It is 1.234 m."] * 4, hidden_size=32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "lm")
    processor = sb.SpatialBoostProcessor.from_components(sb.SpatialBoostImageProcessor(), tokenizer, patch_size=8)
    build = sb.SpatialBoostForConditionalGeneration.from_components
    model = build(trained(), str(tmp_path / "lm"), processor).eval()
    ids = torch.tensor([[processor.image_token_id] * 16 + [5, 6, 7]] * 2)
    with torch.no_grad():
        expected = model(input_ids=ids, pixel_values=IMAGES).logits
        answer = model.generate(input_ids=ids, pixel_values=IMAGES, max_new_tokens=4, do_sample=False)
        assert model.vision_tower.fuse_channels().fused == [0, 1]
        fused = model(input_ids=ids, pixel_values=IMAGES).logits
        assert not torch.equal(fused, expected) and relative_error(fused, expected) < 1e-5
        assert torch.equal(model.generate(input_ids=ids, pixel_values=IMAGES, max_new_tokens=4), answer)
    model.save_pretrained(tmp_path / "vlm")
    loaded = sb.SpatialBoostForConditionalGeneration.from_pretrained(tmp_path / "vlm").eval()
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids, pixel_values=IMAGES).logits, expected)


def timm_encoder(**model_args):
    architecture = model_args.pop("architecture", "vit_tiny_patch16_224")
    sizes = {"depth": 1, "embed_dim": 32, "num_heads": 2, "img_size": 32, "patch_size": 8}
    return t.TimmWrapperModel(
        t.TimmWrapperConfig(architecture=architecture, model_args={**sizes, **model_args})
    ).eval()


def replace_projection(attention):
    class LoraLinear(nn.Linear):
        pass

    attention.q_proj.__class__ = LoraLinear


OBSTACLES = {
    "EvaAttention has no q, k, v": (lambda: timm_encoder(architecture="eva02_tiny_patch14_224"), None),
    "Attention has parameters besides its projections: q_norm.weight": (lambda: timm_encoder(qk_norm=True), None),
    "a projection is a LoraLinear": (lambda: tiny_encoder("dinov3"), replace_projection),
    "its forward was replaced": (lambda: tiny_encoder("dinov3"), lambda a: setattr(a, "forward", a.forward)),
    "different dtypes": (lambda: tiny_encoder("dinov3"), lambda attention: attention.attn_plus.bfloat16()),
    "meta device": (lambda: tiny_encoder("dinov3"), lambda attention: attention.to("meta")),
}


@pytest.mark.parametrize("reason", OBSTACLES)
def test_what_cannot_be_fused_stays_plain_and_says_why(reason, monkeypatch):
    build, change = OBSTACLES[reason]
    model = trained(build())
    expected = output(model)
    if change is not None:
        change(boosted_modules(model)[0])
    warnings = []
    monkeypatch.setattr(channel_fusion.logger, "warning", warnings.append)
    report = model.fuse_channels()
    assert list(report.refused) == [0] and reason in report.refused[0]
    assert report.fused == list(range(1, len(boosted_modules(model))))
    assert len(warnings) == 1 and reason in warnings[0] and f"1 of {len(boosted_modules(model))}" in warnings[0]
    if change in (None, replace_projection):
        assert relative_error(output(model), expected) < 1e-5


def test_plain_timm_attention_fuses_and_an_unboosted_model_has_nothing_to_fuse():
    model = trained(timm_encoder(qkv_bias=False))
    expected = output(model)
    assert model.fuse_channels() == ([0], {}) and relative_error(output(model), expected) < 1e-5
    assert sb.SpatialBoostModel.from_encoder(tiny_encoder("vit"), boosted_layers=[]).fuse_channels() == ([], {})


class Kept:
    """Tensors that autograd keeps for the backward pass, weights of the model left out."""

    def __init__(self, model):
        self.weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
        self.tensors = []

    def __call__(self, tensor):
        if tensor.untyped_storage().data_ptr() not in self.weights:
            self.tensors.append(tensor)
        return tensor

    def num_bytes(self):
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in self.tensors}.values())


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_kept_below_the_first_boosted_layer(name):
    model = trained(name, boosted_layers=[-1]).freeze_base_channel().train()
    attentions = attention_modules(model.backbone, model.config.backbone_config.model_type)
    kept, reached = Kept(model), []
    attentions[-1].register_forward_pre_hook(lambda *_: reached.append(len(kept.tensors)))
    with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
        model(**native_inputs(name)).last_hidden_state.sum()
    assert reached == [0] and len(kept.tensors) > 5


def test_the_frozen_channel_has_no_gradient_buffers():
    """No node of the graph gathers a gradient for a frozen weight, and none gets one."""
    model = trained().freeze_base_channel().train()
    loss = model(IMAGES).last_hidden_state.square().sum()
    nodes, found, gathered = [loss.grad_fn], set(), set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in found:
            found.add(node)
            nodes += [following for following, _ in node.next_functions]
            if hasattr(node, "variable"):
                gathered.add(id(node.variable))
    trains = {id(parameter) for key, parameter in model.named_parameters() if is_second_channel(key)}
    assert gathered == trains
    loss.backward()
    assert {id(parameter) for parameter in model.parameters() if parameter.grad is not None} == trains


def test_training_keeps_no_more_than_counted_by_hand():
    """In units of one (B, N, d) tensor, for a layer above the first boosted one, with SDPA.

    The residual and its normed form, which both channels share; q, k, v and the result of each channel; one
    difference for the mix; the residual before the MLP and the MLP's 2d hidden activations: 1 + 1 + 8 + 1 + 1 + 2.
    """
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "patch_size": 8, "image_size": 64, "mlp_ratio": 2}
    kept_bytes = []
    for num_layers in (2, 3):
        encoder = t.Dinov2Model(t.Dinov2Config(**sizes, num_hidden_layers=num_layers))
        model = trained(encoder).freeze_base_channel().train()
        kept = Kept(model)
        with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
            model(torch.rand(2, 3, 64, 64))
        kept_bytes.append(kept.num_bytes())
    unit = 2 * 65 * 64 * 4
    assert 13.5 < (kept_bytes[1] - kept_bytes[0]) / unit < 14.5


def test_training_compiles_as_one_graph_with_the_same_gradients():
    model = trained().freeze_base_channel().train()
    gradients = []
    for forward in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        forward(IMAGES).last_hidden_state.square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    plain, compiled = gradients
    assert plain.keys() == compiled.keys() and len(plain) > 10
    assert all(torch.allclose(plain[key], compiled[key], rtol=1e-4, atol=1e-7) for key in plain)


def test_the_benchmark_runs_and_counts_operations_as_by_hand(tmp_path, capsys):
    assert encoder_benchmark.main(["--smallest", "--output", str(tmp_path / "rows.json")]) == 0
    assert "| dinov3 ViT-tiny | 64 | 2 |" in capsys.readouterr().out
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert len(rows) == 2 and all(row["fused_ratio"] > 0 for row in rows)
    tokens, size = 17, 64  # 56 px in patches of 14, and [CLS]; per layer and channel 4 projections and 2 products
    attention = 2 * (2 * 4 * tokens * size**2 + 2 * 2 * tokens**2 * size)
    rest = 2 * (2 * 8 * tokens * size**2) + 2 * 16 * 3 * 14**2 * size
    assert rows[0]["flop_ratio"] == pytest.approx((2 * attention + rest) / (attention + rest))
