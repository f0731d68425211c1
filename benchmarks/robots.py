"""Does a policy act better through a trained encoder than through a random one? On a CPU, in a MetaWorld simulation.

python -m benchmarks.robots --smallest      # half a minute: the same path, nothing is learnt
python -m benchmarks.robots --folder out/robots --output robots.json

A tiny DINOv3 learns from the simulator's own pictures, of seeds that neither demonstrations nor rollouts have, where
gripper, object and goal are. It is then frozen and compared with its own first weights by `spatialboost evaluate`,
whose controls stand beside it. This shows that the protocol can tell encoders apart, not what SpatialBoost brings.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import binomtest
from torch.nn import functional
from tqdm import tqdm

from benchmarks.record import add_arguments, begin, save
from evaluators.encoders import load_encoder
from evaluators.robots.rendering import Camera
from evaluators.robots.simulators import ROBOT_TASKS, make_simulator
from evaluators.run import main as evaluate

FIRST_SEED = 100_000  # demonstrations have seeds from 0 on, rollouts from 10,000 on
RENDERED_PX, INPUT_PX = 128, 64
HELD_OUT_SHARE = 0.1
LEARNING_RATE, BATCH_SIZE = 1e-3, 64
# of MetaWorld's state: hand, gripper, first object; the goal
POSITIONS = (*range(7), 36, 37, 38)


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.robots", description=__doc__.split("\n")[0])
    parser.add_argument("--smallest", action="store_true", help="a few steps of everything, to see that it runs")
    parser.add_argument(
        "--task",
        default="metaworld_button_press_topdown",
        choices=[name for name in ROBOT_TASKS if "metaworld" in name],
    )
    parser.add_argument("--episodes", type=int, default=250, help="that the encoder is trained on")
    parser.add_argument("--epochs", type=int, default=14, help="of the encoder's training")
    parser.add_argument("--demonstrations", type=int, default=5, help="that the policies imitate")
    parser.add_argument("--rollouts", type=int, default=20, help="of each policy")
    parser.add_argument("--horizon-steps", type=int, default=120, help="of a rollout")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the policies")
    parser.add_argument("--folder", type=Path, help="keeps encoders and report; trained encoders there are used again")
    add_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Train the encoder, evaluate, print."""
    arguments = make_parser().parse_args(argv)
    if arguments.smallest:
        arguments.episodes, arguments.epochs, arguments.demonstrations, arguments.rollouts = 2, 1, 2, 2
        arguments.seeds = [0]
    about = begin(arguments.threads or 1, on_gpu=False)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)) / arguments.task
        if not (folder / "training.json").is_file():
            pictures, positions = show(arguments.task, arguments.episodes)
            train(folder, pictures, positions, arguments.epochs)
        training = json.loads((folder / "training.json").read_text())
        evaluated = compare(folder, arguments)
    print(table(evaluated["rows"]))
    save(arguments.output, "robots", argv, {"about": about, "training": training, **evaluated})
    return 0


