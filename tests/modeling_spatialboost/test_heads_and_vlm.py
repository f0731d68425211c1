"""Heads, image processor, vision-language model and pipelines, in this process and in one that has only the folder."""

import ast
import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer

import modeling_spatialboost as sb
from experiments.tiny_models import save_tiny_encoder, save_tiny_language_model
from modeling_spatialboost.dense_heads import scale_invariant_log_loss
from tests.isolated import run_isolated
from tests.modeling_spatialboost.encoders import tiny_encoder

HEADS = {
    "depth": sb.SpatialBoostForDepthEstimation,
    "segmentation": sb.SpatialBoostForSemanticSegmentation,
    "classification": sb.SpatialBoostForImageClassification,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folder with `encoder` and `lm`."""
    root = tmp_path_factory.mktemp("tiny")
    save_tiny_encoder(root / "encoder", image_size=32, hidden_size=32, num_layers=2)
    save_tiny_language_model(root / "lm", ["What is the depth at (0.31, 0.52)? It is 1.234 m."] * 4, hidden_size=32)
    return root


@pytest.fixture(scope="module")
def vlm(tiny):
    """A vision-language model with a plain encoder, as in stages 1 and 2, and its processor."""
    image_processor = sb.SpatialBoostImageProcessor.from_encoder(str(tiny / "encoder"))
    tokenizer = AutoTokenizer.from_pretrained(tiny / "lm")
    processor = sb.SpatialBoostProcessor.from_components(image_processor, tokenizer, patch_size=8)
    model = sb.SpatialBoostForConditionalGeneration.from_components(
        str(tiny / "encoder"), str(tiny / "lm"), processor, boosted_layers=[]
    )
    return model.eval(), processor


def picture(width=40, height=30, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def conversation(num_images):
    content = []
    for number in range(1, num_images + 1):
        content += [{"type": "text", "text": f"Image {number}: "}, {"type": "image"}]
    question = [*content, {"type": "text", "text": "How deep?"}]
    return [{"role": "user", "content": question}, {"role": "assistant", "content": [{"type": "text", "text": "1 m"}]}]


def inputs_for(processor, num_images, answer=True):
    messages = conversation(num_images)
    text = processor.apply_chat_template(messages if answer else messages[:1], add_generation_prompt=not answer)
    return processor(text=text, images=[picture(seed=i) for i in range(num_images)], return_tensors="pt")


@pytest.mark.parametrize(("name", "head"), HEADS.items())
def test_a_head_learns_from_its_labels_and_survives_saving(name, head, tmp_path):
    labels = {
        "depth": torch.full((2, 30, 40), 2.0),
        "segmentation": torch.ones(2, 30, 40, dtype=torch.long),
        "classification": torch.tensor([1, 2]),
    }[name]
    model = head.from_encoder(tiny_encoder("dinov3"), num_labels=3).freeze_base_channel().train()
    images = torch.rand(2, 3, 32, 32)
    optimizer = torch.optim.Adam([p for n, p in model.named_parameters() if "backbone" not in n], lr=0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(model(images, labels=labels).loss)
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2
    model.eval().save_pretrained(tmp_path)
    loaded = head.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(images)[0], model(images)[0])


def test_the_head_has_its_own_names():
    """A head attribute named like a child of the encoder would swallow the encoder's weights on loading."""
    for head in HEADS.values():
        model = head.from_encoder(tiny_encoder("dinov3"))
        names = {name for name, _ in model.named_children()} - {"backbone"}
        assert names and not names & {name for name, _ in model.backbone.named_children()}


def test_scale_invariant_loss_by_hand():
    depth, truth = torch.tensor([[[2.0, 4.0]]]), torch.tensor([[[1.0, 1.0]]])
    gap = torch.log(torch.tensor([2.001, 4.001])) - np.log(1.001)
    expected = torch.sqrt(gap.var(unbiased=False) + 0.15 * gap.mean() ** 2)
    valid = torch.ones_like(truth, dtype=torch.bool)
    assert scale_invariant_log_loss(depth, truth, valid).item() == pytest.approx(expected.item(), rel=1e-5)
    warm_up = scale_invariant_log_loss(depth, truth, valid, with_variance=False)
    assert warm_up.item() == pytest.approx((0.15**0.5 * gap.mean()).item(), rel=1e-5)
    assert scale_invariant_log_loss(depth, truth, ~valid).item() == 0


@pytest.mark.parametrize("bad", [{"min_depth_m": 0.0}, {"min_depth_m": 5.0, "max_depth_m": 4.0}, {"depth_bins": 1}])
def test_a_nonsensical_depth_range_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        sb.SpatialBoostConfig(backbone_config=tiny_encoder("vit").config, **bad)


def test_the_image_processor_resizes_the_whole_image_with_the_encoders_statistics(tiny, tmp_path):
    processor = sb.SpatialBoostImageProcessor.from_encoder(str(tiny / "encoder"), size=48)
    pixels = processor(picture(80, 30), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 48, 48) and not getattr(processor, "do_center_crop", None)
    white = processor(Image.new("RGB", (9, 9), "white"), return_tensors="pt")["pixel_values"][0, :, 0, 0]
    torch.testing.assert_close(white, (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225]))
    with pytest.raises(ValueError, match="has no image processor"):
        sb.SpatialBoostImageProcessor.from_encoder(str(tmp_path))


