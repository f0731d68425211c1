"""docs/cluster.md can be pasted: scripts parse, and every command is one that its tool takes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from trainers.sft import make_parser

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8"), flags=re.DOTALL)
VARIABLES = {
    "HEAD": "node0", "MACHINES": "2", "RANK_OF_MACHINE": "1", "SLURM_NNODES": "2", "SLURM_JOB_ID": "7",
    "ACCOUNT": "me", "REPOSITORY": "https://example.org/code.git", "MODEL": "me/model", "DATA": "me/data",
}  # fmt: skip


def commands(program: str) -> list[list[str]]:
    """All uses of a program in the document, as the shell would split them."""
    text = "\n".join(BLOCKS).replace("\\\n", " ")
    for name, value in VARIABLES.items():
        text = text.replace(f"${name}", value).replace(f"${{{name}}}", value)
    found = re.findall(rf"(?m)(?:^|\s)({re.escape(program)} .*)$", text)
    return [shlex.split(line.rstrip("'")) for line in found]


def check_training(argv: list[str]) -> None:
    """Every argument behind `spatialboost_cli train` exists, and so does the recipe."""
    assert argv[:2] == ["spatialboost_cli", "train"]
    known = {option for action in make_parser()._actions for option in action.option_strings}
    assert {word for word in argv if word.startswith("--")} <= known
    assert (ROOT / argv[argv.index("--config") + 1]).is_file()


@pytest.mark.parametrize("block", BLOCKS)
def test_scripts_parse(block):
    done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_torchrun_commands():
    found = [command for command in commands("torchrun") if "--help" not in command]
    assert len(found) == 4
    known = {option for action in get_args_parser()._actions for option in action.option_strings}
    for command in found:
        if not {"--shutdown_timeout"} <= known:  # newer than the oldest torch that we support
            command = [word for word in command if word not in ("--shutdown_timeout", "110")]
        arguments = get_args_parser().parse_args(command[1:])
        assert arguments.module and arguments.nproc_per_node == "8"
        check_training([arguments.training_script, *arguments.training_script_args])


def test_accelerate_commands():
    found = commands("accelerate launch")
    assert len(found) == 4
    for command in found:
        arguments = launch_command_parser().parse_args(command[2:])
        assert arguments.module and (ROOT / arguments.config_file).is_file()
        check_training([arguments.training_script, *arguments.training_script_args])


def test_the_job_is_one_that_the_hub_command_takes():
    block = next(block for block in BLOCKS if "hf jobs run" in block)
    submit = block[block.index("hf jobs run") : block.index("hf jobs ls")]
    hf = Path(sys.executable).with_name("hf")
    script = submit.replace("hf jobs run", f"{hf} jobs run --dry-run", 1)
    environment = os.environ | VARIABLES | {"HF_TOKEN": "hf_none"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for part in ("a100x8", "hf://buckets/me/spatialboost-runs:/runs", "python:3.12", "MODEL=me/spatialboost-stage2"):
        assert part in done.stdout
    assert "hf_none" not in done.stdout
