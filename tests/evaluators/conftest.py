"""A tiny `dense` data set of coloured rectangles and tiny random encoders, saved as folders."""

import io
import json

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

SIZE_PX = 32
COLOURS = np.array([[40, 40, 40], [230, 60, 60], [60, 220, 60], [60, 80, 240]])  # by class id
DEPTHS_MM = np.array([4000, 1000, 2000, 3000])
CLASS_NAMES = ["wall", "red", "green", "blue"]
CARD = """---
configs:
- config_name: dense
  data_files:
  - split: train
    path: dense/train-*.parquet
  - split: test
    path: dense/test-*.parquet
---
"""


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def make_row(seed):
    """Rectangles on a wall; class and depth follow the colour, so that a probe can learn both."""
    random = np.random.default_rng(seed)
    classes = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    for _ in range(3):
        top, left = random.integers(0, 3, 2) * 8
        height, width = random.integers(1, 3, 2) * 8
        classes[top : top + height, left : left + width] = random.integers(1, 4)
    image = (COLOURS[classes] + random.normal(0, 4, (SIZE_PX, SIZE_PX, 3))).clip(0, 255).astype(np.uint8)
    depth = DEPTHS_MM[classes].astype(np.uint16)
    segmentation = classes.copy()
    depth[0, :4], segmentation[0, 4:8] = 0, 255  # no reading; ignored
    return {"image": png(image), "depth": png(depth), "segmentation": png(segmentation), "id": f"room_{seed}"}


def write_dense(folder, train, test, class_names=CLASS_NAMES):
    features = Features(
        {"image": ImageFeature(), "depth": ImageFeature(), "segmentation": ImageFeature(), "id": Value("string")}
    )
    (folder / "dense").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    if class_names is not None:
        (folder / "classes.json").write_text(json.dumps(class_names))
    for split, rows in (("train", train), ("test", test)):
        columns = {
            name: [row[name] if name == "id" else {"bytes": row[name], "path": None} for row in rows]
            for name in features
        }
        Dataset.from_dict(columns, features=features).to_parquet(folder / "dense" / f"{split}-00000.parquet")
    return folder


@pytest.fixture(autouse=True)
def one_thread(_deterministic):
    torch.set_num_threads(1)  # threads that wait for a busy core make tiny steps a hundred times slower


@pytest.fixture(scope="session")
def dense_folder(tmp_path_factory):
    rows = [make_row(seed) for seed in range(32)]
    return write_dense(tmp_path_factory.mktemp("dense_data") / "rooms", rows[:24], rows[24:])


def save_encoder(folder, kind, seed=0):
    """Save a tiny random encoder and its image processor; return the folder as a string."""
    import transformers as hf

    torch.manual_seed(seed)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    tower = {**small, "patch_size": 8, "image_size": 32}
    text = {**small, "vocab_size": 32}
    processors = {
        "dinov3": hf.DINOv3ViTImageProcessor,
        "dinov2": hf.BitImageProcessor,
        "clip": hf.CLIPImageProcessor,
        "clip_tower": hf.CLIPImageProcessor,
        "siglip": hf.SiglipImageProcessor,
        "siglip2": hf.Siglip2ImageProcessor,
        "vit": hf.ViTImageProcessor,
    }
    models = {
        "dinov3": lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**tower)),
        "dinov2": lambda: hf.Dinov2Model(
            hf.Dinov2Config(**{k: v for k, v in tower.items() if k != "intermediate_size"}, mlp_ratio=2)
        ),
        "clip": lambda: hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=tower)),
        "clip_tower": lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**tower)),
        "siglip": lambda: hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=tower)),
        "siglip2": lambda: hf.Siglip2VisionModel(hf.Siglip2VisionConfig(**small, patch_size=8, num_patches=16)),
        "vit": lambda: hf.ViTModel(hf.ViTConfig(**tower)),
    }
    size = {} if kind == "siglip2" else {"size": {"height": 32, "width": 32}}
    crop = {"crop_size": {"height": 32, "width": 32}} if kind in ("dinov2", "clip", "clip_tower") else {}
    models[kind]().save_pretrained(folder)
    processors[kind](**size, **crop).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def encoder_folders(tmp_path_factory):
    """Return a function kind -> folder of a tiny encoder, made once."""
    made = {}

    def get(kind, seed=0):
        if (kind, seed) not in made:
            made[kind, seed] = save_encoder(tmp_path_factory.mktemp(f"{kind}_{seed}") / "encoder", kind, seed)
        return made[kind, seed]

    return get


@pytest.fixture(scope="session")
def damaged_encoder(encoder_folders, tmp_path_factory):
    """The folder of the encoder "dinov3" with all channels but one lost in its final norm."""
    import shutil

    from transformers import AutoModel

    folder = tmp_path_factory.mktemp("damaged") / "encoder"
    shutil.copytree(encoder_folders("dinov3"), folder)
    model = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        model.norm.weight[1:] = 0
    model.save_pretrained(folder)
    return str(folder)
