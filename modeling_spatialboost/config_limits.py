"""Sizes that a configuration may ask for: a config.json from a stranger gets an error before memory is taken."""

import math
from typing import Any

# Far beyond every published model, far below what stops a machine
LARGEST = {
    "hidden_size": 65_536,
    "intermediate_size": 1_048_576,
    "num_hidden_layers": 1024,
    "num_attention_heads": 4096,
    "num_key_value_heads": 4096,
    "head_dim": 65_536,
    "patch_size": 1024,
    "image_size": 65_536,
    "num_channels": 1024,
    "num_register_tokens": 4096,
    "num_labels": 1_000_000,
    "num_patches": 1_000_000,
    "vocab_size": 10_000_000,
    "max_position_embeddings": 1_000_000_000,
    "num_experts": 4096,
    "num_local_experts": 4096,
    "depth_bins": 65_536,
    "projector_shuffle": 64,
}
LARGEST_IMAGE_SIDE_PX = 8192  # of what an image processor resizes to
# The last two have checks of their own, which say more
MAY_BE_ZERO = ("num_register_tokens", "num_labels", "num_experts", "num_local_experts", "depth_bins",
               "projector_shuffle")  # fmt: skip
LISTS = ("boosted_layers", "out_indices", "out_features")
LONGEST_LIST = 1025  # all layers and the embeddings
MOST_PARAMETERS = 10**13
MOST_POSITIONS = 1_000_000  # of the patches of one image


def check_sizes(settings: Any, part: str) -> None:
    """Check the sizes of one part of a model, before anything is built from them.

    Args:
        settings: a dictionary as config.json holds it, a configuration, or None for the part's defaults.
        part: its name, for the message.

    Raises:
        ValueError: a size that is no whole number, below 1 or beyond `LARGEST`, or that is too much together with the
            others.
    """
    values = settings if isinstance(settings, dict) else {} if settings is None else vars(settings)
    sizes: dict[str, int] = {}
    for name, largest in LARGEST.items():
        numbers = values.get(name)
        for number in numbers if isinstance(numbers, (list, tuple)) else [numbers]:
            smallest = 0 if name in MAY_BE_ZERO else 1
            if number is None:
                continue
            if not isinstance(number, int) or not smallest <= number <= largest:
                raise ValueError(
                    f"{part}: {name}={repr(numbers)[:60]} is not {smallest} to {largest:,}: this "
                    "configuration is damaged."
                )
            sizes[name] = max(number, sizes.get(name, 0)) if name == "image_size" else number
    for name in LISTS:
        if isinstance(values.get(name), (list, tuple)) and len(values[name]) > LONGEST_LIST:
            raise ValueError(f"{part}: {name} has {len(values[name]):,} entries: this configuration is damaged.")
    _check_together(sizes, part)


def _check_together(sizes: dict[str, int], part: str) -> None:
    """Raise ValueError where sizes that are fine alone give a model or an image that no machine holds."""
    width = sizes.get("hidden_size", 1)
    experts = max(sizes.get("num_experts", 1), sizes.get("num_local_experts", 1), 1)
    layer = 4 * width**2 + 3 * width * sizes.get("intermediate_size", width) * experts
    parameters = sizes.get("num_hidden_layers", 1) * layer + sizes.get("vocab_size", 0) * width
    if parameters > MOST_PARAMETERS:
        raise ValueError(f"{part}: about {parameters:,} parameters: this configuration is damaged.")
    positions = (sizes.get("image_size", 0) // sizes.get("patch_size", 16)) ** 2
    if positions > MOST_POSITIONS:
        raise ValueError(f"{part}: {positions:,} patches in an image: this configuration is damaged.")


def check_number(part: str, name: str, value: Any, smallest: float, largest: float) -> None:
    """Raise ValueError unless `value` is a number from `smallest` to `largest`; NaN is none."""
    if not isinstance(value, (int, float)) or not math.isfinite(value) or not smallest <= value <= largest:
        raise ValueError(f"{part}: {name}={repr(value)[:60]}: give a number from {smallest:g} to {largest:g}.")
