"""What a policy sees: an encoder's feature of the picture, or a control in its place."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from evaluators.array_cache import cached_array, cached_value
from evaluators.encoders import Encoder
from evaluators.random_encoder import randomised

GREY_SIDE_PX = 16
BATCH_SIZE = 32


class Pictured(Protocol):
    """N steps with a picture and a state each: `Demonstrations`, or whatever looks like them."""

    @property
    def states(self) -> np.ndarray:
        """(N, S)."""

    @property
    def fingerprint(self) -> str:
        """Of the content."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, index: int) -> Image.Image:
        """The picture of a step."""


@dataclass(frozen=True)
class PolicyInput:
    """Where the embedding of a step comes from: its picture, its state, or nothing at all.

    Attributes:
        of_pictures: B PIL images -> float32 (B, D); None where the picture is not looked at.
        sees_state: without pictures, whether the embedding is the whole state, or a constant.
        cache_key: stands for what `of_pictures` computes.
        control_key: of a control, what its scores are kept under.
    """

    of_pictures: Callable[[list[Image.Image]], torch.Tensor] | None = None
    sees_state: bool = False
    cache_key: str = ""
    control_key: str = ""

    def of_steps(self, pictures: list[Image.Image], states: np.ndarray) -> torch.Tensor:
        """Return float32 (B, D) for the pictures and states (B, S) of B steps."""
        if self.of_pictures is not None:
            return self.of_pictures(pictures)
        return torch.from_numpy(states) if self.sees_state else torch.zeros(len(states), 1)

    def of_demonstrations(self, demonstrations: Pictured, cache_dir: Path) -> torch.Tensor:
        """Return (N, D); pictures are embedded once and the result is kept in `cache_dir`."""
        if self.of_pictures is None:
            return self.of_steps([], demonstrations.states)
        embed, count = self.of_pictures, len(demonstrations)

        def make(file: Path) -> None:
            array = np.lib.format.open_memmap(file, "w+", np.float32, (count, embed([demonstrations[0]]).shape[1]))
            for start in tqdm(range(0, count, BATCH_SIZE), desc="features of demonstrations", unit="batch"):
                pictures = [demonstrations[index] for index in range(start, min(start + BATCH_SIZE, count))]
                array[start : start + len(pictures)] = embed(pictures).numpy()

        return cached_array(cache_dir, f"image feature {self.cache_key} {demonstrations.fingerprint}", make)


def encoder_input(encoder: Encoder, resolution: tuple[int, int]) -> PolicyInput:
    """See through an encoder: `Encoder.image_features` of the picture resized to (height, width)."""

    def embed(pictures: list[Image.Image]) -> torch.Tensor:
        pixel_values = torch.stack([encoder.preprocessing(picture, resolution) for picture in pictures])
        return encoder.image_features(pixel_values).float().cpu()

    key = f"{encoder.weights_hash} {encoder.dtype} {resolution} {encoder.preprocessing}"
    return PolicyInput(embed, cache_key=key)


def control_inputs(encoder: Encoder, resolution: tuple[int, int]) -> dict[str, PolicyInput]:
    """What frames the encoders' scores, by name.

    `state` is an upper bound, `proprioception` sees no picture; `grey_pixels` and `random_encoder` tell how far a
    task can be solved without any learnt feature.
    """
    # one random encoder serves base and boosted, which have the patches and the width in common
    architecture = f"random {encoder.patch_size_px} {encoder.hidden_size} {resolution}"
    random_encoder = encoder_input(randomised(encoder), resolution)
    return {
        "state": PolicyInput(sees_state=True, control_key="state"),
        "proprioception": PolicyInput(control_key="proprioception"),
        "grey_pixels": PolicyInput(_grey_pixels, cache_key=f"grey {GREY_SIDE_PX}", control_key="grey pixels"),
        "random_encoder": dataclasses.replace(random_encoder, control_key=architecture),
    }


def cached_items(cache_dir: Path, key: list[Any], measure: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the items of a control, measured once for both encoders."""
    return cached_value(cache_dir, f"robot control {json.dumps(key)}", measure).numpy()


def _grey_pixels(pictures: list[Image.Image]) -> torch.Tensor:
    small = [
        picture.convert("L").resize((GREY_SIDE_PX, GREY_SIDE_PX), Image.Resampling.BOX).tobytes()
        for picture in pictures
    ]
    pixels = np.frombuffer(b"".join(small), np.uint8).reshape(len(small), -1)
    return torch.from_numpy(pixels.astype(np.float32) / 255)
