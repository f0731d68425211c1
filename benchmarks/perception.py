"""Speed of the perception models on a GPU: Depth Pro and SAM at full size, with random weights, by batch size.

python -m benchmarks.perception                # minutes, on a GPU; prints a table
python -m benchmarks.perception --smallest     # seconds, on a CPU: the same path with tiny models

Random weights take the time of trained ones, but SAM's filters then leave no mask of its grid of points, so that the
row "everything" lacks the enlarging of about a hundred masks an image.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset_builders.perception import PerceptionOptions, open_model
from dataset_builders.perception.loading import choose_device
from dataset_builders.perception.stubs import StubDetector

IMAGE_SIZE = (1024, 1536)
# of the released checkpoints: apple/DepthPro-hf (three ViT-L/16) and facebook/sam-vit-huge
DEPTH_PRO = {
    "encoder": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 16},
    "config": {},
    "side_px": 1536,
}
SAM = {
    "vision": {"hidden_size": 1280, "mlp_dim": 5120, "num_hidden_layers": 32, "num_attention_heads": 16},
    "global_attention": [7, 15, 23, 31],
    "prompts": {},
    "decoder": {},
    "side_px": 1024,
}
SMALLEST_DEPTH_PRO = {
    "encoder": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8},
    "config": {
        "patch_size": 32,
        "fusion_hidden_size": 16,
        "intermediate_hook_ids": [1, 0],
        "intermediate_feature_dims": [16, 16],
        "scaled_images_feature_dims": [16, 16, 16],
        "merge_padding_value": 1,
    },
    "side_px": 128,
}
SMALLEST_SAM = {
    "vision": {
        "hidden_size": 16,
        "mlp_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "output_channels": 16,
        "num_pos_feats": 8,
    },
    "global_attention": [1],
    "prompts": {"hidden_size": 16},
    "decoder": {"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    "side_px": 64,
}


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.perception", description=__doc__.split("\n")[0])
    parser.add_argument("--smallest", action="store_true", help="tiny models and images, to see that it runs")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=None, help="default: 1 2 4 8 16; --smallest: 1 2"
    )
    parser.add_argument("--images", type=int, default=None, help="images per measurement (default 64; --smallest: 4)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--dtype", default="auto", help="auto, float16, bfloat16, float32")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    arguments = make_parser().parse_args(argv)
    device = choose_device(arguments.device)
    image_size = (48, 64) if arguments.smallest else IMAGE_SIZE
    count = arguments.images or (4 if arguments.smallest else 64)
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (*image_size, 3), dtype=np.uint8) for _ in range(count)]
    print(f"{_machine(device)}; {count} images of {image_size[0]}x{image_size[1]} pixels\n")
    print("| model | asked for | batch | images/s | GPU busy | peak GiB |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        depth = save_depth_pro(Path(folder, "depth"), device, SMALLEST_DEPTH_PRO if arguments.smallest else DEPTH_PRO)
        segmenter = save_sam(Path(folder, "segmenter"), device, SMALLEST_SAM if arguments.smallest else SAM)
        for batch_size in arguments.batch_sizes or ((1, 2) if arguments.smallest else (1, 2, 4, 8, 16)):
            options = PerceptionOptions(
                depth=depth,
                segmenter=segmenter,
                device=arguments.device,
                dtype=arguments.dtype,
                batch_size=batch_size,
            )
            for row in rows(options, images, device):
                print(row, flush=True)
    return 0


def rows(options: PerceptionOptions, images: Sequence[np.ndarray], device: torch.device) -> list[str]:
    """Lines of the table for one batch size; one model is in memory at a time, as in a build."""
    lines = []
    model = open_model("depth", options)
    ask = partial(model.estimate, focal_lengths_px=[None] * len(images))
    lines.append(_row("Depth Pro", "depth", options.batch_size, measure(ask, images, device)))
    del model, ask
    model = open_model("segmenter", options)
    detections = StubDetector("", options).detect(images, ())
    boxes = [[one.box for one in found] for found in detections]
    for asked_for, given in (("4-6 boxes", boxes), ("everything", None)):
        ask = partial(model.segment, boxes=given, vocabulary=())
        lines.append(_row("SAM ViT-H", asked_for, options.batch_size, measure(ask, images, device)))
    return lines


def measure(
    ask: Callable[[Sequence[np.ndarray]], Any], images: Sequence[np.ndarray], device: torch.device
) -> tuple[float, float | None, float | None]:
    """Images per second, share of that time in which the GPU computes, peak memory in GiB (None without a GPU)."""
    ask(images)  # the first call chooses kernels
    if device.type != "cuda":
        return len(images) / _seconds(ask, images), None, None
    torch.cuda.reset_peak_memory_stats(device)
    seconds = _seconds(ask, images)
    peak_gib = torch.cuda.max_memory_allocated(device) / 2**30
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        ask(images)
        torch.cuda.synchronize(device)
    # one stream: kernels follow each other, and what they take does not depend on the profiler
    busy_seconds = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
    return len(images) / seconds, busy_seconds / seconds, peak_gib


def _seconds(ask: Callable[[Sequence[np.ndarray]], Any], images: Sequence[np.ndarray]) -> float:
    start = time.perf_counter()
    ask(images)  # results are in main memory when it returns, so that the GPU has finished
    return time.perf_counter() - start


def save_depth_pro(folder: Path, device: torch.device, size: dict[str, Any]) -> str:
    """A Depth Pro with random weights and its processor, on disk, as a build would load it."""
    from transformers import DepthProConfig, DepthProForDepthEstimation, DepthProImageProcessor

    patch_size = size["config"].get("patch_size", 384)
    encoder = {"model_type": "dinov2", "image_size": patch_size, **size["encoder"]}
    config = DepthProConfig(
        use_fov_model=True,
        image_model_config=encoder,
        patch_model_config=encoder,
        fov_model_config=encoder,
        **size["config"],
    )
    processor = DepthProImageProcessor(size={"height": size["side_px"], "width": size["side_px"]})
    return _save(folder, device, lambda: DepthProForDepthEstimation(config), processor)


def save_sam(folder: Path, device: torch.device, size: dict[str, Any]) -> str:
    """A SAM with random weights and its processor, on disk."""
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    side_px = size["side_px"]
    config = SamConfig(
        vision_config={"image_size": side_px, "global_attn_indexes": size["global_attention"], **size["vision"]},
        prompt_encoder_config={"image_size": side_px, **size["prompts"]},
        mask_decoder_config=size["decoder"],
    )
    processor = SamImageProcessor(size={"longest_edge": side_px}, pad_size={"height": side_px, "width": side_px})
    return _save(folder, device, lambda: SamModel(config), SamProcessor(processor))


def _save(folder: Path, device: torch.device, make: Callable[[], Any], processor: Any) -> str:
    with device:  # random numbers are drawn where that is quick
        model = make()
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def _row(model: str, asked_for: str, batch_size: int, measured: tuple[float, float | None, float | None]) -> str:
    per_second, busy, peak_gib = measured
    share = "-" if busy is None else f"{busy:.0%}"
    peak = "-" if peak_gib is None else f"{peak_gib:.1f}"
    return f"| {model} | {asked_for} | {batch_size} | {per_second:.2f} | {share} | {peak} |"


def _machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{name}, torch {torch.__version__}"


if __name__ == "__main__":
    raise SystemExit(main())
