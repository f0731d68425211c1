"""What an arm's encoder is worth: calls of `spatialboost evaluate`, base beside arm, and their per-item results."""

import dataclasses
import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.catalogue import DATA_SETS
from experiments.arms import ARMS, CONTROLS, Arm
from experiments.pieces import Piece, device, shown, typed
from experiments.tables import CALLS, MEASURES, Measure
from experiments.workshop import Workshop

ITEMS = "items.npz"
READING = "reading.json"
NUM_READ = 40  # held-out conversations of each
READ_CONFIGS = {  # by whether the model has learnt to read depth
    False: ("alignment", "pointing", "grounding", "single_view"),
    True: ("alignment", "pointing", "depth_pointing", "depth_questions", "single_view_in_depth", "single_view"),
}
DENSE_TASKS = ("depth_linear", "depth_dpt", "segmentation_linear")


def applies(call: str, arm: Arm) -> bool:
    """Whether a call says something of an arm: only stage 3 leaves a model to ask; controls get no new readers."""
    if call == "reading":
        return arm.name not in CONTROLS and arm.variant != "shuffled_answers"
    return call != "questions" or arm.learns_from == "language"


def measure_arm(workshop: Workshop, arm: Arm, call: str) -> Piece:
    """Measure an arm beside the plain base by one call; finished measurements are used again."""
    base = ARMS["base"]
    encoders = {"--base": workshop.encoder_of(base), "--boosted": workshop.encoder_of(arm)}
    inputs = [workshop.make_world(), workshop.arm(base), workshop.arm(arm)]
    words = [word for option, folder in encoders.items() for word in (option, shown(folder))]
    if call == "questions":
        models = [workshop.start_of(arm), workshop.arm(arm)]
    elif call == "reading":
        models = [workshop.reader(base), workshop.reader(arm)]
    else:
        models = []
    for option, model in zip(("--base-vlm", "--boosted-vlm"), models):
        words += [option, shown(model.folder)]
    folder = workshop.folder / "measures" / call / arm.name
    words += [*_arguments(workshop, call), "--output", shown(folder)]
    return workshop.ledger.do(
        folder, typed("evaluate", words), [*inputs, *models], lambda: _evaluate(words, workshop.preset.probe_steps)
    )


def measure_start(workshop: Workshop, arm: Arm) -> Piece:
    """Whether the model that an arm of language starts from looks: held-out answers with and without the image."""
    from experiments.image_reading import held_out_files, measure_reading

    model = workshop.start_of(arm)
    data, folder = workshop.places().data, reading_of(workshop.folder, arm)
    configs = [config for config in READ_CONFIGS[workshop.reads_depth(arm)] if held_out_files(data, config)]
    words = ["--data", shown(data), "--configs", *configs, "--limit", str(NUM_READ), "--json", shown(folder / READING)]
    command = f"python -m experiments.image_reading {shown(model.folder)} {shlex.join(words)}"

    def work() -> None:
        found = measure_reading(model.folder, data, configs, NUM_READ, device())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / READING).write_text(json.dumps(found, indent=1) + "\n")

    return workshop.ledger.do(folder, command, [workshop.make_world(), model], work)


def reading_of(folder: Path, arm: Arm) -> Path:
    """Where `measure_start` writes, below `Workshop.folder`."""
    return folder / "measures" / "_".join(filter(None, ["start", arm.base, arm.start]))


def read_start(folders: Iterable[Path], arm: Arm) -> dict[str, dict[str, float]]:
    """By configuration, loss per token of its answers with the own image, another one and none; means over seeds.

    Args:
        folders: `Workshop.folder` of the seeds.
        arm: that starts from the model.
    """
    files = [reading_of(folder, arm) / READING for folder in folders]
    found = [json.loads(file.read_text()) for file in files if file.is_file()]
    return {
        config: {
            shown: float(np.mean([one[config]["all"]["loss"][shown] for one in found]))
            for shown in found[0][config]["all"]["loss"]
        }
        for config in (found[0] if found else ())
    }


