"""The base encoder of the miniature: a small DINOv3 that was trained on pictures of the world, without any 3D signal.

    python -m experiments.base_encoder --data outputs/world/data --output outputs/base --steps 3000
    python -m experiments.base_encoder --data outputs/world/data --output outputs/base --steps 20 --layers 2 --width 64

What it learns from: see `encoder_objectives.py`, and docs/miniature.md for what was tried.
"""

import argparse
import hashlib
import io
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from tqdm import tqdm
from transformers import DINOv3ViTConfig, DINOv3ViTImageProcessor, DINOv3ViTModel

from experiments.encoder_objectives import OBJECTIVES, Pictures, Pretraining
from experiments.fitting import Optimisation, command, fingerprint, fit, is_made, leave_record, start_weights
from trainers.baselines.self_distillation import TeacherUpdate
from trainers.models import provenance

LEARNING_RATE = 1e-3
RAREST_WORD = 0.01  # share of the training pictures that a word must name something in


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of the encoder.

    Attributes:
        image_size_px, patch_size_px: sides; the pictures of the world are resized to the first.
        width: of the tokens; heads are 32 wide.
        num_layers: of attention.
    """

    image_size_px: int = 64
    patch_size_px: int = 8
    width: int = 192
    num_layers: int = 6

    def config(self) -> DINOv3ViTConfig:
        """As DINOv3 has it, smaller."""
        return DINOv3ViTConfig(
            image_size=self.image_size_px,
            patch_size=self.patch_size_px,
            hidden_size=self.width,
            intermediate_size=4 * self.width,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.width // 32,
            num_register_tokens=4,
            layerscale_value=1.0,
        )


def train_base_encoder(
    world_data: Path,
    folder: Path,
    shape: EncoderShape,
    steps: int,
    batch_size: int,
    seed: int,
    objective: str = "masked_images",
    device: str = "cpu",
    start: Path | None = None,
) -> Path:
    """Train an encoder on the training pictures of a world, or say that it is there already.

    Args:
        world_data: data set with the configurations `dense` (pictures) and `alignment` (names of what they show).
        folder: where a `DINOv3ViTModel`, its image processor and the record `run.json` are saved.
        shape: of the encoder.
        steps, batch_size: of the optimiser.
        seed: of weights and draws.
        objective: a key of `OBJECTIVES`, or several joined by "+".
        device: "cpu" or "cuda".
        start: an encoder of that shape to begin from, in place of random weights.

    Raises:
        ValueError: another objective; data that lack what it needs; a folder that holds another encoder; a start of
            another shape.
    """
    names = objective.split("+")
    for name in names:
        if name not in OBJECTIVES:
            raise ValueError(f"objective={objective!r}: {name!r} is none of {', '.join(OBJECTIVES)}.")
    optimisation = Optimisation(steps, batch_size, LEARNING_RATE, seed, device)
    recipe = {"objective": objective, **asdict(shape), **optimisation._asdict()}
    recipe["data"] = fingerprint(Path(world_data), ("dense", "alignment"))
    recipe |= {"start": provenance(str(start))} if start else {}
    if is_made(Path(folder), recipe):
        return Path(folder)
    rows = read_pictures(Path(world_data), shape.image_size_px)
    side = {"height": shape.image_size_px, "width": shape.image_size_px}
    processor = DINOv3ViTImageProcessor(size=side)
    start_weights(seed)
    encoder = _started(shape, start)
    targets = {name: rows.targets(name) for name in names if name in ("attributes", "depth")}
    model = Pretraining(encoder, Pictures(rows.pixels, targets, processor), names)
    callbacks = [TeacherUpdate()] if "self_distillation" in names else []
    print(f"A base encoder of {encoder.num_parameters():,} parameters learns from {objective}: {folder}")
    course = fit(model, len(rows.pixels), optimisation, callbacks)
    encoder.save_pretrained(folder)
    processor.save_pretrained(folder)
    leave_record(Path(folder), recipe, course, pictures=len(rows.pixels))
    return Path(folder)


def _started(shape: EncoderShape, start: Path | None) -> DINOv3ViTModel:
    if start is None:
        return DINOv3ViTModel(shape.config())
    encoder = DINOv3ViTModel.from_pretrained(start, dtype=torch.float32)
    config = encoder.config
    found = EncoderShape(config.image_size, config.patch_size, config.hidden_size, config.num_hidden_layers)
    if found != shape:
        raise ValueError(f"start={str(start)!r} has the shape {found}, not {shape}: pass the same.")
    return encoder


@dataclass(frozen=True)
class PictureRows:
    """The pictures of a split and what else is known of them.

    Attributes:
        pixels: (N, 3, H, W) uint8.
        dense: rows of the configuration of that name, maps undecoded.
        names: of the objects that each picture shows.
    """

    pixels: torch.Tensor
    dense: Dataset
    names: list[list[str]]

    def vocabulary(self) -> list[str]:
        """The words that are not rare, sorted."""
        spoken = [word for names in self.names for word in {word for name in names for word in name.split()}]
        counts = Counter(spoken)
        return sorted(word for word, count in counts.items() if count >= RAREST_WORD * len(self.names))

    def words(self, vocabulary: list[str]) -> torch.Tensor:
        """(N, A) float32: which words of a vocabulary name something in the picture."""
        spoken = [{word for name in names for word in name.split()} for names in self.names]
        return torch.tensor([[word in words for word in vocabulary] for words in spoken], dtype=torch.float32)

    def head(self, number: int) -> "PictureRows":
        """The first `number` pictures."""
        return PictureRows(
            self.pixels[:number], self.dense.select(range(min(number, len(self.dense)))), self.names[:number]
        )

    def targets(self, objective: str) -> torch.Tensor:
        """What `attributes` or `depth` learns."""
        return self.depth() if objective == "depth" else self.words(self.vocabulary())

    def depth(self) -> torch.Tensor:
        """(N, H, W) float32 metres, nearest pixel; 0 = no reading."""
        return self._maps("depth").float() / 1000

    def classes(self) -> torch.Tensor:
        """(N, H, W) class ids, 255 = ignored."""
        return self._maps("segmentation")

    def _maps(self, column: str) -> torch.Tensor:
        size = tuple(reversed(self.pixels.shape[-2:]))
        maps = [
            Image.open(io.BytesIO(row["bytes"])).resize(size, Image.Resampling.NEAREST) for row in self.dense[column]
        ]
        return torch.from_numpy(np.stack([np.asarray(one, np.int32) for one in maps]))


def read_pictures(data: Path, image_size_px: int, split: str = "train") -> PictureRows:
    """Decode the pictures of a split once.

    Raises:
        ValueError: the data have no such pictures.
    """
    tables = {
        config: sorted(map(str, (data / config).glob(f"{split}-*.parquet"))) for config in ("dense", "alignment")
    }
    if not tables["dense"]:
        raise ValueError(f"world_data={str(data)!r} has no configuration dense: build it with `spatialboost build`.")
    dense = Dataset.from_parquet(tables["dense"])
    for column in ("image", "depth", "segmentation"):
        dense = dense.cast_column(column, ImageFeature(decode=False))
    named = {}
    if tables["alignment"]:
        rows = Dataset.from_parquet(tables["alignment"], columns=["images", "objects"]).with_format("arrow")
        for batch in rows.iter(64):
            for row in batch.to_pylist():
                shown = [one["name"] for one in row["objects"] if not one["is_support"]]
                named[hashlib.sha256(row["images"][0]["bytes"]).digest()] = shown
    pixels, names = [], []
    for row in tqdm(dense, desc=f"{split} pictures", unit="picture"):
        encoded = row["image"]["bytes"]
        picture = Image.open(io.BytesIO(encoded)).convert("RGB")
        if picture.size != (image_size_px, image_size_px):
            picture = picture.resize((image_size_px, image_size_px), Image.Resampling.BICUBIC)
        pixels.append(np.asarray(picture))
        names.append(named.get(hashlib.sha256(encoded).digest(), []))
    return PictureRows(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), dense, names)


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `python -m experiments.base_encoder`."""
    shape = EncoderShape()
    parser = argparse.ArgumentParser(prog="experiments.base_encoder", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="data set of the world")
    parser.add_argument("--output", type=Path, required=True, help="folder for the encoder")
    parser.add_argument("--objective", default="masked_images", help=f"{', '.join(OBJECTIVES)}; or some joined by +")
    parser.add_argument("--image_size", type=int, default=shape.image_size_px, help="side in pixels")
    parser.add_argument("--patch_size", type=int, default=shape.patch_size_px, help="side in pixels")
    parser.add_argument("--width", type=int, default=shape.width, help="of the tokens")
    parser.add_argument("--layers", type=int, default=shape.num_layers)
    parser.add_argument("--start", type=Path, help="an encoder of that shape to begin from (default: random weights)")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0."""
    given: Any = make_parser().parse_args(argv)
    shape = EncoderShape(given.image_size, given.patch_size, given.width, given.layers)
    words = (given.steps, given.batch_size, given.seed, given.objective, given.device, given.start)
    train_base_encoder(given.data, given.output, shape, *words)
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
