"""The control without any training: an encoder's architecture with fresh weights."""

import copy
import dataclasses

import torch

from evaluators.encoders import Encoder


def randomised(encoder: Encoder, seed: int = 1000) -> Encoder:
    """Return the encoder's architecture with the weights it would have before any training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = type(encoder.model)(copy.deepcopy(encoder.model.config))
    model = model.to(encoder.device, encoder.dtype).requires_grad_(False).eval()
    return dataclasses.replace(
        encoder,
        name=f"random {encoder.name}",
        model=model,
        weights_hash=f"random-{seed}-{encoder.weights_hash}",
        weights_files="",
    )
