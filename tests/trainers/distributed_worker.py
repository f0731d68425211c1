"""Run `spatialboost train` several times in this process, one of many; each writes the weights that it ended with.

    torchrun --nproc_per_node 2 -m tests.trainers.distributed_worker RUNS.json

`SPLIT_ON_CPU` lets accelerate's own FSDP2 (MULTI_GPU) and DeepSpeed (MULTI_CPU) code run on the CPU, where it would
quietly fall back to DDP.
"""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType

from trainers import sft


class RecordingTrainer(sft.StageTrainer):
    """Keeps, beside the output folder, what this process holds after the last step."""

    def train(self, *args, **kwargs):
        result = super().train(*args, **kwargs)
        parameters = dict(self.model.named_parameters())
        kinds = {name: type(parameter).__name__ for name, parameter in parameters.items()}
        local = {name: getattr(p, "_local_tensor", p).detach().clone() for name, p in parameters.items()}
        handler = self.accelerator.ddp_handler
        found = {"kinds": kinds, "weights": local, "unused_are_sought": handler.find_unused_parameters}
        torch.save(found, f"{self.args.output_dir}.rank{self.args.process_index}.pt")
        return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if os.environ.get("SPLIT_ON_CPU"):
        PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType[os.environ["SPLIT_ON_CPU"]])
    sft.StageTrainer = RecordingTrainer
    for argv in json.loads(Path(sys.argv[1]).read_text()):
        sft.main(argv)
    torch.distributed.destroy_process_group()
    os._exit(0)  # now and then gloo's threads abort a process that takes itself apart
