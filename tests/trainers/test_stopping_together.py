"""A signal or a NaN in one of two processes (gloo, on the CPU) stops both after the same step."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.trainers.conftest import common
from trainers.checkpoints import last_checkpoint
from trainers.run_record import read_record

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "max_steps": 4,
    "logging_steps": 4,
    "per_device_train_batch_size": 2,
    "report_to": "none",
    "use_cpu": "true",
}


def test_one_process_stops_both(runs, data, tmp_path):
    start = ["--stage", "3", "--model", str(runs[2])]
    stopped, diverging = tmp_path / "stopped", tmp_path / "diverging"
    saving = SETTINGS | {"save_strategy": "steps", "save_steps": 2}
    argvs = [[*start, *common(data, stopped, **SETTINGS)], [*start, *common(data, diverging, **saving)]]
    (tmp_path / "runs.json").write_text(json.dumps(argvs))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-m", "tests.trainers.stopping_worker", str(tmp_path / "runs.json")],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    seen = [json.loads((tmp_path / f"runs.json.{rank}").read_text()) for rank in (0, 1)]
    assert [one["code"] for one in seen] == [143, 143]
    assert last_checkpoint(stopped) == str(stopped / "checkpoint-2")
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in (stopped / "checkpoint-2").iterdir()}
    assert read_record(stopped)["signal"] == "SIGTERM"
    assert done.stderr.count("Stopped by SIGTERM after step 2") == 1
    assert seen[0] == seen[1]
    assert (seen[0]["step"], len(seen[0]["rows"])) == (3, 2)  # those of the second process
    assert f"--resume_from_checkpoint {diverging}/checkpoint-2" in seen[0]["error"]
    assert read_record(diverging)["rows"] == seen[0]["rows"]
