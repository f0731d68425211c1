"""A tiny bundle, made once, and the Space that serves it in this process."""

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the Space needs gradio: pip install 'spatialboost[space]'")

import torch
from transformers import AutoTokenizer

import modeling_spatialboost as sb
from dataset_builders import build as dataset_build
from experiments.tiny_models import save_tiny_encoder, save_tiny_language_model

SPACE = Path(__file__).resolve().parents[2] / "space_app"
sys.path.insert(0, str(SPACE))

EXAMPLE = Path(__file__).with_name("room.png")  # 480 x 360, not square


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """FOLDER/vlm, depth_base, depth_boosted and data, with random weights."""
    root = tmp_path_factory.mktemp("bundle")
    torch.manual_seed(0)
    encoder = save_tiny_encoder(root / "encoder", image_size=32, hidden_size=32, num_layers=2)
    texts = ["What is the depth at the point (0.310, 0.520)? It is 1.234 m."] * 4
    language_model = save_tiny_language_model(root / "language_model", texts, hidden_size=32)
    image_processor = sb.SpatialBoostImageProcessor.from_encoder(str(encoder))
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    processor = sb.SpatialBoostProcessor.from_components(image_processor, tokenizer, patch_size=8)
    vlm = sb.SpatialBoostForConditionalGeneration.from_components(str(encoder), str(language_model), processor)
    parts = {
        "vlm": (vlm, processor),
        "depth_base": (sb.SpatialBoostForDepthEstimation.from_encoder(str(encoder), []), image_processor),
        "depth_boosted": (sb.SpatialBoostForDepthEstimation.from_encoder(str(encoder)), image_processor),
    }
    for name, (model, own_processor) in parts.items():
        model.save_pretrained(root / name)
        own_processor.save_pretrained(root / name)
    rooms = ["--source", "synthetic", "--num-scenes", "3", "--resolution", "64", "--output", str(root / "data")]
    assert dataset_build.main(rooms) == 0
    return root


@pytest.fixture(scope="session")
def settings(bundle):
    """The Space's settings for the bundle; figures are small, so that limits can be met."""
    values = {
        "SPATIALBOOST_BUNDLE": str(bundle),
        "SPATIALBOOST_MAX_ANSWER_TOKENS": "12",
        "SPATIALBOOST_MAX_TURNS": "4",
        "SPATIALBOOST_MAX_IMAGES": "3",
        "SPATIALBOOST_MAX_QUESTION_CHARACTERS": "300",
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    from spatialboost_space.settings import limits

    limits.cache_clear()
    yield limits()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    limits.cache_clear()


@pytest.fixture(scope="session")
def served(settings, tmp_path_factory):
    """The Space, serving: its page and its address."""
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("uploads"))
    import app
    from PIL import Image

    most = Image.MAX_IMAGE_PIXELS
    page = app.build()
    _, address, _ = app.launch(page, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", server_port=None)
    yield page, address
    page.close(verbose=False)
    Image.MAX_IMAGE_PIXELS = most


@pytest.fixture(scope="session")
def url(served):
    return served[1]


@pytest.fixture(scope="session")
def client(url):
    from gradio_client import Client

    return Client(url, verbose=False)
