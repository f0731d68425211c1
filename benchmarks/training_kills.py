"""Kill training runs at random moments, resume them until they end; losses and weights must be an undisturbed run's.

python -m benchmarks.training_kills --kills 3 --cases stage3           # a minute
python -m benchmarks.training_kills --output kills.json                # 20 kills over all cases
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from dataset_builders import build
from trainers import sft
from trainers.checkpoints import PARTIAL, last_checkpoint
from trainers.run_record import is_finished, package_versions, read_record

STEPS = 24
COMMON = {
    "max_steps": STEPS, "save_strategy": "steps", "save_steps": 3, "save_total_limit": 2, "logging_steps": 2,
    "learning_rate": 0.01, "report_to": "none", "disable_tqdm": "true", "resume_from_checkpoint": "auto",
    "use_cpu": "true",
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "stage2": {"stage": 2, "per_device_train_batch_size": 4},
    "stage2_cached": {"stage": 2, "per_device_train_batch_size": 4, "cache_features": "features"},
    "stage3": {"stage": 3, "per_device_train_batch_size": 4, "dataloader_num_workers": 2},
    "stage3_grouped": {
        "stage": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
        "train_sampling_strategy": "group_by_length",
    },
}  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the trial."""
    parser = argparse.ArgumentParser(prog="benchmarks.training_kills", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="over all cases")
    parser.add_argument("--cases", default=",".join(CASES), help="comma-separated")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, help="JSON file for the outcome")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 if every run ended as if undisturbed, 1 otherwise."""
    arguments = make_parser().parse_args(argv)
    names = arguments.cases.split(",")
    torch.set_num_threads(1)
    outcome = []
    with tempfile.TemporaryDirectory(prefix="spatialboost-") as folder:
        start = prepare(Path(folder))
        for number, name in enumerate(names):
            kills = arguments.kills // len(names) + (number < arguments.kills % len(names))
            outcome.append(trial(Path(folder), name, start, kills, random.Random(f"{arguments.seed}:{name}")))
            print(json.dumps(outcome[-1]), flush=True)
    if arguments.output is not None:
        report = {"command": sys.argv, "versions": package_versions(), "steps": STEPS, "cases": outcome}
        arguments.output.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(case["same_losses"] and case["same_weights"] for case in outcome) else 1


def prepare(folder: Path) -> dict[int, list[str]]:
    """Tiny models, synthetic rooms, stages 1 and 2; arguments by stage."""
    from experiments.tiny_models import save_tiny_encoder, save_tiny_language_model

    print("preparing", flush=True)
    run(
        ["build", "--source", "synthetic", "--num-scenes", "8", "--resolution", "64", "--output", str(folder / "data")]
    )
    encoder = save_tiny_encoder(folder / "encoder", image_size=32, patch_size=8, hidden_size=32, num_layers=2)
    texts = ["What is the depth value at coordinate (0.1, 0.5)? The depth is 1.234 m."]
    language_model = save_tiny_language_model(folder / "lm", texts, 400, hidden_size=32, num_layers=2)
    data = ["--datasets", f"{folder}/data:single_view"]
    joined = ["--encoder", str(encoder), "--language_model", str(language_model)]
    short = ["--max_steps", "2", "--save_strategy", "no", "--report_to", "none", "--use_cpu", "true"]
    run(["train", "--stage", "1", *joined, *data, *short, "--output_dir", str(folder / "1")])
    run(["train", "--stage", "2", "--model", str(folder / "1"), *data, *short, "--output_dir", str(folder / "2")])
    return {stage: ["--model", str(folder / str(stage - 1)), *data] for stage in (2, 3)}


def trial(folder: Path, name: str, start: dict[int, list[str]], kills: int, moments: random.Random) -> dict[str, Any]:
    """One case: a run that nobody kills, and one that is killed so many times."""
    settings: dict[str, Any] = COMMON | CASES[name]
    if "cache_features" in settings:
        settings["cache_features"] = str(folder / "features")
    words = [
        *start[settings["stage"]],
        *(word for key, value in settings.items() for word in (f"--{key}", str(value))),
    ]
    whole, killed = folder / f"{name}-whole", folder / f"{name}-killed"
    run(["train", *words, "--output_dir", str(whole)])
    seconds = (read_record(whole) or {})["seconds"]  # of its steps
    done: list[dict[str, Any]] = []
    attempts = 0
    while len(done) < kills and attempts < 3 * kills + 3:  # a run that ends before its kill is begun again
        attempts += 1
        if is_finished(killed):
            killed = folder / f"{name}-killed-{attempts}"
        process = begin(["train", *words, "--output_dir", str(killed)])
        wait_for_training(process, killed)
        moment = moments.uniform(0, seconds)
        process.join(moment)
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            checkpoint = last_checkpoint(killed)
            step = int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0
            done.append({"seconds": round(moment, 3), "step": step, "in_save": (killed / PARTIAL).exists()})
            print(f"  {name}: kill {len(done)} of {kills}, last checkpoint at step {step}", flush=True)
    if not is_finished(killed):
        run(["train", *words, "--output_dir", str(killed)])
    return {"case": name, "kills": done} | compare(killed, whole)


def begin(words: list[str]) -> Any:
    """A command in a forked process, which has nothing to import and whose words nobody reads."""
    process = multiprocessing.get_context("fork").Process(target=_quietly, args=(words,))
    process.start()
    return process


def _quietly(words: list[str]) -> None:
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    verb, *arguments = words
    raise SystemExit({"build": build.main, "train": sft.main}[verb](arguments))


def wait_for_training(process: Any, output_dir: Path) -> None:
    """Until the run has written its record, which it does right before the first step."""
    began = time.time()
    record = output_dir / "run.json"
    while process.is_alive() and not (record.is_file() and record.stat().st_mtime >= began - 0.01):
        time.sleep(0.01)


def run(words: list[str]) -> None:
    """A command that nobody kills."""
    process = begin(words)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"spatialboost {' '.join(words)} ended with code {process.exitcode}")


def compare(ours: Path, theirs: Path) -> dict[str, bool]:
    """Whether two runs logged the same losses and ended with the same weights, bit for bit."""
    histories = []
    for folder in (ours, theirs):
        history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        histories.append([(entry["step"], entry["loss"], entry["grad_norm"]) for entry in history if "loss" in entry])
    first, second = (load_file(folder / "model.safetensors") for folder in (ours, theirs))
    same = first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    return {"same_losses": histories[0] == histories[1], "same_weights": same}


if __name__ == "__main__":
    raise SystemExit(main())
