"""Every encoder x {identity in fp32 and bf16, save and load in an isolated process, a step changes what it should}."""

import pytest
import torch
import transformers as t
from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

from modeling_spatialboost import SpatialBoostBackbone, SpatialBoostForDepthEstimation, SpatialBoostModel
from modeling_spatialboost.dual_channel_attention import is_second_channel
from modeling_spatialboost.encoder_loading import load_encoder
from tests.isolated import run_isolated
from tests.modeling_spatialboost.encoders import BUILDERS, FIXED_SIZE, SIZE, native_inputs, tiny_encoder

ALL = sorted(BUILDERS)


def assert_same_outputs(expected, actual):
    assert expected.keys() == actual.keys()
    for key, value in expected.items():
        if isinstance(value, tuple | list):
            assert len(value) == len(actual[key]), key
            assert all(torch.equal(a, b) for a, b in zip(value, actual[key])), key
        else:
            assert torch.equal(value, actual[key]), key


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each encoder saved as it would stand on the Hub."""
    root = tmp_path_factory.mktemp("encoders")
    for name in ALL:
        tiny_encoder(name).save_pretrained(root / name)
    return root


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", ALL)
def test_right_after_boosting_the_output_is_the_encoders_to_the_last_bit(name, dtype, folders):
    encoder = load_encoder(str(folders / name), dtype=dtype).eval()
    boosted = SpatialBoostModel.from_encoder(str(folders / name), dtype=dtype).eval()
    assert boosted.dtype == dtype and len(boosted.alpha_table()) == 2
    with torch.no_grad():
        inputs = native_inputs(name, dtype)
        expected = encoder(**inputs, output_hidden_states=True)
        assert_same_outputs(expected, boosted(**inputs, output_hidden_states=True))


@pytest.mark.parametrize("name", [name for name in ALL if name != "pe_core"])  # timm gives no attentions
def test_attentions_are_counted_once_and_are_the_base_channels(name, folders):
    encoder = load_encoder(str(folders / name)).eval()
    boosted = SpatialBoostModel.from_encoder(str(folders / name)).eval()
    for model in (encoder, boosted):
        model.set_attn_implementation("eager")
    inputs = native_inputs(name)
    outputs = boosted(**inputs, output_attentions=True)
    assert len(outputs.attentions) == 2
    assert_same_outputs(encoder(**inputs, output_attentions=True), outputs)


@pytest.mark.parametrize("name", ALL)
def test_a_trained_step_changes_only_the_second_channel(name, folders):
    model = SpatialBoostModel.from_encoder(str(folders / name)).freeze_base_channel().train()
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=1.0)
    for _ in range(2):  # alpha has no gradient before Attn_plus has moved
        optimizer.zero_grad()
        model(**native_inputs(name)).last_hidden_state.square().mean().backward()
        optimizer.step()
    changed = {key for key, parameter in model.named_parameters() if not torch.equal(before[key], parameter)}
    assert changed and all(is_second_channel(key) for key in changed)
    assert {key for key in before if key.endswith("alpha_logit")} <= changed
    assert all(not p.requires_grad for key, p in model.named_parameters() if not is_second_channel(key))
    report = model.verify_base_channel()
    assert report and report.compared > 10
    next(p for key, p in model.named_parameters() if not is_second_channel(key)).data.add_(1e-3)
    assert not model.verify_base_channel() and len(model.verify_base_channel().differing) == 1


def test_every_encoder_loads_in_a_process_that_cannot_see_the_clone(folders, tmp_path):
    for name in ALL:
        model = SpatialBoostModel.from_encoder(str(folders / name))
        with torch.no_grad():  # move the second channel, so that a copy of the base would be noticed
            for key, parameter in model.named_parameters():
                if is_second_channel(key):
                    parameter.add_(torch.randn_like(parameter) * 0.05)
        model.save_pretrained(tmp_path / name)
        inputs = native_inputs(name)
        torch.save({"inputs": inputs, "output": model(**inputs).last_hidden_state.detach()}, tmp_path / f"{name}.pt")
    output = run_isolated(
        """
        import sys, torch
        from transformers import AutoModel
        root, *names = sys.argv[1:]
        for name in names:
            model = AutoModel.from_pretrained(f"{root}/{name}", trust_remote_code=True).eval()
            expected = torch.load(f"{root}/{name}.pt")
            same = torch.equal(model(**expected["inputs"]).last_hidden_state, expected["output"])
            print(name, type(model).__name__, same)
        """,
        tmp_path / "home",
        str(tmp_path),
        *ALL,
    )
    assert output.split("\n")[:-1] == [f"{name} SpatialBoostModel True" for name in ALL]


@pytest.mark.parametrize("name", ALL)
def test_the_base_checkpoint_itself_loads_as_a_boosted_model(name, folders):
    boosted = SpatialBoostModel.from_encoder(str(folders / name))
    loaded, report = SpatialBoostModel.from_pretrained(folders / name, config=boosted.config, output_loading_info=True)
    assert not report["unexpected_keys"] and all(is_second_channel(key) for key in report["missing_keys"])
    inputs = native_inputs(name)
    assert torch.equal(loaded.eval()(**inputs).last_hidden_state, boosted.eval()(**inputs).last_hidden_state)


@pytest.mark.parametrize("name", ALL)
def test_any_image_size_where_the_encoder_allows_it(name, folders):
    model = SpatialBoostBackbone.from_encoder(str(folders / name), out_indices=[1, 2]).eval()
    images = torch.rand(1, 3, 48, 24)
    if name in FIXED_SIZE:
        with pytest.raises(ValueError, match="48x24.*32x32 only"):
            model(images)
        images = torch.rand(1, 3, SIZE, SIZE)
    maps = model(images).feature_maps
    grid = (images.shape[-2] // 8, images.shape[-1] // 8)
    assert [tuple(feature_map.shape) for feature_map in maps] == [(1, 32, *grid)] * 2
    assert model.channels == [32, 32]
    depth = SpatialBoostForDepthEstimation.from_encoder(str(folders / name)).eval()(images).predicted_depth
    assert tuple(depth.shape) == (1, *images.shape[-2:]) and depth.min() > 0


@pytest.mark.parametrize("name", ALL)
def test_feature_maps_follow_the_image(name, folders):
    """A bright square moves the features under it most: rows and columns in order, no prefix token left in."""
    model = SpatialBoostModel.from_encoder(str(folders / name)).eval()
    dark, bright = torch.zeros(1, 3, SIZE, SIZE), torch.zeros(1, 3, SIZE, SIZE)
    bright[..., 8:16, 24:32] = 1.0  # row 1, column 3 of the patch grid
    with torch.no_grad():
        change = (model.patch_features(bright)[0] - model.patch_features(dark)[0]).norm(dim=1)[0]
    assert change.flatten().argmax().item() == 1 * 4 + 3


def test_a_native_timm_name_of_any_size_works_when_timm_is_told_so():
    encoder = t.TimmWrapperModel(
        t.TimmWrapperConfig(
            architecture="vit_tiny_patch16_224",
            model_args={"depth": 1, "embed_dim": 32, "num_heads": 2, "img_size": 32, "dynamic_img_size": True},
        )
    )
    model = SpatialBoostModel.from_encoder(encoder)
    assert model.patch_features(torch.rand(1, 3, 64, 32))[0].shape == (1, 32, 4, 2)


TOWER = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
PIXELS = {"image_size": SIZE, "patch_size": 8}
COMPOSITES = {
    "clip": lambda: t.CLIPModel(t.CLIPConfig(vision_config={**TOWER, **PIXELS}, text_config=TOWER)),
    "siglip": lambda: t.SiglipModel(t.SiglipConfig(vision_config={**TOWER, **PIXELS}, text_config=TOWER)),
}


@pytest.mark.parametrize("loaded", [False, True], ids=["folder", "model"])
@pytest.mark.parametrize("name", COMPOSITES)
def test_a_composite_repository_gives_its_vision_tower(name, loaded, tmp_path):
    model = COMPOSITES[name]().eval()
    model.save_pretrained(tmp_path)
    images = torch.rand(1, 3, SIZE, SIZE)
    expected = model.vision_model(images)
    boosted = SpatialBoostModel.from_encoder(model if loaded else str(tmp_path)).eval()
    actual = boosted(images)
    assert torch.equal(actual.last_hidden_state, expected.last_hidden_state)
    # SigLIP pools with nn.MultiheadAttention, whose result depends on where its weights lie in memory
    torch.testing.assert_close(actual.pooler_output, expected.pooler_output, rtol=0, atol=1e-6)
    assert boosted.config.backbone_config.model_type == f"{name}_vision_model"


@pytest.mark.parametrize(
    ("encoder", "word"),
    [
        (
            lambda: t.DINOv3ConvNextModel(t.DINOv3ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1])),
            "dinov3_convnext",
        ),
        (
            lambda: t.SwinModel(t.SwinConfig(image_size=32, embed_dim=8, depths=[1], num_heads=[1], window_size=4)),
            "swin",
        ),
        (lambda: t.TimmWrapperModel(t.TimmWrapperConfig(architecture="resnet10t")), "nothing to boost"),
    ],
    ids=["convnext", "swin", "timm_resnet"],
)
def test_an_encoder_that_cannot_be_boosted_is_refused_with_the_list_of_those_that_can(encoder, word, tmp_path):
    model = encoder()
    model.save_pretrained(tmp_path)
    for source in (model, str(tmp_path)):
        with pytest.raises(ValueError, match=word) as refusal:
            SpatialBoostModel.from_encoder(source)
        assert "dinov3_vit" in str(refusal.value) and "siglip2_vision_model" in str(refusal.value)


def test_a_folder_that_is_no_model_an_unknown_id_and_a_boosted_encoder_are_refused(tmp_path):
    for name in (str(tmp_path), "nobody/no-such-encoder"):
        with pytest.raises(ValueError, match="neither a folder with a transformers config.json"):
            SpatialBoostModel.from_encoder(name)
    boosted = SpatialBoostModel.from_encoder(tiny_encoder("vit"))
    with pytest.raises(ValueError, match="boosted already"):
        SpatialBoostModel.from_encoder(boosted.backbone)
    boosted.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="spatialboost"):
        SpatialBoostModel.from_encoder(str(tmp_path))


@pytest.mark.parametrize("layers", [[2], [-3], [0, 0], [0, -2]])
def test_layers_outside_the_encoder_or_named_twice_are_refused(layers):
    with pytest.raises(ValueError, match=r"boosted_layers=.*2 layers"):
        SpatialBoostModel.from_encoder(tiny_encoder("vit"), boosted_layers=layers)


@pytest.mark.parametrize(("layers", "boosted"), [([], []), ([1], [1]), ([-1], [1]), (None, [0, 1])])
def test_only_the_layers_asked_for_are_boosted(layers, boosted):
    model = SpatialBoostModel.from_encoder(tiny_encoder("vit"), boosted_layers=layers)
    assert [row["layer"] for row in model.alpha_table()] == boosted
    assert all(row["mean"] == row["min"] == row["max"] == 0.5 for row in model.alpha_table())


def test_naflex_images_of_different_grids_have_no_common_feature_map():
    model = SpatialBoostBackbone.from_encoder(tiny_encoder("siglip2_naflex"))
    with pytest.raises(ValueError, match="one grid"):
        model(**native_inputs("siglip2_naflex"))


def test_verify_base_channel_needs_a_base(tmp_path):
    model = SpatialBoostModel.from_encoder(tiny_encoder("vit"))
    with pytest.raises(ValueError, match="base=None"):
        model.verify_base_channel()
    assert model.verify_base_channel(tiny_encoder("vit"))


def test_naflex_takes_ordinary_images_and_cuts_them_as_its_own_processor_does():
    model = SpatialBoostModel.from_encoder(tiny_encoder("siglip2_naflex")).eval()
    image = torch.rand(3, 16, 40)
    patches = convert_image_to_patches(image, 8)[None]
    native = {"pixel_attention_mask": torch.ones(1, 10), "spatial_shapes": torch.tensor([[2, 5]])}
    assert torch.equal(model(image[None]).last_hidden_state, model(patches, **native).last_hidden_state)


def test_the_weights_of_a_loaded_model_survive_the_start_of_a_new_head():
    encoder = tiny_encoder("vit")
    for module in encoder.modules():  # as in a model that transformers did not initialise itself
        module.__dict__.pop("_is_hf_initialized", None)
    images = torch.rand(1, 3, SIZE, SIZE)
    expected = encoder(images).last_hidden_state
    model = SpatialBoostForDepthEstimation.from_encoder(encoder).eval()
    assert torch.equal(model.backbone(images).last_hidden_state, expected)


def test_patch_features_of_clip_go_through_the_norm_that_clip_keeps_for_its_pooled_token():
    encoder = tiny_encoder("clip")
    with torch.no_grad():
        encoder.post_layernorm.weight.mul_(3.0)
    images = torch.rand(1, 3, SIZE, SIZE)
    tokens = encoder.post_layernorm(encoder(images).last_hidden_state)[:, 1:]
    features, _ = SpatialBoostModel.from_encoder(encoder).eval().patch_features(images)
    assert torch.equal(features.flatten(2).mT, tokens)
