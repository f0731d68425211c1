"""What can be read off a frozen encoder in seconds: ridge regression on the patches of held-out pictures.

    python -m experiments.ridge_probe outputs/base outputs/stage3/encoder --data outputs/world/data

Quicker and coarser than `spatialboost evaluate`: everything is measured per patch. Controls: the mean of each place
(`position`), and each encoder's architecture with random weights. A base is admitted to the experiments if it beats
`position` on depth and has twice the attribute precision of chance (docs/miniature.md).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from tqdm import trange

from evaluators.encoders import Encoder, load_encoder
from evaluators.random_encoder import randomised
from experiments.base_encoder import PictureRows, read_pictures
from experiments.fitting import command

Scores = dict[str, float]
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the ridge, in units of the mean variance of a feature
MAX_DEPTH_M = 10.0
BATCH_SIZE = 64


class Truths:
    """What the probes guess, of every patch or of every picture."""

    def __init__(self, rows: PictureRows, words: torch.Tensor, grid: int, num_classes: int) -> None:
        """`words` (N, A) name something in the picture; a picture has `grid` by `grid` patches."""
        depth_m, classes = rows.depth(), rows.classes().long()
        size = depth_m.shape[-1] // grid
        valid = (depth_m > 0) & (depth_m < MAX_DEPTH_M)
        share = functional.avg_pool2d(valid.float(), size).flatten(1)
        self.known = share > 0.5  # (N, P)
        total = functional.avg_pool2d(torch.where(valid, depth_m, 0), size).flatten(1)
        self.depth_m = total / share.clamp(min=1e-6)  # (N, P), mean over the patch
        one_hot = functional.one_hot(classes.clamp(max=num_classes), num_classes + 1)[..., :-1]  # 255 = ignored
        counts = functional.avg_pool2d(one_hot.movedim(-1, 1).float(), size).flatten(2).mT  # (N, P, K)
        self.classes = counts.argmax(-1)  # (N, P), what most of the patch shows
        self.words = words


class Tokens(NamedTuple):
    """What an encoder says of N pictures: (N, P, C) patch tokens and (N, D) class token beside mean patch."""

    patches: torch.Tensor
    pooled: torch.Tensor


def tokens(encoder: Encoder, pixels: torch.Tensor) -> Tokens:
    """Tokens of the last layer after the final norm, float32, for (N, 3, H, W) uint8."""
    used = encoder.preprocessing
    mean, deviation = (torch.tensor(one)[:, None, None] for one in (used.mean, used.std))
    patches, pooled = [], []
    for start in trange(0, len(pixels), BATCH_SIZE, desc=f"tokens of {encoder.name}", unit="batch"):
        images = (pixels[start : start + BATCH_SIZE].float() / 255 - mean) / deviation
        patches.append(encoder.patch_features(images).flatten(2).mT.float().cpu())
        pooled.append(encoder.pooled_features(images).flatten(1).float().cpu())
    return Tokens(torch.cat(patches), torch.cat(pooled))


def ridge(train: torch.Tensor, truth: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
    """Predictions (M, K) for `test` (M, C) after learning `truth` (N, K) from `train` (N, C).

    The strength is the one that guesses the last fifth of the training rows best.
    """
    cut = len(train) - len(train) // 5
    errors = [(_solve(train[:cut], truth[:cut], s, train[cut:]) - truth[cut:]).square().mean() for s in STRENGTHS]
    return _solve(train, truth, STRENGTHS[int(torch.stack(errors).argmin())], test)


def _solve(train: torch.Tensor, truth: torch.Tensor, strength: float, test: torch.Tensor) -> torch.Tensor:
    centre, offset = train.mean(0), truth.mean(0)
    moved = (train - centre).double()
    gram = moved.T @ moved
    penalty = (strength * gram.diagonal().mean() + 1e-9) * torch.eye(len(gram), dtype=gram.dtype)
    weights = torch.linalg.solve(gram + penalty, moved.T @ (truth - offset).double())
    return ((test - centre).double() @ weights + offset).float()


def score(known: Tokens, new: Tokens, seen: Truths, unseen: Truths, num_classes: int) -> Scores:
    """Scores on new pictures of probes that learnt from known ones: depth, classes, words, where a patch lies."""
    train, test = known.patches, new.patches
    places = torch.arange(train.shape[1])[None].expand(len(test), -1)
    side = int(places.shape[1] ** 0.5)
    where = torch.stack([places % side, places // side], -1) / side  # (M, P, 2)
    flat, read = train.flatten(0, 1), seen.known.flatten()
    depth_m = ridge(flat[read], seen.depth_m.flatten()[read, None], test.flatten(0, 1)).view(test.shape[:2])
    one_hot = functional.one_hot(seen.classes.flatten(), num_classes).float()
    classes = ridge(flat, one_hot, test.flatten(0, 1)).argmax(-1).view(test.shape[:2])
    words = ridge(known.pooled, seen.words, new.pooled)
    found = ridge(flat, where[:1].expand(len(train), -1, -1).reshape(-1, 2), test.flatten(0, 1)).view_as(where)
    spread = (where - where.mean((0, 1))).square().mean()
    return {
        "depth_rmse_m": depth_error(depth_m, unseen),
        "miou": mean_overlap(classes, unseen.classes, num_classes),
        "attribute_map": mean_precision(words, unseen.words),
        "position_r2": 1 - float((found - where).square().mean() / spread),
    }


def controls(seen: Truths, unseen: Truths, num_classes: int) -> Scores:
    """The same of a predictor that knows places only; chance has the precision of a word's own frequency."""
    weights = seen.known.float()
    depth_m = (seen.depth_m * weights).sum(0) / weights.sum(0).clamp(min=1)
    classes = functional.one_hot(seen.classes, num_classes).sum(0).argmax(-1)
    number = len(unseen.depth_m)
    return {
        "depth_rmse_m": depth_error(depth_m.expand(number, -1), unseen),
        "miou": mean_overlap(classes.expand(number, -1), unseen.classes, num_classes),
        "attribute_map": float(unseen.words.mean(0)[unseen.words.any(0)].mean()),
    }


