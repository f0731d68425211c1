"""An adapter put on its base is the full boosted model to the last bit; on anything else it is refused."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers as t
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import modeling_spatialboost as sb
from experiments.tiny_models import save_tiny_language_model
from modeling_spatialboost.adapter import RECORD_FILE, WEIGHTS_FILE, second_channel, weights_sha256
from modeling_spatialboost.dual_channel_attention import boosted_modules, is_second_channel
from tests.commands import boost
from tests.isolated import run_isolated
from tests.modeling_spatialboost.encoders import BUILDERS, native_inputs, tiny_encoder

ALL = sorted(BUILDERS)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
IMAGES = native_inputs("dinov3")["pixel_values"]


def move_second_channel(model):
    """As after stage 3: every layer differs, alpha too."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_second_channel(name):
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * 0.2)
    return model.eval()


def trained(encoder, **kwargs):
    return move_second_channel(sb.SpatialBoostModel.from_encoder(encoder, **kwargs))


def same_weights(one, other):
    first, second = one.state_dict(), other.state_dict()
    assert list(first) == list(second)
    return all(torch.equal(first[key], second[key]) and first[key].dtype == second[key].dtype for key in first)


def output(model, **inputs):
    with torch.no_grad():
        return model(**(inputs or {"pixel_values": IMAGES.to(model.dtype)})).last_hidden_state


def record_of(folder):
    return json.loads((folder / RECORD_FILE).read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A DINOv3 encoder in a folder, its trained form and the adapter of that."""
    root = tmp_path_factory.mktemp("adapter")
    tiny_encoder("dinov3").save_pretrained(root / "base")
    model = trained(str(root / "base"))
    model.save_pretrained(root / "full")
    model.save_adapter(root / "adapter")
    return root


@pytest.fixture
def damaged(made, tmp_path):
    """A copy of the adapter, to be changed."""
    return Path(shutil.copytree(made / "adapter", tmp_path / "damaged"))


@pytest.fixture
def hub(made, tmp_path, monkeypatch):
    """A Hub cache, offline, with the encoder and its adapter in repositories of it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def upload(repo_id, folder):
        repository = tmp_path / "cache" / f"models--{repo_id.replace('/', '--')}"
        shutil.copytree(folder, repository / "snapshots" / COMMIT)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)

    upload("somebody/encoder", made / "base")
    return upload


@pytest.mark.parametrize("layers", [None, [1]], ids=["all", "one"])
@pytest.mark.parametrize("name", ALL)
def test_an_adapter_on_its_base_is_the_full_model_bit_for_bit(name, layers, tmp_path):
    tiny_encoder(name).save_pretrained(tmp_path / "base")
    full = trained(str(tmp_path / "base"), boosted_layers=layers)
    full.save_adapter(tmp_path / "adapter")
    model = sb.SpatialBoostModel.from_adapter(tmp_path / "adapter", base=tmp_path / "base")
    assert same_weights(model, full) and not model.training
    assert model.config.to_dict() == full.config.to_dict()
    inputs = native_inputs(name)
    assert torch.equal(output(model, **inputs), output(full, **inputs))
    assert not torch.equal(output(model, **inputs), output(tiny_encoder(name), **inputs))
    assert model.verify_base_channel(str(tmp_path / "base"))


