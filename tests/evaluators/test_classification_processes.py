"""Two processes train on crops together, and the report is that of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.commands import evaluate
from tests.evaluators.whole_images import write_classes

ROOT = Path(__file__).parents[2]
SETTINGS = [f"linear_classification.{setting}" for setting in ("augment=true", "steps=6", "batch_size=5")]


def arguments_of(folder, data, output):
    arguments = ["--base", folder, "--boosted", folder, "--device", "cpu", "--output", str(output), "--preset", "cpu"]
    arguments += ["--data", f"folder={data}", f"landmarks={data / 'val'}"]
    return [*arguments, "--tasks", "classification,retrieval", "--set", *SETTINGS]


def test_two_processes_give_what_one_gives(encoder_folders, tmp_path):
    folder, data = encoder_folders("dinov3"), write_classes(tmp_path / "shapes", per_class=6)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29623"]
    command = [*torchrun, "-m", "evaluators.run", *arguments_of(folder, data, tmp_path / "two")]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert evaluate(arguments_of(folder, data, tmp_path / "one")) == 0
    one, two = (json.loads((tmp_path / name / "results.json").read_text())["tasks"] for name in ("one", "two"))
    assert one == two and len(one) == 3
