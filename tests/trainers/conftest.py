"""Tiny encoder, language model and data set on disk, and the three stages run once through the command."""

import os

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PillowImage

FEATURES = Features(
    {
        "images": List(Image()),
        "messages": List(
            {"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})}
        ),
        "id": Value("string"),
        "source": Value("string"),
    }
)
QUESTION = "What is the depth value at coordinate (0.{}1, 0.520) in image {}?"
ANSWER = "The depth is 1.{}34 m."


def image(seed: int, width: int = 40, height: int = 32) -> PillowImage.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PillowImage.fromarray(pixels)


def part(kind: str, text: str | None = None) -> dict[str, str | None]:
    return {"type": kind, "text": text}


def row(index: int, num_images: int) -> dict[str, Any]:
    """A three-turn conversation about `num_images` images."""
    messages = []
    for turn in range(3):
        views = [part("image")] * num_images if turn == 0 else []
        question = part("text", QUESTION.format((index + turn) % 10, 1 + turn % num_images))
        messages.append({"role": "user", "content": [*views, question]})
        messages.append({"role": "assistant", "content": [part("text", ANSWER.format((index + turn) % 10))]})
    images = [image(100 * index + view) for view in range(num_images)]
    return {"images": images, "messages": messages, "id": f"scene_{index}", "source": "test"}


def save_data(folder: Path, **configs: list[dict[str, Any]]) -> Path:
    """A data folder as the builders write it: Parquet per config, and a README that declares them."""
    lines = ["---", "configs:"]
    for name, rows in configs.items():
        (folder / name).mkdir(parents=True)
        Dataset.from_list(rows, features=FEATURES).to_parquet(folder / name / "train-00000-of-00001.parquet")
        lines += [f"- config_name: {name}", "  data_files:", "  - split: train", f"    path: {name}/train-*.parquet"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return folder


@pytest.fixture(autouse=True)
def one_thread(_deterministic):
    torch.set_num_threads(1)  # faster than two for models this small


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    single = [row(index, 1) for index in range(8)]
    multi = [row(10 + index, 2 + index % 2) for index in range(4)]
    return save_data(folder, single_view=single, multi_view=multi)


@pytest.fixture(scope="session")
def rooms(tmp_path_factory) -> Path:
    """Synthetic rooms as `spatialboost build` writes them: conversations with masks and cameras, and dense maps."""
    from tests.commands import build

    folder = tmp_path_factory.mktemp("rooms") / "data"
    argv = ["--source", "synthetic", "--num-scenes", "4", "--resolution", "64", "--allow-partial"]
    assert build([*argv, "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Path:
    from experiments.tiny_models import save_tiny_encoder

    folder = tmp_path_factory.mktemp("encoder")
    return save_tiny_encoder(folder, image_size=32, patch_size=8, hidden_size=32, num_layers=2)


@pytest.fixture(scope="session")
def language_model(tmp_path_factory) -> Path:
    from experiments.tiny_models import save_tiny_language_model

    texts = [QUESTION.format(3, 1), ANSWER.format(2), "user assistant"]
    return save_tiny_language_model(tmp_path_factory.mktemp("lm"), texts, 400, hidden_size=32, num_layers=2)


def common(data: Path, output_dir: Path, **overrides: Any) -> list[str]:
    """Arguments of a short run on both configs; batches mix one, two and three images."""
    settings = {
        "output_dir": output_dir,
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "save_strategy": "no",
        "activation_checkpointing": "false",
        "dataloader_pin_memory": "false",
        "disable_tqdm": "true",
        "report_to": "none",
        **overrides,
    }
    argv = ["--datasets", f"{data}:single_view", f"{data}:multi_view"]
    return argv + [text for key, value in settings.items() for text in (f"--{key}", str(value))]


@pytest.fixture(scope="session")
def runs(tmp_path_factory, data, encoder, language_model) -> dict[int, Path]:
    """Output folders of the three stages, each continuing from the one before."""
    from tests.commands import train as main

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("runs")
    folders = {stage: root / f"stage{stage}" for stage in (1, 2, 3)}
    start = ["--encoder", str(encoder), "--language_model", str(language_model)]
    assert main(["--stage", "1", *start, *common(data, folders[1])]) == 0
    assert main(["--stage", "2", "--model", str(folders[1]), *common(data, folders[2])]) == 0
    alpha = {"alpha_learning_rate": 0.05}
    assert main(["--stage", "3", "--model", str(folders[2]), *common(data, folders[3], **alpha)]) == 0
    return folders