@pytest.mark.parametrize("name", ["dinov3", "pe_core"])
def test_the_file_holds_the_second_channels_and_nothing_else(name, tmp_path):
    model = trained(tiny_encoder(name), boosted_layers=[1])
    model.save_adapter(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [RECORD_FILE, WEIGHTS_FILE]
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    added = {key: p for key, p in model.named_parameters() if is_second_channel(key)}
    assert len(tensors) == len(added) and all(key.startswith("layers.1.") for key in tensors)
    count = sum(p.numel() for p in added.values())
    assert record_of(tmp_path)["num_parameters"] == count == sum(x.numel() for x in tensors.values())
    assert record_of(tmp_path)["boosted_layers"] == [1] and record_of(tmp_path)["hidden_size"] == 32
    assert 0 < (tmp_path / WEIGHTS_FILE).stat().st_size - 4 * count < 2000  # the header
    assert any(torch.equal(tensors["layers.1.alpha_logit"], p) for p in added.values())


def test_a_folders_path_stays_private_and_no_base_can_be_guessed(made, tmp_path, monkeypatch):
    monkeypatch.chdir(made.parent)
    trained(f"{made.name}/base").save_adapter(tmp_path)  # looks like an id
    assert record_of(tmp_path) == record_of(made / "adapter")
    text = (made / "adapter" / RECORD_FILE).read_text() + (made / "adapter" / WEIGHTS_FILE).read_bytes().decode(
        "latin"
    )
    assert str(made) not in text and record_of(made / "adapter")["base_encoder"] is None
    assert str(made) in sb.SpatialBoostModel.from_pretrained(made / "full").config.base_encoder
    with pytest.raises(ValueError, match=r"base=None, and adapter=.*records no id.*'dinov3_vit'"):
        sb.SpatialBoostModel.from_adapter(made / "adapter")


def test_ids_on_the_hub_bring_their_commit(made, hub, tmp_path):
    full = trained("somebody/encoder")
    assert (full.config.base_encoder, full.config.base_revision) == ("somebody/encoder", COMMIT)
    full.save_pretrained(tmp_path / "full")
    assert "_commit_hash" not in (tmp_path / "full" / "config.json").read_text()
    sb.SpatialBoostModel.from_pretrained(tmp_path / "full").save_adapter(tmp_path / "adapter")
    record = record_of(tmp_path / "adapter")
    assert (record["base_encoder"], record["base_revision"]) == ("somebody/encoder", COMMIT)
    hub("somebody/adapter", tmp_path / "adapter")
    for source in ("somebody/adapter", tmp_path / "adapter"):
        model = sb.SpatialBoostModel.from_adapter(source)
        assert same_weights(model, full)
        assert (model.config.base_encoder, model.config.base_revision) == ("somebody/encoder", COMMIT)
    assert same_weights(sb.SpatialBoostModel.from_adapter("somebody/adapter", revision=COMMIT), full)
    assert same_weights(sb.SpatialBoostModel.from_adapter("somebody/adapter", base=made / "base"), full)


def test_the_recorded_commit_is_the_one_that_is_loaded(hub, made, tmp_path):
    trained("somebody/encoder").save_adapter(tmp_path / "adapter")
    record = record_of(tmp_path / "adapter")
    (tmp_path / "adapter" / RECORD_FILE).write_text(json.dumps(record | {"base_revision": "f" * 40}))
    with pytest.raises(ValueError, match=r"encoder='somebody/encoder' is neither"):
        sb.SpatialBoostModel.from_adapter(tmp_path / "adapter")
    assert sb.SpatialBoostModel.from_adapter(tmp_path / "adapter", base_revision=COMMIT)


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("trained_in", ["float32", "bfloat16", "auto"])
@pytest.mark.parametrize("loaded_in", ["auto", "float32", "bfloat16", "float16"])
def test_whatever_dtype_the_base_is_stored_trained_and_loaded_in(stored, trained_in, loaded_in, tmp_path):
    """Either the very bits of the full model loaded in that dtype, or a refusal where they cannot be had."""
    tiny_encoder("dinov3").to(getattr(torch, stored)).save_pretrained(tmp_path / "base")
    full = trained(str(tmp_path / "base"), dtype=trained_in)
    full.save_pretrained(tmp_path / "full")
    full.save_adapter(tmp_path / "adapter")
    narrow = record_of(tmp_path / "adapter")["base_dtype"]
    load = {"adapter": tmp_path / "adapter", "base": tmp_path / "base", "dtype": loaded_in}
    if narrow != "float32" and loaded_in not in ("auto", "float32", narrow):
        with pytest.raises(ValueError, match=rf"base is in {loaded_in}, the adapter's was in {narrow}.*check_base"):
            sb.SpatialBoostModel.from_adapter(**load)
        return
    model = sb.SpatialBoostModel.from_adapter(**load)
    expected = sb.SpatialBoostModel.from_pretrained(tmp_path / "full", dtype=loaded_in)
    if narrow == "bfloat16" and stored != "bfloat16" and loaded_in == "float32":  # the base has more digits than then
        assert same_weights(model.to(torch.bfloat16), full)
    else:
        assert same_weights(model, expected) and torch.equal(output(model), output(expected))


def test_another_base_of_the_same_shape_is_refused_by_its_hash(made):
    other = tiny_encoder("dinov3")
    with torch.no_grad():
        other.norm.weight[3] += 1e-6
    expected = record_of(made / "adapter")["base_sha256"]["float32"]
    assert expected == weights_sha256(tiny_encoder("dinov3"), torch.float32)
    with pytest.raises(ValueError, match="not those that the adapter was trained on") as refusal:
        sb.SpatialBoostModel.from_adapter(made / "adapter", base=other)
    actual = weights_sha256(other, torch.float32)
    assert actual in str(refusal.value) and expected in str(refusal.value) and actual != expected
    assert "check_base=False" in str(refusal.value) and "\n" not in str(refusal.value)
    assert not boosted_modules(other)  # left as it was
    model = sb.SpatialBoostModel.from_adapter(made / "adapter", base=other, check_base=False)
    assert model.backbone is other
    full = sb.SpatialBoostModel.from_pretrained(made / "full")
    assert dict(second_channel(model.backbone)).keys() == dict(second_channel(full.backbone)).keys()
    assert all(
        torch.equal(p, q) for (_, p), (_, q) in zip(second_channel(model.backbone), second_channel(full.backbone))
    )


def test_the_hash_sees_values_shapes_and_order_and_not_the_second_channel():
    encoder = tiny_encoder("vit")
    plain = weights_sha256(encoder, torch.float32)
    weight, other = encoder.layernorm.weight, encoder.layernorm.bias
    with torch.no_grad():
        weight.fill_(2.0), other.fill_(3.0)
        one = weights_sha256(encoder, torch.float32)
        weight.fill_(3.0), other.fill_(2.0)
    assert len({plain, one, weights_sha256(encoder, torch.float32), weights_sha256(encoder, torch.bfloat16)}) == 4
    now = weights_sha256(encoder, torch.float32)
    cls_token = encoder.embeddings.cls_token
    cls_token.data = cls_token.data.view(1, 32, 1)
    assert weights_sha256(encoder, torch.float32) != now
    cls_token.data = cls_token.data.view(1, 1, 32)
    assert weights_sha256(trained(encoder).backbone, torch.float32) == now


def test_a_loaded_base_is_taken_over_also_from_a_composite_model(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = t.CLIPConfig(vision_config={**sizes, "image_size": 32, "patch_size": 8}, text_config=sizes)
    clip = t.CLIPModel(config).eval()
    clip.save_pretrained(tmp_path / "base")
    full = trained(str(tmp_path / "base"))
    full.save_adapter(tmp_path / "adapter")
    from_folder = sb.SpatialBoostModel.from_adapter(tmp_path / "adapter", base=tmp_path / "base")
    from_model = sb.SpatialBoostModel.from_adapter(tmp_path / "adapter", base=clip)
    assert same_weights(from_folder, full) and same_weights(from_model, full)
    assert from_model.backbone is clip.vision_model
    assert from_folder.config.base_encoder == str(tmp_path / "base")


def test_fused_channels_are_saved_as_plain_ones(made, tmp_path):
    model = sb.SpatialBoostModel.from_pretrained(made / "full")
    assert model.fuse_channels().fused == [0, 1]
    model.save_adapter(tmp_path)
    for file in (RECORD_FILE, WEIGHTS_FILE):
        assert (tmp_path / file).read_bytes() == (made / "adapter" / file).read_bytes()
    assert all(attention.fused_channels is not None for attention in boosted_modules(model))


def test_an_adapter_serves_every_class_and_leaves_heads_out(made):
    depth = sb.SpatialBoostForDepthEstimation.from_adapter(made / "adapter", made / "base", max_depth_m=20.0)
    full = sb.SpatialBoostModel.from_pretrained(made / "full")
    assert same_weights(depth.backbone, full.backbone) and depth.config.max_depth_m == 20.0


def test_from_the_encoder_that_stage_3_cuts_out(made, tmp_path):
    """Joined unboosted, saved, loaded with a boosted configuration, trained, cut out, as trainers do it."""
    save_tiny_language_model(tmp_path / "lm", ["It is 1.234 m."] * 4, hidden_size=32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "lm")
    processor = sb.SpatialBoostProcessor.from_components(sb.SpatialBoostImageProcessor(), tokenizer, patch_size=8)
    vlm_class = sb.SpatialBoostForConditionalGeneration
    vlm_class.from_components(str(made / "base"), str(tmp_path / "lm"), processor, []).save_pretrained(tmp_path / "2")
    config = sb.SpatialBoostVLMConfig.from_pretrained(tmp_path / "2")
    config.vision_config.boosted_layers = None
    vlm = vlm_class.from_pretrained(tmp_path / "2", config=config, dtype=torch.float32)
    move_second_channel(vlm.vision_tower).save_pretrained(tmp_path / "encoder")
    full = sb.SpatialBoostModel.from_pretrained(tmp_path / "encoder")
    assert full.config.base_encoder == str(made / "base")
    full.save_adapter(tmp_path / "adapter")
    assert same_weights(sb.SpatialBoostModel.from_adapter(tmp_path / "adapter", full.config.base_encoder), full)


def test_remote_code_alone_saves_and_loads_adapters(made, tmp_path):
    output = run_isolated(
        """
        import sys, torch
        from transformers import AutoModel
        root, adapter = sys.argv[1:]
        full = AutoModel.from_pretrained(f"{root}/full", trust_remote_code=True)
        full.save_adapter(adapter)
        model = type(full).from_adapter(adapter, base=f"{root}/base")
        images = torch.rand(1, 3, 32, 32)
        print(torch.equal(model(images).last_hidden_state, full(images).last_hidden_state))
        """,
        tmp_path / "home",
        str(made),
        str(tmp_path / "adapter"),
    )
    assert output == "True\n"
    assert (tmp_path / "adapter" / WEIGHTS_FILE).read_bytes() == (made / "adapter" / WEIGHTS_FILE).read_bytes()


def change_tensors(folder, change):
    tensors = load_file(folder / WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, folder / WEIGHTS_FILE)


def change_record(folder, **fields):
    (folder / RECORD_FILE).write_text(json.dumps(record_of(folder) | fields))


ALPHA, QUERY = "layers.1.alpha_logit", "layers.0.attn_plus.q_proj.weight"
DAMAGES = {
    r"lacks 1 tensors such as 'layers.1.alpha_logit'.*2 of width 32": lambda folder: change_tensors(
        folder, lambda tensors: tensors.pop(ALPHA)
    ),
    r"has 2 tensors such as 'layers.7.x', for which this base has no place": lambda folder: change_tensors(
        folder, lambda tensors: tensors.update({"layers.7.x": torch.zeros(1), "layers.8.x": torch.zeros(1)})
    ),
    r"'layers.0.attn_plus.q_proj.weight' has the shape \(16, 32\) in the adapter and \(32, 32\)": lambda folder: (
        change_tensors(folder, lambda tensors: tensors.update({QUERY: torch.zeros(16, 32)}))
    ),
    r"for a 'vit' encoder, the base is 'dinov3_vit'": lambda folder: change_record(folder, model_type="vit"),
    r"boosted_layers=\[5\] does not fit an encoder of 2 layers": lambda folder: change_record(
        folder, boosted_layers=[5]
    ),
    r"has 8 tensors such as 'layers.1.alpha_logit', for which": lambda folder: change_record(
        folder, boosted_layers=[0]
    ),
    r"damaged, or of another version.*header": lambda folder: (folder / WEIGHTS_FILE).write_bytes(
        b"\x80\x02}q\x00." * 10
    ),
    r"damaged, or of another version: save or download it again \(.*base_dtype": lambda folder: (
        folder / RECORD_FILE
    ).write_text('{"base_encoder": null}'),
    r"damaged, or of another version.*Expecting value": lambda folder: (folder / RECORD_FILE).write_text("not json"),
    r"neither a folder nor a Hub repository with spatialboost_adapter.json": lambda folder: (
        folder / WEIGHTS_FILE
    ).rename(folder / "pytorch_model.bin"),
}


@pytest.mark.parametrize("sentence", DAMAGES)
@pytest.mark.parametrize("check_base", [True, False])
def test_a_damaged_adapter_is_refused_in_one_sentence(sentence, check_base, damaged, made):
    DAMAGES[sentence](damaged)
    with pytest.raises(ValueError, match=sentence) as refusal:
        sb.SpatialBoostModel.from_adapter(damaged, base=made / "base", check_base=check_base)
    assert "\n" not in str(refusal.value)


def test_weights_with_pickle_are_never_opened(damaged, made, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("torch.load was called"))
    torch.save(load_file(damaged / WEIGHTS_FILE), damaged / "pytorch_model.bin")
    shutil.copy(damaged / "pytorch_model.bin", damaged / WEIGHTS_FILE)
    with pytest.raises(ValueError, match="damaged"):
        sb.SpatialBoostModel.from_adapter(damaged, base=made / "base")


def test_a_wider_base_another_type_and_a_boosted_base_are_refused(made):
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 8}
    wide = t.DINOv3ViTModel(t.DINOv3ViTConfig(hidden_size=64, image_size=32, **sizes))
    bases = {
        r"has the shape \(32,\) in the adapter and \(64,\) on this base of width 64: .* of width 32": wide,
        "for a 'dinov3_vit' encoder, the base is 'dinov2'": tiny_encoder("dinov2"),
        "has a second channel already": trained(tiny_encoder("dinov3")).backbone,
        "for a 'dinov3_vit' encoder, the base is 'spatialboost'": trained(tiny_encoder("dinov3")),
        "neither a folder with a transformers config.json": "nobody/no-such-encoder",
    }
    for sentence, base in bases.items():
        with pytest.raises(ValueError, match=sentence):
            sb.SpatialBoostModel.from_adapter(made / "adapter", base=base)
    for adapter in ("/no/such/folder", "nobody/no-such-adapter", made / "base"):
        with pytest.raises(ValueError, match="neither a folder nor a Hub repository with spatialboost_adapter.json"):
            sb.SpatialBoostModel.from_adapter(adapter, base=made / "base")


def test_what_has_no_adapter_or_no_whole_weights_saves_none(tmp_path):
    with pytest.raises(ValueError, match=r"boosted_layers=\[\]"):
        sb.SpatialBoostModel.from_encoder(tiny_encoder("vit"), boosted_layers=[]).save_adapter(tmp_path / "a")
    model = trained(tiny_encoder("vit"))
    projection = boosted_modules(model)[1].attn_plus.q_proj
    projection.weight = torch.nn.Parameter(projection.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"attn_plus.q_proj.weight' is quantised, sharded or offloaded"):
        model.save_adapter(tmp_path / "a")
    with pytest.raises(ValueError, match=r"'embeddings.*quantised, sharded or offloaded"):
        trained(tiny_encoder("vit")).to("meta").save_adapter(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_command_puts_an_adapter_on_its_base(made, tmp_path, capsys):
    sb.SpatialBoostImageProcessor(size={"height": 32, "width": 32}).save_pretrained(made / "base")
    arguments = [str(made / "base"), "--adapter", str(made / "adapter"), "--output", str(tmp_path / "out")]
    assert boost(arguments) == 0
    assert "2 layers boosted" in capsys.readouterr().out
    full = sb.SpatialBoostModel.from_pretrained(made / "full")
    assert same_weights(sb.SpatialBoostModel.from_pretrained(tmp_path / "out"), full)
    assert boost([*arguments, "--boosted_layers", "1"]) == 2
    assert "--boosted_layers [1]: an adapter brings its own layers" in capsys.readouterr().err
    arguments[2] = str(made / "base")
    assert boost(arguments) == 2 and "neither a folder nor a Hub repository with" in capsys.readouterr().err