def test_the_image_processor_travels_with_a_saved_encoder(tiny, tmp_path):
    sb.SpatialBoostModel.from_encoder(str(tiny / "encoder")).save_pretrained(tmp_path / "boosted")
    made = sb.SpatialBoostImageProcessor.from_encoder(str(tiny / "encoder")).to_dict()
    assert made.items() <= AutoImageProcessor.from_pretrained(tmp_path / "boosted").to_dict().items()
    own = sb.SpatialBoostImageProcessor(size={"height": 24, "width": 24}, image_mean=[0.1, 0.2, 0.3])
    own.save_pretrained(tmp_path / "boosted")  # replaced by its user, it stays and goes on
    for source, target in (("boosted", "boosted"), ("boosted", "again"), ("again", "third")):
        sb.SpatialBoostForDepthEstimation.from_pretrained(tmp_path / source).save_pretrained(tmp_path / target)
        assert list(AutoImageProcessor.from_pretrained(tmp_path / target).image_mean) == [0.1, 0.2, 0.3]
    sb.SpatialBoostModel.from_encoder(str(tiny / "encoder")).save_pretrained(tmp_path / "x", is_main_process=False)
    assert not (tmp_path / "x" / "preprocessor_config.json").exists()


def test_an_encoder_without_an_image_processor_is_saved_with_a_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    tiny_encoder("dinov3").save_pretrained(tmp_path / "base")
    for encoder, told in ((str(tmp_path / "base"), "has no image processor"), (tiny_encoder("dinov3"), "no name")):
        caplog.clear()
        sb.SpatialBoostModel.from_encoder(encoder).save_pretrained(tmp_path / "boosted")
        assert told in caplog.text and "save a SpatialBoostImageProcessor there" in caplog.text
    assert (tmp_path / "boosted" / "model.safetensors").is_file()


def test_the_image_processor_of_a_timm_encoder(tmp_path):
    statistics = {"input_size": [3, 96, 96], "mean": [0.5, 0.4, 0.3], "std": [0.1] * 3, "interpolation": "bilinear"}
    tiny_encoder("pe_core").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"pretrained_cfg": statistics, "num_classes": 2, "label_names": ["cup", "box"]}
    (tmp_path / "config.json").write_text(json.dumps(config))  # as timm's own repositories on the Hub have it
    processor = sb.SpatialBoostImageProcessor.from_encoder(str(tmp_path))
    assert processor.size["height"] == processor.size["width"] == 96
    assert list(processor.image_mean) == [0.5, 0.4, 0.3] and processor.resample == Image.Resampling.BILINEAR


@pytest.mark.parametrize("num_images", [1, 2, 4])
def test_each_image_becomes_as_many_tokens_as_the_encoder_gives(vlm, num_images):
    model, processor = vlm
    inputs = inputs_for(processor, num_images)
    assert (inputs["input_ids"] == processor.image_token_id).sum() == num_images * 16
    assert model(**inputs, labels=inputs["input_ids"]).loss > 0


def test_the_order_of_the_images_matters_and_other_rows_do_not(vlm):
    model, processor = vlm
    inputs = inputs_for(processor, 2)
    logits = model(**inputs).logits
    swapped = {**inputs, "pixel_values": inputs["pixel_values"].flip(0)}
    assert not torch.allclose(model(**swapped).logits[:, -1], logits[:, -1], atol=1e-4)
    texts = [processor.apply_chat_template(conversation(n)) for n in (2, 1)]
    batch = processor(
        text=texts, images=[[picture(seed=0), picture(seed=1)], [picture(seed=2)]], padding=True, return_tensors="pt"
    )
    kept = batch["attention_mask"][0].bool()
    torch.testing.assert_close(model(**batch).logits[0, kept], logits[0], atol=1e-4, rtol=1e-4)


