"""Loading encoders, their patch features, and the cache."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel

from evaluators import features as features_module
from evaluators.array_cache import row_writer
from evaluators.features import extract, extract_cached, load_encoder

KINDS = ["dinov3", "dinov2", "clip", "clip_tower", "siglip", "siglip2", "vit"]


def noise_images(count=3, size=(40, 24)):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    return [Image.fromarray(image.numpy()) for image in pixels]


@pytest.mark.parametrize("kind", KINDS)
def test_encoders_give_normalised_patch_maps_at_any_size(encoder_folders, kind):
    encoder = load_encoder(encoder_folders(kind))
    assert (encoder.patch_size_px, encoder.hidden_size) == (8, 32)
    maps = extract(encoder, noise_images(), (32, 48), batch_size=2)
    assert maps.shape == (3, 32, 4, 6) and maps.dtype == torch.float32
    # the final norm has unit weight in a fresh model: each token has mean 0 and variance 1
    torch.testing.assert_close(maps.mean(1), torch.zeros(3, 4, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(maps.var(1, unbiased=False), torch.ones(3, 4, 6), atol=1e-2, rtol=0)


def test_patch_maps_are_the_last_tokens_in_row_order(encoder_folders):
    encoder = load_encoder(encoder_folders("dinov3"))
    images = noise_images(2)
    pixel_values = torch.stack([encoder.preprocessing(image, (32, 48)) for image in images])
    with torch.inference_mode():
        tokens = AutoModel.from_pretrained(encoder_folders("dinov3"))(pixel_values).last_hidden_state
    maps = extract(encoder, images, (32, 48))
    torch.testing.assert_close(maps[1, :, 1, 2], tokens[1, -24:][1 * 6 + 2])


def test_preprocessing_is_the_processors_own_for_images_of_its_size(encoder_folders):
    from transformers import AutoImageProcessor

    for kind in ("dinov3", "clip", "siglip", "vit"):
        encoder = load_encoder(encoder_folders(kind))
        (image,) = noise_images(1, size=(32, 32))
        expected = AutoImageProcessor.from_pretrained(encoder_folders(kind))(image, return_tensors="pt").pixel_values
        torch.testing.assert_close(encoder.preprocessing(image, (32, 32)), expected[0], atol=1e-4, rtol=0)
        assert encoder.input_size_px == (32, 32)


def test_a_composite_repository_gives_its_vision_tower_alone(encoder_folders):
    encoder, tower = load_encoder(encoder_folders("clip")), load_encoder(encoder_folders("clip_tower"))
    assert encoder.num_parameters == tower.num_parameters
    assert type(encoder.model).__name__ == "CLIPVisionModel"


@pytest.mark.parametrize("kind", ["dinov3", "clip_tower", "siglip", "siglip2"])
def test_a_fresh_boosted_encoder_gives_the_features_of_its_base(encoder_folders, tmp_path, kind):
    from modeling_spatialboost import SpatialBoostImageProcessor, SpatialBoostModel

    SpatialBoostModel.from_encoder(encoder_folders(kind)).save_pretrained(tmp_path)
    SpatialBoostImageProcessor.from_encoder(encoder_folders(kind)).save_pretrained(tmp_path)
    base, boosted = load_encoder(encoder_folders(kind)), load_encoder(str(tmp_path))
    assert boosted.num_parameters > base.num_parameters
    assert (boosted.patch_size_px, boosted.hidden_size) == (8, 32)
    assert torch.equal(extract(base, noise_images(), (32, 48)), extract(boosted, noise_images(), (32, 48)))


def test_timm_encoders_give_patch_maps_at_any_size(tmp_path):
    pytest.importorskip("timm")
    from transformers import TimmWrapperConfig, TimmWrapperModel

    settings = {"input_size": [3, 224, 224], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}
    config = TimmWrapperConfig(architecture="vit_tiny_patch16_224", pretrained_cfg=settings, model_args={"depth": 1})
    TimmWrapperModel(config).save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path))
    assert (encoder.patch_size_px, encoder.hidden_size, encoder.input_size_px) == (16, 192, (224, 224))
    assert extract(encoder, noise_images(1), (32, 48)).shape == (1, 192, 2, 3)


def test_half_precision_features_are_stored_as_float16(encoder_folders):
    encoder = load_encoder(encoder_folders("dinov3"), dtype=torch.bfloat16)
    assert extract(encoder, noise_images(1), (32, 32)).dtype == torch.float16


def count_extractions(monkeypatch):
    calls = []

    def counted(*args):
        calls.append(args)
        return extract(*args)

    monkeypatch.setattr(features_module, "extract", counted)
    return calls


def test_the_cache_gives_the_same_numbers_without_running_the_encoder(encoder_folders, tmp_path, monkeypatch):
    calls = count_extractions(monkeypatch)
    images = noise_images()
    expected = extract(load_encoder(encoder_folders("dinov3")), images, (32, 32))
    for _ in range(2):
        encoder = load_encoder(encoder_folders("dinov3"))
        assert torch.equal(extract_cached(encoder, images, "data", (32, 32), tmp_path), expected)
    assert len(calls) == 1
    assert [file.suffix for file in tmp_path.iterdir()] == [".npy"]


def test_the_cache_misses_when_weights_data_or_size_change(encoder_folders, tmp_path, monkeypatch):
    calls = count_extractions(monkeypatch)
    images = noise_images()
    encoder = load_encoder(encoder_folders("dinov3"))
    first = extract_cached(encoder, images, "data", (32, 32), tmp_path)
    extract_cached(encoder, images, "other data", (32, 32), tmp_path)
    extract_cached(encoder, images, "data", (32, 48), tmp_path)

    model = AutoModel.from_pretrained(encoder_folders("dinov3"))
    with torch.no_grad():
        model.norm.weight[0] += 0.5
    model.save_pretrained(tmp_path / "changed")
    shutil.copy(f"{encoder_folders('dinov3')}/preprocessor_config.json", tmp_path / "changed")
    changed = load_encoder(str(tmp_path / "changed"))
    assert changed.weights_hash != encoder.weights_hash
    second = extract_cached(changed, images, "data", (32, 32), tmp_path)
    assert not torch.equal(first, second)
    assert len(calls) == 4


def test_an_interrupted_extraction_leaves_nothing_in_the_cache(encoder_folders, tmp_path, monkeypatch):
    encoder = load_encoder(encoder_folders("dinov3"))

    def broken(_encoder, _images, _resolution, _batch_size, file):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(features_module, "extract", broken)
    with pytest.raises(KeyboardInterrupt):
        extract_cached(encoder, noise_images(), "data", (32, 32), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_errors_name_the_encoder_and_the_remedy(encoder_folders, tmp_path):
    with pytest.raises(ValueError, match=r"empty.*without config.json.*save_pretrained"):
        (tmp_path / "empty").mkdir()
        load_encoder(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"no-such/encoder.*cannot be loaded"):
        load_encoder("no-such/encoder")
    without_processor = shutil.copytree(encoder_folders("dinov3"), tmp_path / "bare")
    (without_processor / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="has no image processor"):
        load_encoder(str(without_processor))
    encoder = load_encoder(encoder_folders("dinov3"))
    with pytest.raises(ValueError, match=r"\(30, 32\) is no multiple of the patch size 8.*pass \(32, 32\)"):
        extract(encoder, noise_images(1), (30, 32))


@pytest.mark.parametrize(("kind", "part"), [("dinov3", "mlp"), ("vit", "patch_embeddings.projection")])
def test_a_checkpoint_with_missing_weights_is_refused(encoder_folders, tmp_path, kind, part):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(encoder_folders(kind), tmp_path / "cut")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(next(name for name in tensors if part in name))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights .*would stay random"):
        load_encoder(str(folder))


def test_an_encoder_without_patches_is_refused(tmp_path):
    from transformers import BitImageProcessor, ResNetConfig, ResNetModel

    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])).save_pretrained(tmp_path)
    BitImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no square patches: pass a vision transformer"):
        load_encoder(str(tmp_path))


def test_an_encoder_of_one_size_says_which(tmp_path):
    from transformers import Aimv2VisionConfig, Aimv2VisionModel, CLIPImageProcessor

    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    Aimv2VisionModel(Aimv2VisionConfig(**small, patch_size=8, image_size=32)).save_pretrained(tmp_path)
    CLIPImageProcessor(crop_size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path))
    assert extract(encoder, noise_images(1), (32, 32)).shape == (1, 32, 4, 4)
    with pytest.raises(ValueError, match=r"one size only, not \(32, 48\): pass \(32, 32\)"):
        extract(encoder, noise_images(1), (32, 48))


def test_features_that_are_not_finite_are_refused(encoder_folders):
    encoder = load_encoder(encoder_folders("dinov3"))
    with torch.no_grad():
        encoder.model.norm.weight[0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        extract(encoder, noise_images(1), (32, 32))


@pytest.mark.parametrize(("dtype", "stored"), [(torch.float32, torch.float32), (torch.bfloat16, torch.float16)])
def test_features_on_disk_are_those_in_memory_whatever_the_batch(encoder_folders, tmp_path, dtype, stored):
    encoder, images = load_encoder(encoder_folders("dinov3"), dtype=dtype), noise_images(5)
    random_state = torch.random.get_rng_state()
    on_disk = extract(encoder, images, (32, 48), 2, tmp_path / "features.npy")
    assert torch.equal(torch.random.get_rng_state(), random_state)  # the same whether they are in the cache or not
    assert on_disk.dtype == stored and on_disk.shape == (5, 32, 4, 6)
    assert torch.equal(on_disk, extract(encoder, images, (32, 48), 2))
    assert torch.equal(torch.from_numpy(np.load(tmp_path / "features.npy")), on_disk)


def test_the_next_images_are_read_while_the_encoder_computes(encoder_folders):
    class Images(list):
        def __getitem__(self, index):
            read.append((index, threading.get_ident()))
            return super().__getitem__(index)

    encoder, read = load_encoder(encoder_folders("dinov3")), []
    compute, ready = encoder.model.forward, threading.Event()

    def slow(*args, **kwargs):
        for _ in range(1000):
            if ready.wait(0.01) or len(read) >= 4:  # the second batch, while the first one is computed
                ready.set()
                return compute(*args, **kwargs)
        raise AssertionError("nothing is read meanwhile")

    encoder.model.forward = slow
    extract(encoder, Images(noise_images(6)), (32, 32), 2)
    assert [index for index, _ in read] == list(range(6))
    assert threading.get_ident() not in {thread for _, thread in read}


def test_an_image_that_cannot_be_read_is_told(encoder_folders, tmp_path):
    class Images(list):
        def __getitem__(self, index):
            raise OSError(f"image {index} is cut off")

    with pytest.raises(OSError, match="image 0 is cut off"):
        extract_cached(load_encoder(encoder_folders("dinov3")), Images([0, 1]), "data", (32, 32), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_rows_are_written_in_any_order_and_not_through_memory(tmp_path):
    rows = np.arange(60, dtype=np.float32).reshape(5, 3, 4)
    with row_writer(tmp_path / "rows.npy", rows.shape, "float16") as write:
        write(3, rows[3:])
        write(0, torch.from_numpy(rows[:3]).transpose(1, 2).contiguous().transpose(1, 2))
        assert "rows.npy" not in Path("/proc/self/maps").read_text()
    assert np.array_equal(np.load(tmp_path / "rows.npy"), rows.astype(np.float16))
