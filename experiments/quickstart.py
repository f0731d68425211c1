"""The main job, small, offline: from rendered rooms to a boosted encoder that `AutoModel` loads.

Every step is the command that a full run uses; only the sizes and the two starting models are tiny. A second run
reuses what is there and says so.

    spatialboost quickstart                                     # minutes on two CPU cores
    spatialboost quickstart --smallest                          # the form that CI runs
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

RECIPES = Path(__file__).resolve().parent.parent / "trainers" / "recipes" / "smoke"


class Size(NamedTuple):
    """How much of everything; images are `RESOLUTION_PX` square."""

    num_scenes: int
    max_steps: int


SIZES = {"default": Size(num_scenes=80, max_steps=100), "smallest": Size(num_scenes=8, max_steps=4)}
RESOLUTION_PX = 64

# Runs in a process of its own, in an empty folder, without the clone on its path.
PROOF = """
import sys
sys.modules["modeling_spatialboost"] = None  # an installed clone must not help
import torch
from datasets import load_dataset
from transformers import AutoImageProcessor, AutoModel

encoder, data = sys.argv[1:]
rows = load_dataset(data, "single_view", split="test")
model = AutoModel.from_pretrained(encoder, trust_remote_code=True).eval()
processor = AutoImageProcessor.from_pretrained(encoder, trust_remote_code=True)
with torch.no_grad():
    tokens = model(**processor(rows[0]["images"], return_tensors="pt")).last_hidden_state
print(f"{type(model).__module__.split('.')[0]}.{type(model).__name__} read {rows.num_rows} test rows, "
      f"tokens {tuple(tokens.shape)}")
"""


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `spatialboost quickstart`."""
    parser = argparse.ArgumentParser(prog="spatialboost quickstart", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--output", type=Path, help="folder for all that is made (default: outputs/quickstart[-smallest])"
    )
    parser.add_argument("--smallest", action="store_true", help="a few scenes and steps, only to see that it runs")
    parser.add_argument("--seed", type=int, default=0, help="of the rooms and of all random weights")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Build data, train the three stages, evaluate, and load the result where the clone cannot be seen."""
    arguments = make_parser().parse_args(argv)
    size = SIZES["smallest" if arguments.smallest else "default"]
    root: Path = arguments.output or Path(
        "outputs/quickstart-smallest" if arguments.smallest else "outputs/quickstart"
    )
    start = time.monotonic()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # of the small steps between ours

    build_data(root, size, arguments.seed)
    make_starting_models(root, arguments.seed)
    train_stages(root, size, arguments.seed)
    evaluate(root, arguments.smallest)
    proof = load_in_isolation(root)
    print_summary(root, proof, time.monotonic() - start)
    return 0


def run_command(main_function: Callable[[list[str]], int | None], verb: str, arguments: list[str]) -> None:
    """Run a verb of `spatialboost` in this process, after printing it as one would type it.

    Raises:
        ValueError: the verb refused its arguments; it has said why.
    """
    print(f"\n$ spatialboost {verb} {shlex.join(arguments)}", flush=True)
    if main_function(arguments):
        raise ValueError(f"`spatialboost {verb}` stopped as told above: remove the quickstart's folder and run again.")


def build_data(root: Path, size: Size, seed: int) -> None:
    """12-turn reasoning data, multi-view VQA, captions and dense maps of synthetic rooms."""
    from dataset_builders import build

    settings = ["--num-scenes", str(size.num_scenes), "--resolution", str(RESOLUTION_PX), "--seed", str(seed)]
    run_command(build.main, "build", ["--source", "synthetic", *settings, "--output", str(root / "data")])


def make_starting_models(root: Path, seed: int) -> None:
    """A tiny DINOv3 and a tiny Qwen3 with random weights; the tokenizer is trained on the data's own text."""
    if (root / "encoder").is_dir() and (root / "language_model").is_dir():
        print(f"\nReusing the tiny encoder and language model in {root}")
        return
    from datasets import load_dataset

    from experiments.tiny_models import save_tiny_encoder, save_tiny_language_model

    rows = load_dataset(str(root / "data"), "single_view", split="train")
    texts = [part["text"] for row in rows["messages"] for turn in row for part in turn["content"] if part["text"]]
    print(f"\nA tiny DINOv3 and a tiny Qwen3, random weights, in {root}")
    save_tiny_encoder(root / "encoder", image_size=RESOLUTION_PX, seed=seed)
    save_tiny_language_model(root / "language_model", texts, seed=seed)


def train_stages(root: Path, size: Size, seed: int) -> None:
    """Feature alignment, visual instruction tuning, encoder fine-tuning, each from the folder of the one before."""
    from trainers import sft

    data = str(root / "data")
    stages = {
        1: ["--encoder", str(root / "encoder"), "--language_model", str(root / "language_model")],
        2: ["--model", str(root / "stage1")],
        3: ["--model", str(root / "stage2")],
    }
    configs = {1: ["alignment"], 2: ["multi_view_vqa"], 3: ["single_view", "multi_view"]}
    for stage, start in stages.items():
        common = ["--datasets", *(f"{data}:{config}:train" for config in configs[stage])]
        common += ["--output_dir", str(root / f"stage{stage}"), "--max_steps", str(size.max_steps)]
        common += ["--seed", str(seed), "--report_to", "none"]
        recipe = os.path.relpath(RECIPES / f"stage{stage}.yaml")
        run_command(sft.main, "train", ["--config", recipe, *start, *common])


def evaluate(root: Path, smallest: bool) -> None:
    """Linear probes for depth and segmentation on the frozen encoders, base beside boosted."""
    from evaluators import run

    limit = ["--limit", "8"] if smallest else []
    encoders = ["--base", str(root / "encoder"), "--boosted", str(root / "stage3" / "encoder")]
    places = ["--data", str(root / "data"), "--output", str(root / "report")]
    run_command(
        run.main,
        "evaluate",
        [*encoders, "--tasks", "depth_linear,segmentation_linear", *places, "--preset", "cpu", *limit],
    )


def load_in_isolation(root: Path) -> str:
    """What a fresh process says that has the two folders but neither the clone nor our environment."""
    print("\nLoading encoder and data in a fresh process that cannot see the clone", flush=True)
    home = (root / "isolated").resolve()
    home.mkdir(parents=True, exist_ok=True)
    encoder, data = (str((root / part).resolve()) for part in ("stage3/encoder", "data"))
    result = subprocess.run(
        [sys.executable, "-I", "-c", PROOF, encoder, data],
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise RuntimeError(f"The fresh process failed:\n{result.stderr}")
    return result.stdout.strip()


def print_summary(root: Path, proof: str, seconds: float) -> None:
    """The table of scores, and where everything is."""
    from evaluators.report import render_table

    print(f"\n{render_table(json.loads((root / 'report' / 'results.json').read_text()))}")
    losses = [json.loads((root / f"stage{stage}" / "run.json").read_text())["final_loss"] for stage in (1, 2, 3)]
    print(f"\nFresh process: {proof}")
    print(f"Final losses of stages 1, 2, 3: {', '.join(f'{loss:.3f}' for loss in losses)}")
    for path, what in {
        "data": "data set: load_dataset(FOLDER, 'single_view' | 'multi_view' | 'multi_view_vqa')",
        "stage3/encoder": "boosted encoder: AutoModel.from_pretrained(FOLDER, trust_remote_code=True)",
        "stage3": "vision-language model: AutoModelForImageTextToText",
        "report/report.md": "base beside boosted (random weights, minutes of training: no evidence either way)",
    }.items():
        print(f"  {root / path!s:<36} {what}")
    print(f"{seconds:.0f} s")