def show(task_name: str, episodes: int, pictures_per_episode: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Render what a scripted expert with a trembling hand does.

    Returns:
        Pictures (N, RENDERED_PX, RENDERED_PX, 3) uint8 and positions (N, P) float32, in metres but for the gripper.
    """
    task = ROBOT_TASKS[task_name]
    simulator, random = make_simulator(task), np.random.default_rng(0)
    simulator.reset(FIRST_SEED)
    camera = Camera(simulator.scene[0], task.camera, RENDERED_PX, task.upside_down)
    pictures, positions = [], []
    for seed in tqdm(range(FIRST_SEED, FIRST_SEED + episodes), desc="pictures", unit="episode"):
        simulator.reset(seed)
        tremor, seen = random.uniform(0, 1), set(random.choice(150, pictures_per_episode, replace=False))
        for step in range(max(seen) + 1):
            if step in seen:
                pictures.append(camera(*simulator.scene))
                positions.append(simulator.state()[list(POSITIONS)])
            action = simulator.expert_action()
            assert action is not None  # MetaWorld has experts
            simulator.step(action + random.normal(0, tremor, simulator.num_actions))
    camera.close()
    return np.array(pictures), np.array(positions)


def make_encoder(folder: Path, seed: int = 0) -> tuple[Any, Any]:
    """Make and save a tiny DINOv3 with fresh weights; return the model and its image processor."""
    from transformers import DINOv3ViTConfig, DINOv3ViTImageProcessor, DINOv3ViTModel

    torch.manual_seed(seed)
    config = DINOv3ViTConfig(
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=3,
        intermediate_size=192,
        patch_size=8,
        image_size=INPUT_PX,
        num_register_tokens=0,
    )
    model = DINOv3ViTModel(config)
    processor = DINOv3ViTImageProcessor(size={"height": INPUT_PX, "width": INPUT_PX})
    for part in (model, processor):
        part.save_pretrained(folder)
    return model, processor


def train(folder: Path, pictures: np.ndarray, positions: np.ndarray, epochs: int) -> None:
    """Teach a tiny DINOv3's class token the positions; save its first weights, its last ones and training.json."""
    started = time.process_time()
    model, processor = make_encoder(folder / "random")
    prepare = load_encoder(str(folder / "random")).preprocessing
    pixels = torch.stack([prepare(Image.fromarray(picture), (INPUT_PX, INPUT_PX)) for picture in pictures])
    targets = torch.from_numpy(positions)
    targets = targets[:, targets.std(0) > 1e-4]  # what never moves teaches nothing
    targets = (targets - targets.mean(0)) / targets.std(0)
    cut = round(len(pixels) * (1 - HELD_OUT_SHARE))  # the last episodes
    head = torch.nn.Linear(model.config.hidden_size, targets.shape[1])
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], LEARNING_RATE, weight_decay=0.01)
    steps = epochs * -(-cut // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in tqdm(range(epochs), desc="encoder", unit="epoch"):
        for batch in torch.randperm(cut).split(BATCH_SIZE):
            optimizer.zero_grad()
            predicted = head(model(pixels[batch]).last_hidden_state[:, 0])
            functional.mse_loss(predicted, targets[batch]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        predicted = torch.cat([head(model(part).last_hidden_state[:, 0]) for part in pixels[cut:].split(BATCH_SIZE)])
    for part in (model, processor):
        part.save_pretrained(folder / "trained")
    training = {
        "pictures": cut,
        "epochs": epochs,
        "held_out_share_of_variance": (predicted - targets[cut:]).square().mean(0).tolist(),
        "cpu_seconds": round(time.process_time() - started),
    }
    (folder / "training.json").write_text(json.dumps(training, indent=1) + "\n")


def compare(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run `spatialboost evaluate` on both encoders; return its command, its costs and successes in rows."""
    settings = {name: getattr(arguments, name) for name in ("demonstrations", "rollouts", "horizon_steps")}
    settings["evaluate_every"] = 100  # only after the last epoch
    if arguments.smallest:
        settings |= {"horizon_steps": 8, "epochs": 2, "evaluate_every": 2, "image_size_px": 32}
    command = (
        f"--base {folder}/random --boosted {folder}/trained --tasks robot_success --data {arguments.task}".split()
    )
    command += ["--preset", "cpu", "--device", "cpu", "--output", str(folder / "report"), "--seeds"]
    command += [*map(str, arguments.seeds), "--set", *(f"robot_success.{key}={settings[key]}" for key in settings)]
    before, started = cpu_seconds(), time.perf_counter()
    evaluate(command)
    seconds = {"cpu": round(cpu_seconds() - before), "wall": round(time.perf_counter() - started)}
    entry = json.loads((folder / "report" / "results.json").read_text())["tasks"][f"robot_success/{arguments.task}"]
    metric = entry["metrics"]["success_last"]
    found = {"random": metric["base"]["per_seed"], "trained": metric["boosted"]["per_seed"]}
    found |= {f"control: {name}": [score] for name, score in metric["controls"].items()}
    return {
        "evaluate": " ".join(command),
        "seconds": seconds,
        "settings": entry["protocol"]["settings"],
        "difference": metric["difference"],
        "rows": [row(name, rates, entry["num_items"]) for name, rates in found.items()],
    }


def row(name: str, rates: list[float], rollouts: int) -> dict[str, Any]:
    """Count the successes of rates per cent, one per seed, with Wilson's 95 % interval of all of them together."""
    successes = [round(rate * rollouts / 100) for rate in rates]
    trials = rollouts * len(rates)
    interval = binomtest(sum(successes), trials).proportion_ci(method="wilson")
    return {"input": name, "successes": successes, "trials": trials, "interval": [interval.low, interval.high]}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| the policy sees | successes by seed | together | 95 % interval |", "|---|---|---|---|"]
    for one in rows:
        by_seed, (low, high) = ", ".join(map(str, one["successes"])), one["interval"]
        together = f"{sum(one['successes'])} of {one['trials']}"
        lines.append(f"| {one['input']} | {by_seed} | {together} | {low:.0%} to {high:.0%} |")
    return "\n".join(lines)


def cpu_seconds() -> float:
    """User and system time of this process and its threads so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
