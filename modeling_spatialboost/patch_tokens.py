"""Patch grids and patch tokens, where encoders differ in how they lay them out."""

import torch


def as_pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a size that may be given as one number."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def to_map(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """(B, N, C) tokens -> (B, C, h, w): patch tokens come last in every encoder, behind [CLS] and registers."""
    height, width = grid
    return tokens[:, tokens.shape[1] - height * width :].transpose(1, 2).unflatten(2, (height, width))


def shuffled_grid(image_size: tuple[int, int], patch_size: tuple[int, int], factor: int) -> tuple[int, int]:
    """(h, w) of an image's tokens when each block of `factor` x `factor` patches becomes one token.

    Args:
        image_size, patch_size: height and width in pixels.
        factor: of the pixel shuffle; 1 = one token a patch.

    Raises:
        ValueError: the patch grid cannot be divided into such blocks.
    """
    height, width = (side // patch for side, patch in zip(image_size, patch_size))
    if height % factor or width % factor:
        sides = " and ".join(f"{patch * factor}" for patch in dict.fromkeys(patch_size))
        raise ValueError(
            f"projector_shuffle={factor}: an image of {image_size[0]} x {image_size[1]} pixels in patches of "
            f"{patch_size[0]} x {patch_size[1]} is a grid of {height} x {width}, which blocks of {factor} x {factor} "
            f"do not fill: choose an image_size that is a multiple of {sides} pixels, or projector_shuffle=1."
        )
    return height // factor, width // factor


def pixel_shuffle(tokens: torch.Tensor, grid: tuple[int, int], factor: int) -> torch.Tensor:
    """Fold each block of `factor` x `factor` patch tokens into one: (B, h * w, C) -> (B, h * w / f^2, f^2 * C).

    Blocks come row by row, and so do the tokens of a block, whose channels are laid side by side.
    """
    blocks = tokens.unflatten(1, (grid[0] // factor, factor, grid[1] // factor, factor))
    return blocks.transpose(2, 3).flatten(3).flatten(1, 2)


def patchify(images: torch.Tensor, patch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """SigLIP 2 naflex's input: (B, 3, H, W) -> (B, h * w, p * p * 3) patches and (B, 2) grids."""
    height, width = images.shape[-2] // patch_size, images.shape[-1] // patch_size
    images = images[..., : height * patch_size, : width * patch_size]
    patches = images.unflatten(-1, (width, patch_size)).unflatten(-3, (height, patch_size))  # (B, 3, h, p, w, p)
    patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    return patches, torch.tensor([[height, width]] * len(images), device=images.device)