def depth_error(depth_m: torch.Tensor, unseen: Truths) -> float:
    """Root mean squared error of each picture, mean over pictures."""
    squared = torch.where(unseen.known, depth_m.clamp(0, MAX_DEPTH_M) - unseen.depth_m, 0).square().sum(1)
    return float((squared / unseen.known.sum(1).clamp(min=1)).sqrt()[unseen.known.any(1)].mean())


def mean_overlap(guessed: torch.Tensor, truth: torch.Tensor, num_classes: int) -> float:
    """Intersection over union of patches, mean over the classes that occur."""
    table = torch.bincount((truth * num_classes + guessed).flatten(), minlength=num_classes**2).view(num_classes, -1)
    union = table.sum(0) + table.sum(1) - table.diagonal()
    return float((table.diagonal() / union.clamp(min=1))[table.sum(1) > 0].mean())


def mean_precision(scores: torch.Tensor, truth: torch.Tensor) -> float:
    """Average precision of each word, mean over the words that occur."""
    ranked = truth.gather(0, scores.argsort(0, descending=True)).double()
    precision = ranked.cumsum(0) / torch.arange(1, len(truth) + 1)[:, None]
    return float(((precision * ranked).sum(0) / ranked.sum(0).clamp(min=1))[truth.any(0)].mean())


def probe(encoders: list[str], data: Path, limit: int, device: str = "cpu") -> dict[str, Scores]:
    """Scores by name: `position`, every encoder, and `random NAME` for each.

    Raises:
        ValueError: data or an encoder that cannot be read.
    """
    loaded = [load_encoder(encoder, device=device) for encoder in encoders]
    side = loaded[0].input_size_px[0]
    rows = {split: read_pictures(data, side, split).head(limit) for split in ("train", "test")}
    words = {split: one.words(rows["train"].vocabulary()) for split, one in rows.items()}
    num_classes = len(json.loads((data / "classes.json").read_text()))
    results: dict[str, Scores] = {}
    for encoder in [*loaded, *map(randomised, loaded)]:
        grid = side // encoder.patch_size_px
        truths = {split: Truths(one, words[split], grid, num_classes) for split, one in rows.items()}
        results.setdefault("position", controls(truths["train"], truths["test"], num_classes))
        known, new = (tokens(encoder, one.pixels) for one in rows.values())
        results[encoder.name] = score(known, new, truths["train"], truths["test"], num_classes)
    return results


def is_admitted(base: Scores, position: Scores) -> bool:
    """Whether a base is strong enough to be experimented with."""
    better = base["depth_rmse_m"] < position["depth_rmse_m"]
    return better and base["attribute_map"] >= 2 * position["attribute_map"]


def table(results: dict[str, Scores]) -> str:
    """As Markdown."""
    lines = [
        "| encoder | depth RMSE, m | mIoU, % | attribute mAP, % | place of a patch, R2 |",
        "|---|---|---|---|---|",
    ]
    for name, one in results.items():
        place = f"{one['position_r2']:.2f}" if "position_r2" in one else "1"
        line = f"| {name} | {one['depth_rmse_m']:.3f} | {100 * one['miou']:.1f} | {100 * one['attribute_map']:.1f} |"
        lines.append(f"{line} {place} |")
    return "\n".join(lines)


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `python -m experiments.ridge_probe`."""
    parser = argparse.ArgumentParser(prog="experiments.ridge_probe", description=__doc__.split("\n")[0])
    parser.add_argument("encoders", nargs="+", help="folders")
    parser.add_argument("--data", type=Path, required=True, help="data set of the world")
    parser.add_argument("--limit", type=int, default=1000, help="pictures of each split")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0."""
    given: Any = make_parser().parse_args(argv)
    results = probe(given.encoders, given.data, given.limit, given.device)
    print(table(results))
    for name in list(results)[1 : 1 + len(given.encoders)]:
        print(f"{name}: {'admitted' if is_admitted(results[name], results['position']) else 'base too weak'}")
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