def test_a_count_of_images_that_does_not_fit_the_text_is_refused(vlm):
    _, processor = vlm
    text = processor.apply_chat_template(conversation(2))
    with pytest.raises((ValueError, StopIteration, RuntimeError)):
        processor(text=text, images=[picture()], return_tensors="pt")


def test_cls_token_and_other_layers_can_feed_the_projector(tiny):
    image_processor = sb.SpatialBoostImageProcessor.from_encoder(str(tiny / "encoder"))
    tokenizer = AutoTokenizer.from_pretrained(tiny / "lm")
    processor = sb.SpatialBoostProcessor.from_components(image_processor, tokenizer, 8, num_prefix_tokens=1)
    model = sb.SpatialBoostForConditionalGeneration.from_components(
        str(tiny / "encoder"), str(tiny / "lm"), processor, use_cls_token=True, vision_feature_layer=1
    ).eval()
    inputs = inputs_for(processor, 1)
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 17
    tokens = model.model.vision_features(inputs["pixel_values"])
    hidden = model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[1]
    assert torch.equal(tokens, torch.cat([hidden[:, :1], hidden[:, 5:]], 1))
    assert model(**inputs).logits.shape[-1] == len(tokenizer)


def test_only_answers_and_their_end_of_turn_are_marked_for_the_loss(vlm):
    _, processor = vlm
    messages = [*conversation(1), *conversation(0)]
    encoded = processor.tokenizer.apply_chat_template(
        messages,
        chat_template=processor.chat_template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    marked = [token for token, mask in zip(encoded["input_ids"], encoded["assistant_masks"]) if mask]
    assert processor.tokenizer.decode(marked) == "1 m<|im_end|>1 m<|im_end|>"


def test_stage_3_starts_from_the_plain_model_of_stage_2(vlm, tmp_path):
    model, processor = vlm
    model.save_pretrained(tmp_path)
    config = sb.SpatialBoostVLMConfig.from_pretrained(tmp_path)
    assert config.vision_config.boosted_layers == []
    config.vision_config.boosted_layers = None
    boosted = sb.SpatialBoostForConditionalGeneration.from_pretrained(tmp_path, config=config).eval()
    inputs = inputs_for(processor, 2)
    assert torch.equal(boosted(**inputs).logits, model(**inputs).logits)
    assert len(boosted.vision_tower.alpha_table()) == 2 and not model.vision_tower.alpha_table()


def test_unknown_parts_are_refused(tiny, vlm):
    _, processor = vlm
    build = sb.SpatialBoostForConditionalGeneration.from_components
    with pytest.raises(ValueError, match=r"language_model=.*Qwen/Qwen2-7B-Instruct"):
        build(str(tiny / "encoder"), str(tiny / "no-such-lm"), processor)
    with pytest.raises(ValueError, match=r"encoder=.*neither a folder"):
        build(str(tiny / "no-such-encoder"), str(tiny / "lm"), processor)


def test_a_boosted_encoder_can_be_joined_to_a_language_model(tiny, vlm, tmp_path):
    _, processor = vlm
    sb.SpatialBoostModel.from_encoder(str(tiny / "encoder"), boosted_layers=[1]).save_pretrained(tmp_path)
    model = sb.SpatialBoostForConditionalGeneration.from_components(str(tmp_path), str(tiny / "lm"), processor)
    assert [row["layer"] for row in model.vision_tower.alpha_table()] == [1]


def test_all_weights_are_loaded_in_the_dtype_that_was_asked_for(vlm, tmp_path):
    model, _ = vlm
    model.save_pretrained(str(tmp_path))  # float32, and so say the configs of its parts
    narrow = sb.SpatialBoostForConditionalGeneration.from_pretrained(str(tmp_path), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in narrow.parameters()} == {torch.bfloat16}


def test_the_folder_alone_serves_every_auto_class_and_pipeline(tiny, vlm, tmp_path):
    image_processor = sb.SpatialBoostImageProcessor.from_encoder(str(tiny / "encoder"))
    classes = {"encoder": sb.SpatialBoostModel, "backbone": sb.SpatialBoostBackbone, **HEADS}
    for name, model_class in classes.items():
        model_class.from_encoder(str(tiny / "encoder"), num_labels=3).save_pretrained(tmp_path / name)
        image_processor.save_pretrained(tmp_path / name)
    model, processor = vlm
    model.save_pretrained(tmp_path / "vlm")
    processor.save_pretrained(tmp_path / "vlm")
    output = run_isolated(
        """
        import sys, torch, transformers as t
        from PIL import Image
        root, trust = sys.argv[1], {"trust_remote_code": True}
        image = Image.new("RGB", (50, 40), "red")
        for name in ("encoder", "backbone", "depth", "segmentation", "classification"):
            auto = {"encoder": t.AutoModel, "depth": t.AutoModelForDepthEstimation,
                    "segmentation": t.AutoModelForSemanticSegmentation,
                    "classification": t.AutoModelForImageClassification}.get(name)
            processor = t.AutoImageProcessor.from_pretrained(f"{root}/{name}", **trust)
            if auto is None:  # AutoBackbone.from_pretrained takes no local folder (huggingface/transformers)
                model = t.AutoBackbone.from_config(t.AutoConfig.from_pretrained(f"{root}/{name}", **trust), **trust)
            else:
                model, info = auto.from_pretrained(f"{root}/{name}", output_loading_info=True, **trust)
                assert not info["missing_keys"] and not info["unexpected_keys"], info
            model(**processor(image, return_tensors="pt"))
            print(name, type(model).__name__, type(processor).__name__)
        depth = t.pipeline("depth-estimation", model=f"{root}/depth", **trust)(image)
        print("depth-estimation", tuple(depth["predicted_depth"].shape), depth["depth"].size)
        features = t.pipeline("image-feature-extraction", model=f"{root}/encoder", **trust)(image)
        print("image-feature-extraction", len(features[0]), len(features[0][0]))
        classify = t.pipeline("image-classification", model=f"{root}/classification", **trust)
        print("image-classification", len(classify(image)))
        masks = t.pipeline("image-segmentation", model=f"{root}/segmentation", **trust)(image)
        print("image-segmentation", {mask["mask"].size for mask in masks})
        ask = t.pipeline("image-text-to-text", model=f"{root}/vlm", **trust)
        parts = [{"type": "image", "image": image}] * 2 + [{"type": "text", "text": "Deep?"}]
        answer = ask(text=[{"role": "user", "content": parts}], max_new_tokens=3)[0]["generated_text"][-1]
        print("image-text-to-text", type(ask.model).__name__, type(ask.processor).__name__, answer["role"])
        """,
        tmp_path / "home",
        str(tmp_path),
    )
    assert output.splitlines() == [
        "encoder SpatialBoostModel SpatialBoostImageProcessor",
        "backbone SpatialBoostBackbone SpatialBoostImageProcessor",
        "depth SpatialBoostForDepthEstimation SpatialBoostImageProcessor",
        "segmentation SpatialBoostForSemanticSegmentation SpatialBoostImageProcessor",
        "classification SpatialBoostForImageClassification SpatialBoostImageProcessor",
        "depth-estimation (40, 50) (50, 40)",
        "image-feature-extraction 21 32",
        "image-classification 3",
        "image-segmentation {(50, 40)}",
        "image-text-to-text SpatialBoostForConditionalGeneration SpatialBoostProcessor assistant",
    ]


def test_one_encoder_folder_offers_every_auto_class(tiny, tmp_path):
    sb.SpatialBoostModel.from_encoder(str(tiny / "encoder")).save_pretrained(tmp_path)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert {"AutoConfig", "AutoModel", "AutoBackbone", "AutoModelForDepthEstimation"} <= auto_map.keys()
    for target in auto_map.values():
        module, name = target.split(".")
        tree = ast.parse((tmp_path / f"{module}.py").read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def test_remote_code_imports_only_torch_and_transformers():
    allowed = {"torch", "transformers", "safetensors", *sys.stdlib_module_names}
    for path in Path(sb.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                roots = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                roots = {node.module.split(".")[0]}
            else:
                continue
            assert roots <= allowed, f"{path.name}:{node.lineno} imports {roots}"


def test_clip_tokens_reach_the_projector_after_the_final_norm(tiny, vlm):
    """CLIP norms only its pooled token by itself (method: patch tokens of the last layer, after the final norm)."""
    _, processor = vlm
    encoder = sb.SpatialBoostModel.from_encoder(tiny_encoder("clip")).eval()
    model = sb.SpatialBoostForConditionalGeneration.from_components(encoder, str(tiny / "lm"), processor).eval()
    images = torch.rand(1, 3, 32, 32)
    tokens = model.model.vision_features(images)
    expected = encoder.backbone.post_layernorm(encoder(images).last_hidden_state)[:, 1:]
    assert torch.equal(tokens, expected)
