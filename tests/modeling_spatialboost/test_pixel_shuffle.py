"""The pixel shuffle in front of the projector: which patches become which token, and that it travels."""

import pytest
import torch
from transformers import AutoTokenizer

import modeling_spatialboost as sb
from experiments.tiny_models import save_tiny_encoder, save_tiny_language_model
from modeling_spatialboost.patch_tokens import pixel_shuffle, shuffled_grid
from tests.isolated import run_isolated
from tests.modeling_spatialboost.test_heads_and_vlm import conversation, inputs_for, picture


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folder with `encoder` (32 px in patches of 8: 4 x 4) and `lm`."""
    root = tmp_path_factory.mktemp("tiny")
    save_tiny_encoder(root / "encoder", image_size=32, hidden_size=32, num_layers=2)
    save_tiny_language_model(root / "lm", ["How deep? It is 1 m."] * 4, hidden_size=32)
    return root


def make(tiny, shuffle=2, size=None, **config):
    image_processor = sb.SpatialBoostImageProcessor.from_encoder(str(tiny / "encoder"), size)
    tokenizer = AutoTokenizer.from_pretrained(tiny / "lm")
    processor = sb.SpatialBoostProcessor.from_components(image_processor, tokenizer, 8, projector_shuffle=shuffle)
    model = sb.SpatialBoostForConditionalGeneration.from_components(
        str(tiny / "encoder"), str(tiny / "lm"), processor, boosted_layers=[], projector_shuffle=shuffle, **config
    )
    return model.eval(), processor


def test_each_block_of_patches_becomes_one_token_row_by_row():
    grid = torch.arange(24.0).reshape(4, 6)  # patch numbers, row by row
    tokens = torch.stack([grid.flatten(), -grid.flatten()], dim=-1)[None]  # (1, 24, 2)
    shuffled = pixel_shuffle(tokens, (4, 6), 2)
    assert shuffled.shape == (1, 6, 8)
    blocks = [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11], [12, 13, 18, 19], [14, 15, 20, 21], [16, 17, 22, 23]]
    for token, patches in zip(shuffled[0], blocks):
        assert token.tolist() == [value for patch in patches for value in (patch, -patch)]
    assert torch.equal(pixel_shuffle(tokens, (4, 6), 1), tokens)


def test_tokens_of_the_model_follow_their_own_block_of_the_image(tiny):
    model, _ = make(tiny)
    features = model.model.vision_features(torch.rand(1, 3, 32, 32))  # (1, 16, 32)
    before = torch.stack(model.model.project(features).pooler_output)
    changed = features.clone()
    changed[0, 6] += 1.0  # row 1, column 2: the block in the upper right corner
    moved = (torch.stack(model.model.project(changed).pooler_output) - before).abs().amax(-1)[0] > 1e-6
    assert moved.tolist() == [False, True, False, False]


@pytest.mark.parametrize("num_images", [1, 3])
def test_an_image_has_a_quarter_of_the_tokens(tiny, num_images):
    model, processor = make(tiny)
    inputs = inputs_for(processor, num_images)
    assert (inputs["input_ids"] == processor.image_token_id).sum() == num_images * 4
    assert model(**inputs, labels=inputs["input_ids"]).loss > 0
    features = model.model.vision_features(inputs["pixel_values"])
    without = {key: value for key, value in inputs.items() if key != "pixel_values"}
    assert torch.equal(model(**without, vision_features=features).logits, model(**inputs).logits)


def test_images_need_not_be_square(tiny):
    model, processor = make(tiny)
    processor.image_processor.size = {"height": 32, "width": 16}
    inputs = inputs_for(processor, 1)
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 2
    assert model(**inputs).logits.isfinite().all()


def test_the_loss_falls(tiny):
    model, processor = make(tiny)
    model.requires_grad_(False).model.multi_modal_projector.requires_grad_(True)
    inputs = inputs_for(processor, 2)
    optimizer = torch.optim.Adam(model.model.multi_modal_projector.parameters(), lr=0.02)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        losses.append(model(**inputs, labels=inputs["input_ids"]).loss)
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.01  # the language model is random and frozen
    read = model.model.multi_modal_projector.linear_1.weight.grad.unflatten(1, (4, 32)).abs().amax((0, 2))
    assert (read > 0).all()  # all four patches of a block


@pytest.mark.parametrize(("size", "shuffle", "remedy"), [(40, 2, "16 pixels"), (32, 3, "24 pixels")])
def test_a_grid_that_does_not_divide_is_refused_with_a_remedy(tiny, size, shuffle, remedy):
    with pytest.raises(ValueError, match=rf"projector_shuffle={shuffle}.*{size} x {size} pixels.*8 x 8.*{remedy}"):
        make(tiny, shuffle, size)


def test_the_remedy_holds_for_oblong_patches():
    with pytest.raises(ValueError, match="28 and 32 pixels"):
        shuffled_grid((42, 32), (14, 16), 2)
    assert shuffled_grid((56, 64), (14, 16), 2) == (2, 2)


@pytest.mark.parametrize(("bad", "message"), [({"use_cls_token": True}, "use_cls_token"), ({"shuffle": 0}, "give 1")])
def test_settings_that_cannot_be_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        sb.SpatialBoostVLMConfig(projector_shuffle=bad.pop("shuffle", 2), **bad)


def test_it_travels_with_the_checkpoint_to_a_process_without_the_clone(tiny, tmp_path):
    model, processor = make(tiny)
    model.save_pretrained(tmp_path / "vlm")
    processor.save_pretrained(tmp_path / "vlm")
    inputs = inputs_for(processor, 2, answer=False)
    tokens = model.generate(**inputs, max_new_tokens=3, do_sample=False)[0, -3:]
    picture(seed=0).save(tmp_path / "0.png")
    picture(seed=1).save(tmp_path / "1.png")
    output = run_isolated(
        f"""
        import sys
        import transformers as t
        from PIL import Image
        folder = sys.argv[1] + "/vlm"
        model = t.AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
        processor = t.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        text = processor.apply_chat_template({conversation(2)[:1]!r}, add_generation_prompt=True)
        images = [Image.open(sys.argv[1] + f"/{{number}}.png") for number in range(2)]
        inputs = processor(text=text, images=images, return_tensors="pt")
        print(model.config.projector_shuffle, int((inputs["input_ids"] == processor.image_token_id).sum()))
        print(model.generate(**inputs, max_new_tokens=3, do_sample=False)[0, -3:].tolist())
        """,
        tmp_path / "home",
        str(tmp_path),
    )
    assert output.splitlines() == ["2 8", str(tokens.tolist())]