def _arguments(workshop: Workshop, call: str) -> list[str]:
    """What a call of the command says besides its encoders and its output."""
    preset, world = workshop.preset, workshop.places()
    places = {"rooms": world.data, "folder": world.objects, "roxford": world.places}
    read = [name for name in places if any(task in DATA_SETS[name].tasks for task in CALLS[call])]
    words = ["--tasks", ",".join(CALLS[call]), "--data", *(f"{name}={shown(places[name])}" for name in read)]
    words += ["--preset", "cpu", "--seeds", *map(str, preset.head_seeds), "--device", device()]
    words += ["--cache-dir", shown(workshop.folder / "features")]
    if preset.probe_limit is not None:
        words += ["--limit", str(preset.probe_limit)]
    if call in ("questions", "reading"):
        settings = {"num_items": preset.num_conversations, "max_new_tokens": preset.answer_tokens}
        settings |= {"batch_size": preset.answer_batch} if preset.answer_batch is not None else {}
        words += ["--set", *(f"spatial_questions.{name}={value}" for name, value in settings.items())]
    if call == "more_probes" and preset.probe_steps is not None:
        words += ["--set", f"linear_classification.steps={preset.probe_steps}"]
    return words


def _evaluate(words: list[str], probe_steps: int | None) -> None:
    """The command itself, and its per-item results beside its report, which differences between arms are made of."""
    from accelerate import PartialState

    from evaluators import run
    from evaluators.plan import make_plan

    arguments = run.make_parser().parse_args(words)
    plan = make_plan(arguments)
    if probe_steps is not None:
        for entry, config in plan.configs.items():
            if entry.split("/")[0] in DENSE_TASKS:
                plan.configs[entry] = dataclasses.replace(config, fit=_short_fit(entry, probe_steps))
    arguments.output.mkdir(parents=True, exist_ok=True)
    sides, failed = run.measure(arguments, plan, PartialState(cpu=arguments.device == "cpu"))
    if failed:
        raise next(iter(failed.values()))
    run.report(arguments, plan, sides, failed, arguments.device)
    items = {
        f"{entry}|{side}|{number}": array
        for side, results in zip(("base", "boosted"), sides)
        for entry, result in results.items()
        for number, array in enumerate(result["items"])
    }
    np.savez_compressed(arguments.output / ITEMS, **items)


def _short_fit(entry: str, steps: int) -> Any:
    """The small protocol's optimisation with other steps."""
    from evaluators.catalogue import task_module

    small = task_module(entry.split("/")[0]).FIT_PRESETS["cpu"]
    return dataclasses.replace(small, steps=steps, warmup_steps=min(small.warmup_steps, steps // 3))


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a measure says of an arm in one seed.

    Attributes:
        items: per head seed (num_items, D), what `evaluators.comparison` resamples.
        row: of results.json: values of both sides, difference, controls.
        entry: all of the entry in results.json.
    """

    items: list[np.ndarray]
    row: dict[str, Any]
    entry: dict[str, Any]


def read_measure(folder: Path, arm: Arm, measure: Measure) -> Reading | None:
    """What a measure says of an arm, None where it says nothing.

    Args:
        folder: `Workshop.folder` of a seed.
        arm: the plain base is read off the other side of the boosted arm's measurement, or of any.
        measure: a row of `MEASURES`.
    """
    measured, side = folder / "measures" / measure.call, "base" if arm.name == "base" else "boosted"
    places = [measured / "language", *sorted(measured.glob("*"))] if side == "base" else [measured / arm.name]
    place = next((place for place in places if (place / "results.json").is_file()), None)
    if place is None:
        return None
    entry = json.loads((place / "results.json").read_text())["tasks"][measure.entry]
    row = entry["metrics"].get(measure.metric)
    if row is None:
        return None
    with np.load(place / ITEMS) as arrays:
        wanted = [key for key in arrays.files if key.startswith(f"{measure.entry}|{side}|")]
        return Reading([arrays[key] for key in wanted], row | {"value": row[side]["mean"]}, entry)


def calls_of(measures: tuple[str, ...]) -> list[str]:
    """The calls that give some measures, each once."""
    return list(dict.fromkeys(MEASURES[name].call for name in measures))
