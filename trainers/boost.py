"""Give an encoder its second attention channel: `spatialboost boost`.

spatialboost boost facebook/dinov3-vitl16-pretrain-lvd1689m --output out/dinov3-boosted
spatialboost boost outputs/quickstart/encoder --output outputs/boosted --layers 2 3    # CPU-sized
"""

import argparse

import torch

from modeling_spatialboost import SpatialBoostImageProcessor, SpatialBoostModel
from modeling_spatialboost.dual_channel_attention import is_second_channel


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `spatialboost boost`."""
    parser = argparse.ArgumentParser(prog="spatialboost boost", description=__doc__.split("\n")[0])
    parser.add_argument("encoder", help="Hub id or folder of a pre-trained encoder")
    parser.add_argument("--output", required=True, help="folder for the boosted encoder and its image processor")
    parser.add_argument("--layers", type=int, nargs="*", help="attention layers to boost; default: all")
    parser.add_argument("--image-size", type=int, help="side in pixels that images are resized to; default: its own")
    parser.add_argument("--revision", help="revision of the Hub repository")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    return parser


def main(argv: list[str] | None = None) -> int:
    """Boost, check that the frozen channel is the original's, save.

    Raises:
        ValueError: no such encoder, or one that cannot be boosted.
    """
    arguments = make_parser().parse_args(argv)
    dtype = arguments.dtype if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    model = SpatialBoostModel.from_encoder(arguments.encoder, arguments.layers, arguments.revision, dtype)
    processor = SpatialBoostImageProcessor.from_encoder(arguments.encoder, arguments.image_size, arguments.revision)
    model.save_pretrained(arguments.output)
    processor.save_pretrained(arguments.output)
    added = sum(p.numel() for name, p in model.named_parameters() if is_second_channel(name))
    total = sum(p.numel() for p in model.parameters())
    print(
        f"{arguments.output}: {len(model.alpha_table())} of {model.config.num_hidden_layers} layers boosted, "
        f"{added:,} parameters added to {total - added:,} ({added / (total - added):.1%})"
    )
    return 0
