"""Time to load and size on disk of a boosted encoder beside the plain one it was made from.

python -m benchmarks.loading --smallest               # seconds; the test runs this
python -m benchmarks.loading                          # ViT-L, and ViT-S for what is left where weights are few
python -m benchmarks.loading --output loading.json    # the rows, hardware and versions too

Each load happens in a process of its own, after the imports, with the files in the page cache; both forms take turns,
and the ratio is the median over the turns. Weights are float32 and random; half of DINOv2's and all of DINOv3's
attention layers are boosted too, to see that the size follows what is new.
"""

import argparse
import statistics
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.encoder import random_encoder
from benchmarks.record import begin, save
from modeling_spatialboost import SpatialBoostModel
from modeling_spatialboost.dual_channel_attention import is_second_channel

AIM = 1.4  # times as long
Case = tuple[str, str, list[int] | None]  # family, size, boosted layers
SMALLEST: list[Case] = [("dinov2", "tiny", None)]
FULL: list[Case] = [("dinov3", "S", None), ("dinov3", "L", None), ("dinov2", "L", list(range(12, 24)))]
LOAD = """
import sys, time
from modeling_spatialboost import SpatialBoostModel
from transformers import AutoModel
cls = SpatialBoostModel if sys.argv[2] == "boosted" else AutoModel
start = time.perf_counter()
model = cls.from_pretrained(sys.argv[1])
print(time.perf_counter() - start, sum(parameter.sum().item() for parameter in model.parameters()))
"""


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.loading", description=__doc__.split("\n")[0])
    parser.add_argument("--smallest", action="store_true", help="a tiny encoder, 2 turns")
    parser.add_argument("--turns", type=int, default=7, help="loads of each form in each row")
    parser.add_argument("--output", type=Path, default=None, help="JSON file with rows, hardware and versions")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    arguments = make_parser().parse_args(argv)
    about = begin(None, False)
    cases, turns = (SMALLEST, 2) if arguments.smallest else (FULL, arguments.turns)
    rows = []
    for case in tqdm(cases, desc="encoders", disable=None):
        rows.append(measure(case, turns))
        print(table(rows[-1:]), flush=True)
    save(arguments.output, "loading", argv, {**about, "rows": rows})
    return 0


def measure(case: Case, turns: int) -> dict[str, Any]:
    """One row: seconds of a load (median), their ratio, and what the files hold, in bytes."""
    family, size, layers = case
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        random_encoder(family, size, 224, "sdpa").save_pretrained(folder / "plain", max_shard_size="100GB")
        boosted = SpatialBoostModel.from_encoder(str(folder / "plain"), layers)
        boosted.save_pretrained(folder / "boosted", max_shard_size="100GB")
        new = sum(p.nbytes for name, p in boosted.named_parameters() if is_second_channel(name))
        seconds = [[load(folder / form, form) for form in ("plain", "boosted")] for _ in range(turns + 1)][1:]
        plain, with_channel = (sizes(folder / form / "model.safetensors") for form in ("plain", "boosted"))
    return {
        "encoder": f"{family} ViT-{size}, {len(boosted.alpha_table())} layers boosted",
        "seconds": {form: statistics.median(times) for form, times in zip(("plain", "boosted"), zip(*seconds))},
        "time_ratio": statistics.median(b / a for a, b in seconds),
        "bytes": {"plain": plain, "boosted": with_channel, "new_parameters": new},
        "size_ratio": with_channel["file"] / plain["file"],
        "exact": with_channel["data"] == plain["data"] + new,
    }


def load(folder: Path, form: str) -> float:
    """Seconds that `from_pretrained` takes in a new process, and then every weight is read: the pages stay cached."""
    result = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder), form], capture_output=True, text=True, check=True
    )
    return float(result.stdout.split()[0])


def sizes(path: Path) -> dict[str, int]:
    """Bytes of a safetensors file: the tensors, and the header that names them (8 bytes of length, then JSON)."""
    with path.open("rb") as file:
        header = 8 + struct.unpack("<Q", file.read(8))[0]
    total = path.stat().st_size
    return {"file": total, "header": header, "data": total - header}


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    lines = [
        f"| encoder | plain, ms | boosted, ms | time (aim {AIM:g}) | plain, bytes | boosted, bytes | size "
        "| tensors = base + new | header, bytes |",
        "|" + "---|" * 9,
    ]
    for row in rows:
        plain, boosted = row["bytes"]["plain"], row["bytes"]["boosted"]
        lines.append(
            f"| {row['encoder']} | {1e3 * row['seconds']['plain']:.0f} | {1e3 * row['seconds']['boosted']:.0f} "
            f"| {row['time_ratio']:.2f} | {plain['file']:,} | {boosted['file']:,} | {row['size_ratio']:.3f} "
            f"| {'yes' if row['exact'] else 'no'}: {boosted['data']:,} = {plain['data']:,} + "
            f"{row['bytes']['new_parameters']:,} | {plain['header']:,}, {boosted['header']:,} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
