"""The boosted encoder at inference, fused and with two passes, beside the plain encoder, in one run.

python -m benchmarks.encoder --smallest                 # seconds; the test runs this
python -m benchmarks.encoder                            # CPU: ViT-S, 224 px; GPU: S, B, L, g, 224 and 512/518 px
python -m benchmarks.encoder --output encoder.json      # the rows, hardware and versions too

The three forms take turns, forward by forward, so that whatever else the machine does hits them alike; a ratio is the
median over the turns. The fused form should cost no more than 1.05 times its share of floating-point operations.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm
from transformers import Dinov2Config, Dinov2Model, DINOv3ViTConfig, DINOv3ViTModel, PreTrainedModel

from benchmarks.record import add_arguments, begin, save
from modeling_spatialboost import SpatialBoostModel

TOLERANCE = 1.05  # over the ratio of floating-point operations
FORMS = ("plain", "two passes", "fused")
SIZES = {  # hidden size, layers, heads
    "tiny": (64, 2, 2),
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "g": (1536, 40, 24),
}
Case = tuple[str, str, int, int]  # family, size, side in pixels, batch
SMALLEST: list[Case] = [("dinov2", "tiny", 56, 2), ("dinov3", "tiny", 64, 2)]
ON_CPU: list[Case] = [(family, "S", 224, batch) for family in ("dinov2", "dinov3") for batch in (1, 8)]
ON_GPU: list[Case] = [
    (family, size, side, batch)
    for family, large_side, sizes in (("dinov2", 518, "SBLg"), ("dinov3", 512, "SBL"))
    for size in sizes
    for side, batches in ((224, (1, 64)), (large_side, (1, 16)))
    for batch in batches
]


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.encoder", description=__doc__.split("\n")[0])
    parser.add_argument("--smallest", action="store_true", help="two tiny encoders, 3 turns")
    parser.add_argument("--turns", type=int, default=30, help="forwards of each form in each row")
    add_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    arguments = make_parser().parse_args(argv)
    on_gpu = torch.cuda.is_available() and not arguments.smallest
    cases: list[Case] = SMALLEST if arguments.smallest else ON_GPU if on_gpu else ON_CPU
    about = begin(arguments.threads, on_gpu)
    turns = 3 if arguments.smallest else arguments.turns
    device, dtype = ("cuda", torch.bfloat16) if on_gpu else ("cpu", torch.float32)
    rows = [measure(case, turns, device, dtype) for case in tqdm(cases, desc="encoders", disable=None)]
    print(table(rows))
    save(arguments.output, "encoder", argv, {**about, "rows": rows})
    return 0


def random_encoder(family: str, size: str, side_px: int, attention: str) -> PreTrainedModel:
    """A ViT of random weights: DINOv2 (patch 14), or DINOv3 (patch 16, rotary positions, 4 registers)."""
    hidden_size, num_layers, num_heads = SIZES[size]
    common = {
        "hidden_size": hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "image_size": side_px,
        "attn_implementation": attention,
    }
    if family == "dinov2":
        return Dinov2Model(Dinov2Config(**common, patch_size=14, use_swiglu_ffn=size == "g"))
    sizes = {"intermediate_size": 4 * hidden_size, "patch_size": 16, "num_register_tokens": 4}
    return DINOv3ViTModel(DINOv3ViTConfig(**common, **sizes))


def measure(case: Case, turns: int, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """One row: milliseconds of each form (median), ratios to the plain encoder, and on a GPU peak memory in MiB."""
    family, size, side_px, batch = case
    with torch.device(device):
        forms: list[nn.Module] = [random_encoder(family, size, side_px, "sdpa").to(dtype)]
        for _ in range(2):
            twin = random_encoder(family, size, side_px, "sdpa").to(dtype)
            forms.append(SpatialBoostModel.from_encoder(twin))
        images = torch.rand(batch, 3, side_px, side_px, dtype=dtype)
    assert not forms[2].fuse_channels().refused, "DINO's attention fuses"
    runs = [forward(form.eval(), images) for form in forms]
    with torch.inference_mode():
        for run in runs:  # the first forwards choose kernels and fill caches
            run(), run()
        seconds = [[timed(run, device) for run in runs] for _ in range(turns)]
        peaks = [peak_mib(run) if device == "cuda" else None for run in runs]
    by_form = list(zip(*seconds))
    return {
        "encoder": f"{family} ViT-{size}",
        "side_px": side_px,
        "batch": batch,
        "milliseconds": {name: 1e3 * statistics.median(times) for name, times in zip(FORMS, by_form)},
        "peak_mib": dict(zip(FORMS, peaks)),
        "two_pass_ratio": statistics.median(two / plain for plain, two, _ in seconds),
        "fused_ratio": statistics.median(fused / plain for plain, _, fused in seconds),
        "flop_ratio": flop_ratio(family, size, side_px),
    }


def forward(model: nn.Module, images: torch.Tensor) -> Callable[[], Any]:
    """One forward of `model`, to be called again and again."""
    return lambda: model(images)


def timed(run: Callable[[], Any], device: str) -> float:
    """Seconds of one run, the device's queue empty before and after."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_mib(run: Callable[[], Any]) -> float:
    """What one run takes on the GPU beyond what lay there before it."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def flop_ratio(family: str, size: str, side_px: int) -> float:
    """Floating-point operations of the boosted encoder over those of the plain one, counted without any memory."""
    with torch.device("meta"), torch.inference_mode():
        encoder = random_encoder(family, size, side_px, "eager").eval()
        images = torch.empty(1, 3, side_px, side_px)
        plain = count_flops(forward(encoder, images))
        return count_flops(forward(SpatialBoostModel.from_encoder(encoder), images)) / plain


def count_flops(run: Callable[[], Any]) -> int:
    """Of the matrix products and convolutions of one run."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown; `held` says whether the fused ratio is within the tolerance of the ratio of operations."""
    lines = [
        f"| encoder | px | batch | {' ms | '.join(FORMS)} ms | two passes / plain | fused / plain | aim | held |",
        "|" + "---|" * 10,
    ]
    for row in rows:
        times = " | ".join(f"{row['milliseconds'][name]:.2f}" for name in FORMS)
        aim = TOLERANCE * row["flop_ratio"]
        lines.append(
            f"| {row['encoder']} | {row['side_px']} | {row['batch']} | {times} | {row['two_pass_ratio']:.2f} "
            f"| {row['fused_ratio']:.2f} | {aim:.2f} = 1.05 x {row['flop_ratio']:.3f} "
            f"| {'yes' if row['fused_ratio'] <= aim else 'no'} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
