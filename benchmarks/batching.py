"""Padding and the largest batch under each way of making batches, for the paper's mix of views; no model is run.

python -m benchmarks.batching                          # seconds
python -m benchmarks.batching --output batching.json   # the rows too

Stage 3's rows: 100 single-view to 160 two-view, 30 four-view and 10 eight-view ones; text of 12 turns, 500 tokens with
a standard deviation of 120; 196 tokens an image (ViT-L/16 at 224 px), or 49 with a pixel shuffle of 2. Positions are
rows x the longest row of a batch: what is computed, and kept for the backward pass.
"""

import argparse
import random
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_pt_utils import BatchRebalanceSampler, DistributedLengthGroupedSampler

from benchmarks.record import save

VIEWS, WEIGHTS = (1, 2, 4, 8), (100, 160, 30, 10)
TEXT_TOKENS, DEVIATION = 500, 120
TOTAL_BATCH = 128


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.batching", description=__doc__.split("\n")[0])
    parser.add_argument("--smallest", action="store_true", help="few rows")
    parser.add_argument("--rows", type=int, default=12_800, help="conversations")
    parser.add_argument("--output", type=Path, default=None, help="JSON file with the rows")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Count and print."""
    arguments = make_parser().parse_args(argv)
    num_rows = 256 if arguments.smallest else arguments.rows
    rows = []
    for tokens_per_image in (196, 49):
        lengths = row_lengths(num_rows, tokens_per_image)
        for batch in (4, 8, 32):
            for strategy, batches in batches_of(lengths, batch).items():
                settings = {"tokens_per_image": tokens_per_image, "batch": batch, "strategy": strategy}
                rows.append(settings | count(lengths, batches))
    print(table(rows))
    save(arguments.output, "batching", argv, {"rows": rows})
    return 0


def row_lengths(num_rows: int, tokens_per_image: int) -> list[int]:
    """Tokens of each row."""
    draw = random.Random(0)
    views = draw.choices(VIEWS, WEIGHTS, k=num_rows)
    return [count * tokens_per_image + max(80, round(draw.gauss(TEXT_TOKENS, DEVIATION))) for count in views]


def batches_of(lengths: list[int], batch: int) -> dict[str, list[list[int]]]:
    """Rows of each batch, by `train_sampling_strategy`."""
    steps = TOTAL_BATCH // batch  # accumulated
    shuffled = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(0)).tolist()
    grouped = list(DistributedLengthGroupedSampler(TOTAL_BATCH, num_replicas=1, rank=0, lengths=lengths))
    cut = [[order[i : i + batch] for i in range(0, len(order), batch)] for order in (shuffled, grouped)]
    rebalanced = list(BatchRebalanceSampler(lengths, TOTAL_BATCH, 1, steps, drop_last=False))
    return {"random": cut[0], "group_by_length": cut[1], "batch_rebalance": rebalanced}


def count(lengths: list[int], batches: list[list[int]]) -> dict[str, Any]:
    """Share of the positions that is padding, and positions of a batch."""
    positions = [len(batch) * max(lengths[row] for row in batch) for batch in batches]
    return {
        "padding": 1 - sum(lengths) / sum(positions),
        "median_positions": statistics.median(positions),
        "largest_positions": max(positions),
        "rows_in_a_batch": [min(map(len, batches)), max(map(len, batches))],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        f"| tokens an image | batch, of {TOTAL_BATCH} in a step | batches | padding | positions, median | largest | "
        "rows in a batch |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        fewest, most = row["rows_in_a_batch"]
        lines.append(
            f"| {row['tokens_per_image']} | {row['batch']} | {row['strategy']} | {row['padding']:.1%} | "
            f"{row['median_positions']:,.0f} | {row['largest_positions']:,} | {fewest}-{most} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
