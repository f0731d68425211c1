"""What `--preset cpu` costs in each robot suite: processor time, of which half is an estimate for two idle cores.

python -m benchmarks.robots_cost --smallest      # half a minute
python -m benchmarks.robots_cost --output robots_cost.json

DMControl and Adroit have no expert, so that recordings of random motor commands stand in for demonstrations: as long
as real ones, and worth as little as the scores that come of them. The encoder is tiny and random.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import add_arguments, begin, save
from benchmarks.robots import cpu_seconds, make_encoder
from evaluators.robots.simulators import ROBOT_TASKS, make_simulator
from evaluators.run import main as evaluate

TASKS = {
    "metaworld_bin_picking": "robot_success",
    "adroit_pen": "robot_success",
    "dmcontrol_walker_walk": "robot_return",
}
EPISODES = 10  # as many as the preset imitates


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.robots_cost", description=__doc__.split("\n")[0])
    parser.add_argument("--smallest", action="store_true", help="a few steps of everything, to see that it runs")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS), help="default: one per suite")
    add_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    arguments = make_parser().parse_args(argv)
    about = begin(arguments.threads or 1, on_gpu=False)
    rows = []
    for task in arguments.tasks:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(task, Path(folder), arguments.smallest))
    print(table(rows))
    save(arguments.output, "robots_cost", argv, {"about": about, "rows": rows})
    return 0


def measure(task_name: str, folder: Path, smallest: bool) -> dict[str, Any]:
    """Evaluate two tiny encoders, base and boosted, with all controls; return what it cost."""
    data = task_name
    if ROBOT_TASKS[task_name].suite != "metaworld":
        record(task_name, folder / "recordings", 10 if smallest else ROBOT_TASKS[task_name].horizon_steps)
        data = f"{task_name}={folder / 'recordings'}"
    for side in ("base", "boosted"):
        make_encoder(folder / side, seed=len(side))
    command = ["--base", f"{folder}/base", "--boosted", f"{folder}/boosted", "--output", f"{folder}/report"]
    command += ["--tasks", TASKS[task_name], "--data", data, "--preset", "cpu", "--device", "cpu"]
    if smallest:
        small = ("demonstrations=2", "rollouts=2", "epochs=2", "evaluate_every=1", "horizon_steps=8")
        command += ["--set", *(f"{TASKS[task_name]}.{setting}" for setting in small)]
    before, started = cpu_seconds(), time.perf_counter()
    evaluate(command)
    return {
        "task": task_name,
        "cpu_seconds": round(cpu_seconds() - before, 1),
        "wall_seconds": round(time.perf_counter() - started, 1),
    }


def record(task_name: str, folder: Path, steps: int) -> None:
    """Write recordings of random motor commands, in the layout of `evaluators.robots.recordings`."""
    simulator, random = make_simulator(ROBOT_TASKS[task_name]), np.random.default_rng(0)
    folder.mkdir(parents=True)
    for seed in range(EPISODES):
        simulator.reset(seed)
        actions = random.uniform(-1, 1, (steps, simulator.num_actions)).astype(np.float32)
        states = []
        for action in actions:
            states.append(_state(simulator, task_name))
            simulator.step(action)
        columns: dict[str, Any] = {name: np.stack([state[name] for state in states]) for name in states[0]}
        np.savez(folder / f"episode_{seed}.npz", actions=actions, **columns)


def _state(simulator: Any, task_name: str) -> dict[str, np.ndarray]:
    if ROBOT_TASKS[task_name].suite == "dmcontrol":
        return {"internal_state": simulator._environment.physics.get_state()}
    return simulator._environment.get_env_state()


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| task | CPU s | CPU s / 2: estimate for two idle cores | wall s, here |", "|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['task']} | {row['cpu_seconds']} | {row['cpu_seconds'] / 2:.0f} | {row['wall_seconds']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
