"""Patch grids and patch tokens, where encoders differ in how they lay them out."""

import torch


def as_pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a size that may be given as one number."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def to_map(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """(B, N, C) tokens -> (B, C, h, w): patch tokens come last in every encoder, behind [CLS] and registers."""
    height, width = grid
    return tokens[:, tokens.shape[1] - height * width :].transpose(1, 2).unflatten(2, (height, width))


def patchify(images: torch.Tensor, patch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """SigLIP 2 naflex's input: (B, 3, H, W) -> (B, h * w, p * p * 3) patches and (B, 2) grids."""
    height, width = images.shape[-2] // patch_size, images.shape[-1] // patch_size
    images = images[..., : height * patch_size, : width * patch_size]
    patches = images.unflatten(-1, (width, patch_size)).unflatten(-3, (height, patch_size))  # (B, 3, h, p, w, p)
    patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    return patches, torch.tensor([[height, width]] * len(images), device=images.device)
