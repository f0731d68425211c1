"""Give an encoder its second attention channel: `spatialboost boost`.

    spatialboost boost facebook/dinov3-vitl16-pretrain-lvd1689m --output outputs/dinov3-vitl16-boosted
    spatialboost boost FOLDER --output outputs/boosted --boosted_layers 2 3      # CPU-sized with any small encoder
    spatialboost boost facebook/dinov3-vitl16-pretrain-lvd1689m --adapter outputs/adapter --output outputs/trained

The output of the boosted encoder equals the original's until its second channel is trained. `--adapter` puts a trained
one on, which `model.save_adapter` wrote.
"""

import argparse
import sys
from pathlib import Path


def make_parser() -> argparse.ArgumentParser:
    """The parser of `spatialboost boost`."""
    parser = argparse.ArgumentParser(prog="spatialboost boost", description="Give an encoder its second channel.")
    parser.add_argument("encoder", help="id or folder of a vision encoder")
    parser.add_argument("--output", required=True, type=Path, help="folder for the boosted encoder")
    parser.add_argument("--boosted_layers", type=int, nargs="+", help="attention layers to boost (default: all)")
    parser.add_argument("--adapter", help="id or folder of a trained second channel (default: a new one)")
    parser.add_argument("--image_size", type=int, help="side of the input images in pixels (default: the encoder's)")
    parser.add_argument("--revision", help="revision of the encoder's Hub repository")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0.

    Raises:
        ValueError: no such encoder, one that cannot be boosted, or an adapter that is another encoder's.
    """
    arguments = make_parser().parse_args(argv)
    from modeling_spatialboost import SpatialBoostImageProcessor, SpatialBoostModel  # not for --help

    encoder, layers, revision = arguments.encoder, arguments.boosted_layers, arguments.revision
    if arguments.adapter is None:
        model = SpatialBoostModel.from_encoder(encoder, layers, revision)
    elif layers is None:
        model = SpatialBoostModel.from_adapter(arguments.adapter, encoder, base_revision=revision)
    else:
        raise ValueError(f"--boosted_layers {layers}: an adapter brings its own layers; remove one of both arguments.")
    processor = SpatialBoostImageProcessor.from_encoder(encoder, arguments.image_size, revision)
    processor.save_pretrained(arguments.output)
    model.save_pretrained(arguments.output)
    new = sum(p.numel() for p in model.freeze_base_channel().parameters() if p.requires_grad)
    count, total = len(model.alpha_table()), model.num_parameters()
    print(f"{arguments.output}: {count} layers boosted, {new:,} of {total:,} parameters are new and trainable")
    return 0


if __name__ == "__main__":
    sys.exit(main())
