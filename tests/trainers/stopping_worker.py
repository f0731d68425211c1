"""Two runs of `spatialboost train` in one of two processes: a signal, then a NaN, that only the second meets.

torchrun --nproc_per_node 2 -m tests.trainers.stopping_worker RUNS.json
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from tests.trainers.killed import in_batch
from trainers import sft
from trainers.loss_guard import LossGuard, NonFiniteLossError

if __name__ == "__main__":
    torch.set_num_threads(1)
    stopped, diverging = json.loads(Path(sys.argv[1]).read_text())
    second = os.environ["RANK"] == "1"
    if second:
        in_batch(2, lambda *_: os.kill(os.getpid(), signal.SIGTERM))()
    seen = {"code": sft.main(stopped)}
    note_loss = LossGuard.note_loss
    if second:
        LossGuard.note_loss = lambda self, step, rows, loss: note_loss(
            self, step, rows, loss * (float("nan") if step == 3 else 1)
        )
    try:
        sft.main(diverging)
    except NonFiniteLossError as error:
        seen |= {"error": str(error), "step": error.step, "rows": error.rows}
    Path(f"{sys.argv[1]}.{os.environ['RANK']}").write_text(json.dumps(seen))
    torch.distributed.destroy_process_group()
    os._exit(0)  # now and then gloo's threads abort a process that takes itself apart
