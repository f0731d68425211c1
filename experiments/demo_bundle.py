"""What the Space shows, in one folder: a vision-language model, two depth models and a data set.

The depth models are the base and the boosted encoder, each with a linear head that is trained here on the data's
`dense` configuration by the protocol of the depth probe, saved so that `AutoModelForDepthEstimation` loads them.

    python -m experiments.demo_bundle --base outputs/quickstart/encoder --boosted outputs/quickstart/stage3/encoder \
        --vlm outputs/quickstart/stage3 --data outputs/quickstart/data --output outputs/demo     # a minute on a CPU
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoConfig

from evaluators.dense_data import DenseSplit, load_dense
from evaluators.depth import FIT_PRESETS
from evaluators.heads import FitConfig, LinearDepthHead, SigLoss, fit_head
from modeling_spatialboost import SpatialBoostConfig, SpatialBoostForDepthEstimation, SpatialBoostImageProcessor

MIN_DEPTH_M, MAX_DEPTH_M = 1e-3, 10.0
LEFT_OUT = ("checkpoint-*", "encoder", "report.html", "trainer_state.json", "optimizer.pt", "*.bin", "logs")


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `python -m experiments.demo_bundle`."""
    parser = argparse.ArgumentParser(prog="python -m experiments.demo_bundle", description=__doc__.split("\n")[0])
    parser.add_argument("--base", required=True, help="folder or Hub id of the base encoder")
    parser.add_argument("--boosted", required=True, help="folder or Hub id of the boosted encoder")
    parser.add_argument("--vlm", type=Path, help="folder of a vision-language model; without it the Space cannot chat")
    parser.add_argument("--data", required=True, help="data set with the configuration `dense` to train the heads on")
    parser.add_argument("--steps", type=int, help="of each depth head (default: those of the probe's cpu preset)")
    parser.add_argument("--limit", type=int, help="of training images (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the heads")
    parser.add_argument("--device", default="cpu", help="where the heads train")
    parser.add_argument("--output", type=Path, required=True, help="folder of the bundle")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Make the parts of a bundle; those that are there are kept."""
    arguments = make_parser().parse_args(argv)
    fit = FIT_PRESETS["cpu"]
    if arguments.steps is not None:
        fit = FitConfig(**{**vars(fit), "steps": arguments.steps, "warmup_steps": max(1, arguments.steps // 3)})
    train = load_dense(arguments.data, arguments.limit).train
    for name, encoder in (("depth_base", arguments.base), ("depth_boosted", arguments.boosted)):
        if (arguments.output / name).is_dir():
            print(f"Reusing {arguments.output / name}")
        else:
            train_depth_model(encoder, train, arguments.output / name, fit, arguments.seed, arguments.device)
    if arguments.vlm is not None:
        _copy(arguments.vlm, arguments.output / "vlm")
    if Path(arguments.data).is_dir():
        _copy(Path(arguments.data), arguments.output / "data", also=("dense",))
    print(f"spatialboost demo --bundle {arguments.output}")
    return 0


def train_depth_model(
    encoder: str, train: DenseSplit, folder: Path, fit: FitConfig, seed: int = 0, device: str = "cpu"
) -> Path:
    """Train a linear depth head on a frozen encoder and save both as one depth model.

    Args:
        encoder: folder or Hub id, boosted or plain; a plain one gets no second channel.
        train: images with depth.
        folder: of the depth model, written at once when it is trained.
        fit: the optimisation.
        seed: of the head.
        device: where it trains.

    Raises:
        ValueError: no such encoder.
    """
    model, processor = _load(encoder)
    model = model.to(device)

    @torch.inference_mode()
    def features_of(index: int) -> torch.Tensor:
        pixels = processor(train[index], return_tensors="pt")["pixel_values"].to(device)
        return model.patch_features(pixels)[0][0].float().cpu()

    features = torch.stack([features_of(index) for index in tqdm(range(len(train)), desc=f"features of {encoder}")])
    size = processor.size["height"], processor.size["width"]
    targets = train.training_targets("depth", size, Path(f"{folder}.cache"))
    head = fit_head(
        lambda: LinearDepthHead(features.shape[1], model.config.depth_bins, MIN_DEPTH_M, MAX_DEPTH_M),
        features,
        targets,
        SigLoss(MIN_DEPTH_M, MAX_DEPTH_M, fit.warmup_steps),
        fit,
        seed,
        device,
    )
    model.depth_head.load_state_dict(head.state_dict())
    partial = folder.with_name(f"{folder.name}.partial")
    for part in (model, processor):
        part.save_pretrained(partial)
    partial.rename(folder)
    shutil.rmtree(f"{folder}.cache", ignore_errors=True)
    return folder


def _load(encoder: str) -> tuple[SpatialBoostForDepthEstimation, SpatialBoostImageProcessor]:
    """An encoder with a new depth head, and its image processor."""
    is_boosted = AutoConfig.from_pretrained(encoder).model_type == SpatialBoostConfig.model_type
    span: dict[str, Any] = {"min_depth_m": MIN_DEPTH_M, "max_depth_m": MAX_DEPTH_M}
    if is_boosted:
        model = SpatialBoostForDepthEstimation.from_pretrained(encoder, dtype=torch.float32, **span)
        return model.eval(), SpatialBoostImageProcessor.from_pretrained(encoder)
    model = SpatialBoostForDepthEstimation.from_encoder(encoder, [], dtype=torch.float32, **span)
    return model.eval(), SpatialBoostImageProcessor.from_encoder(encoder)


def _copy(source: Path, target: Path, also: tuple[str, ...] = ()) -> None:
    """A copy of a folder without what training leaves behind and the parts named in `also`."""
    if not target.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*LEFT_OUT, *also))


if __name__ == "__main__":
    raise SystemExit(main())
