"""Two processes extract features together, and the report is that of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def evaluate(launcher, folder, data, output):
    command = [*launcher, "-m", "evaluators.run", "--base", folder, "--boosted", folder, "--data", str(data)]
    command += ["--output", str(output), "--preset", "cpu", "--tasks", "depth_linear", "--device", "cpu"]
    command += ["--set", "depth_linear.num_examples=1"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((output / "results.json").read_text())
    files = sorted((output / "features").glob("*.npy"))
    return results["tasks"], [(file.name, file.read_bytes()) for file in files], done.stdout


def test_two_processes_give_what_one_gives(encoder_folders, dense_folder, tmp_path):
    folder = encoder_folders("dinov3")
    one, features, _ = evaluate([sys.executable], folder, dense_folder, tmp_path / "one")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29617"]
    two, shared, printed = evaluate(torchrun, folder, dense_folder, tmp_path / "two")
    assert two == one
    assert shared == features and len(features) == 3  # two splits, and the targets
    assert printed.count("| depth, linear head | rooms | RMSE") == 1
    assert not list((tmp_path / "two").rglob("*.partial"))
