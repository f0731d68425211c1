r"""The small models that come with the code: a base encoder, a language model, and what the three stages make of them.

    python -m experiments.assets                    # rebuilds them all in experiments/assets: an hour on a CPU
    python -m experiments.assets --smallest --output outputs/assets-smallest      # to see that it runs: minutes
    spatialboost boost experiments/assets/base --adapter experiments/assets/boosted --output outputs/boosted

`base` and `language_model` load by their names in transformers; `stage2` and `vlm` are the vision-language models
after stages 2 and 3 of `spatialboost train`; `boosted` is the second channel of `vlm` alone, an adapter on `base`;
`depth_reader` is a vision-language model with the same base, whose language model has learnt to read depth.
`run.json` in each folder tells how it was made and names its files by their SHA-256; the recipe is the table below,
and a test checks that both agree.
"""

import argparse
import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoTokenizer

from dataset_builders.sources.synthetic_variety import RICH
from experiments import base_encoder, language_model
from experiments.asset_cards import card
from experiments.base_encoder import EncoderShape, train_base_encoder
from experiments.fitting import command, hardware
from experiments.image_reading import held_out_files, measure_reading
from experiments.language_model import LanguageShape, train_language_model
from experiments.pointing import NUM_QUESTIONS
from experiments.presets import PRACTICE_RATE, PRACTICES, PROJECTOR_RATE, READER_RUNS, RUNS, STAGE_DATA
from experiments.ridge_probe import is_admitted, probe
from experiments.variants import make_variant
from experiments.workshop import entries_of, rate_words, recipe_of
from experiments.world import WorldSize, make_world
from modeling_spatialboost import SpatialBoostForConditionalGeneration, SpatialBoostModel, SpatialBoostProcessor
from trainers.run_record import git_commit, package_versions, read_record, write_record

ASSETS = Path(__file__).parent / "assets"
NAMES = ("base", "language_model", "stage2", "vlm", "boosted", "depth_reader")
LARGEST_BYTES = 20_000_000  # of all weights together
# The runs that an asset is the end of, each from the model of the one before.
CHAINS = {"stage2": RUNS[:-1], "vlm": RUNS, "boosted": RUNS, "depth_reader": ("stage1", *PRACTICES, *READER_RUNS)}
SEEN = ("alignment", "pointing", "grounding", "multi_view_vqa", "single_view")
READ_CONFIGS = {
    "stage2": SEEN,
    "vlm": SEEN,
    "depth_reader": (*SEEN[:3], "depth_pointing", "depth_questions", "single_view_in_depth", "single_view"),
}


@dataclass(frozen=True)
class AssetRecipe:
    """All numbers behind the assets.

    Attributes:
        world: size of the world that they have seen.
        encoder, language: shapes.
        objective: of the base encoder.
        encoder_steps, encoder_batch, language_steps, language_batch: of the two starting models.
        stage_steps, stage_rates: steps and peak rates of `RUNS`; stage 3 has the recipe's for the rest.
        stage_batches: conversations of a step in each.
        reader_steps: of `READER_RUNS`, with the batch of the practices.
        seed: of everything.
    """

    world: WorldSize
    encoder: EncoderShape
    language: LanguageShape
    objective: str
    encoder_steps: int
    encoder_batch: int
    language_steps: int
    language_batch: int
    stage_steps: tuple[int, int, int, int, int]
    stage_rates: tuple[float, float, float, float, float]
    stage_batches: tuple[int, int, int, int, int]
    reader_steps: tuple[int, int, int]
    seed: int = 0


SHIPPED = AssetRecipe(
    world=WorldSize(num_scenes=2000, views=4, image_size_px=64, workers=1),
    encoder=EncoderShape(width=128, num_layers=4),
    language=LanguageShape(width=64, num_layers=2),
    objective="attributes+places",
    encoder_steps=2000,
    encoder_batch=64,
    language_steps=3000,
    language_batch=16,
    stage_steps=(100, 2200, 1000, 800, 400),
    stage_rates=(3e-3, PRACTICE_RATE, PRACTICE_RATE, 3e-3, 3e-4),
    stage_batches=(32, 16, 16, 32, 16),
    reader_steps=(500, 500, 250),
)
SMALLEST = AssetRecipe(
    world=WorldSize(num_scenes=12, views=4, image_size_px=64, workers=1),
    encoder=EncoderShape(width=64, num_layers=2),
    language=LanguageShape(width=64, num_layers=1, vocabulary_size=512),
    objective="masked_images+attributes",
    encoder_steps=4,
    encoder_batch=8,
    language_steps=4,
    language_batch=4,
    stage_steps=(2, 2, 2, 2, 2),
    stage_rates=(3e-3, PRACTICE_RATE, PRACTICE_RATE, 1e-3, 1e-3),
    stage_batches=(4, 4, 4, 4, 4),
    reader_steps=(2, 2, 2),
)


def asset(name: str) -> Path:
    """Folder of an asset, one of `NAMES`.

    Raises:
        ValueError: there is no such asset, or it is not in this installation.
    """
    if name not in NAMES:
        raise ValueError(f"asset={name!r}: pass one of {', '.join(NAMES)}.")
    if read_record(ASSETS / name) is None:
        raise ValueError(f"asset={name!r} is not in {ASSETS}: rebuild it with `python -m experiments.assets`.")
    return ASSETS / name


def described(recipe: AssetRecipe, name: str) -> dict[str, Any]:
    """A recipe as it stands in an asset's record, with what the code fixes; the number of workers changes nothing."""
    numbers = json.loads(json.dumps(asdict(recipe)))
    del numbers["world"]["workers"]
    runs: tuple[str, ...] = RUNS
    if name == "depth_reader":
        runs = (*RUNS, *READER_RUNS)
        numbers["reader_rates"] = [list(rates) for rates in READER_RUNS.values()]
    else:
        del numbers["reader_steps"]
    numbers["world"]["variety"] = hashlib.sha256(repr(RICH).encode()).hexdigest()[:16]
    rates = {"encoder_rate": base_encoder.LEARNING_RATE, "language_rate": language_model.LEARNING_RATE}
    rates["stage3_projector_rate"] = PROJECTOR_RATE
    language: dict[str, Any] = {"language_window": language_model.LEARNT_TOKENS}
    language |= {"near_tokens": language_model.NEAR_TOKENS}
    language |= {"initial_scale": language_model.INITIAL_SCALE, "practice_questions": NUM_QUESTIONS}
    reads = {run: [" ".join(rows).strip() for rows in STAGE_DATA[run]] for run in runs}
    return numbers | rates | language | {"reads": reads}


def build(recipe: AssetRecipe, output: Path, work: Path, command_line: str, names: tuple[str, ...] = NAMES) -> None:
    """Make assets; what is finished in `work` is reused.

    Args:
        recipe: of all.
        output: folder of the assets.
        work: folder for the world and the runs between.
        command_line: that made them, for the records.
        names: of `NAMES`; the others must be in `output` where these begin with them.
    """
    world = make_world(work / "world", recipe.world, recipe.seed)
    made: dict[str, Any] = {"status": "finished", "command": command_line}
    made |= {"hardware": hardware("cpu"), "git_commit": git_commit(), "versions": package_versions()}
    base = train_base_encoder(
        world.data,
        work / "base",
        recipe.encoder,
        recipe.encoder_steps,
        recipe.encoder_batch,
        recipe.seed,
        recipe.objective,
    )
    language = train_language_model(
        world.data, work / "language_model", recipe.language, recipe.language_steps, recipe.language_batch, recipe.seed
    )
    if "base" in names:
        save_base(base, output / "base")
    if "language_model" in names:
        save_language_model(language, output / "language_model")
    runs = dict.fromkeys(run for name in names for run in CHAINS.get(name, ()))
    train_runs(recipe, tuple(runs), world.data, output, work)
    for name, chain in CHAINS.items():
        if name == "boosted" and name in names:
            save_boosted(work / "stage3" / "encoder", output / "base", output / "boosted")
        elif name in names:
            save_vlm(work / chain[-1], output / name)
    parts = {"base": [base], "language_model": [language]}
    parts |= {name: [work / run for run in chain] for name, chain in CHAINS.items()}
    findings = measure(world.data, output, work, names)
    for name in names:
        record = made | {"recipe": described(recipe, name), "trained": [_history(part) for part in parts[name]]}
        leave(output / name, record | findings[name])
    total = sum(file.stat().st_size for name in names for file in (output / name).glob("*.safetensors"))
    print(f"{output}: {', '.join(names)}, {total / 1e6:.1f} MB of weights")


def save_base(trained: Path, folder: Path) -> None:
    """The encoder in bfloat16, with its image processor."""
    AutoModel.from_pretrained(trained, dtype=torch.bfloat16).save_pretrained(folder)
    AutoImageProcessor.from_pretrained(trained).save_pretrained(folder)


def save_language_model(trained: Path, folder: Path) -> None:
    """The language model in bfloat16, with its tokenizer."""
    AutoModelForCausalLM.from_pretrained(trained, dtype=torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(trained).save_pretrained(folder)


def save_vlm(trained: Path, folder: Path) -> None:
    """A vision-language model in bfloat16 with its processor, without the code that would travel to the Hub."""
    SpatialBoostForConditionalGeneration.from_pretrained(trained, dtype=torch.bfloat16).save_pretrained(folder)
    SpatialBoostProcessor.from_pretrained(trained).save_pretrained(folder)
    for file in folder.glob("*.py"):
        file.unlink()


def save_boosted(trained: Path, base: Path, folder: Path) -> None:
    """The second channel that stage 3 trained, in bfloat16, as an adapter on the saved base."""
    encoder = SpatialBoostModel.from_pretrained(trained, dtype=torch.bfloat16)
    report = encoder.verify_base_channel(str(base))
    assert report, report  # stage 1 started from this very folder
    encoder.save_adapter(folder)


def train_runs(recipe: AssetRecipe, runs: tuple[str, ...], data: Path, output: Path, work: Path) -> None:
    """Runs of `spatialboost train`, from the saved assets on; `work` has a folder for each."""
    from trainers import sft

    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    def folder_of(variant: str, config: str) -> Path:
        return make_variant(data, work / variant, variant, (config,), recipe.world.workers) if variant else data

    before = {run: earlier for chain in CHAINS.values() for earlier, run in pairwise(chain)}
    for run in runs:
        names = entries_of(run, data, folder_of)
        start = ["--encoder", str(output / "base"), "--language_model", str(output / "language_model")]
        start = ["--model", str(work / before[run])] if run in before else start
        steps, batch, rates = numbers_of(recipe, run)
        at_once = min(batch, 16)  # of like length
        settings = ["--max_steps", str(steps), "--train_sampling_strategy", "batch_rebalance"]
        settings += ["--per_device_train_batch_size", str(at_once)]
        settings += ["--gradient_accumulation_steps", str(batch // at_once)]
        settings += ["--seed", str(recipe.seed), "--report_to", "none", "--resume_from_checkpoint", "auto"]
        settings += [*rate_words(*rates), "--save_steps", "250"]
        settings += ["--cache_features", str(work / "features")] if run != "stage3" else []
        arguments = ["--config", os.path.relpath(recipe_of(run)), *start, "--datasets", *names]
        code = sft.main([*arguments, "--output_dir", str(work / run), *settings])
        if code:
            raise ValueError(f"{run} stopped with exit code {code}: run the command again to go on.")


def numbers_of(recipe: AssetRecipe, run: str) -> tuple[int, int, tuple[float, ...]]:
    """Steps, batch and peak rates (of the projector, too, where it has its own) of a run."""
    if run in READER_RUNS:
        batch = recipe.stage_batches[RUNS.index(PRACTICES[0])]
        return dict(zip(READER_RUNS, recipe.reader_steps))[run], batch, READER_RUNS[run]
    index = RUNS.index(run)
    own = (PROJECTOR_RATE,) if run == "stage3" else ()
    return recipe.stage_steps[index], recipe.stage_batches[index], (recipe.stage_rates[index], *own)


def measure(data: Path, output: Path, work: Path, names: tuple[str, ...] = NAMES) -> dict[str, dict[str, Any]]:
    """What each asset is worth: ridge probes of both encoders, fluency, and answers with and without the image."""
    found: dict[str, dict[str, Any]] = {}
    if {"base", "boosted"} & {*names}:
        scores = measure_encoders(data, output, work)
        found["base"] = {"probes": scores, "admitted": is_admitted(scores["base"], scores["position"])}
        found["boosted"] = {"probes": scores}
    if "language_model" in names:
        record = read_record(work / "language_model") or {}
        found["language_model"] = {key: record[key] for key in ("perplexity", "perplexity_told")}
    for name, configs in READ_CONFIGS.items():
        if name in names:
            there = [config for config in configs if held_out_files(data, config)]
            reading = measure_reading(work / CHAINS[name][-1], data, there, limit=100)
            found[name] = {"stage": 3 if name == "vlm" else 2, "reading": reading}
    return found


def measure_encoders(data: Path, output: Path, work: Path) -> dict[str, dict[str, float]]:
    """Ridge probes of position, base, boosted and a random encoder."""
    boosted = work / "boosted"
    if not boosted.is_dir():
        SpatialBoostModel.from_adapter(output / "boosted", output / "base").save_pretrained(boosted)
        AutoImageProcessor.from_pretrained(output / "base").save_pretrained(boosted)
    found = probe([str(output / "base"), str(boosted)], data, limit=1000)
    names = list(found)
    scores = {"position": found["position"], "base": found[names[1]], "boosted": found[names[2]]}
    return scores | {"random base": found[names[3]]}


def _history(folder: Path) -> dict[str, Any]:
    """What of a run's own record holds anywhere."""
    record = read_record(folder) or {}
    kept = ["git_commit", "hardware", "losses", "steps", "mean_loss", "final_loss", "alpha"]
    kept += ["trainable_parameters", "frozen_parameters"]
    history = {"run": folder.name} | {name: record[name] for name in kept if name in record}
    history.setdefault("steps", record.get("recipe", {}).get("steps"))
    return history | {"seconds_since_last_start": record["seconds"]}  # a run that was resumed took longer


def leave(folder: Path, record: dict[str, Any]) -> None:
    """Write the card, and the record with the hashes of all files."""
    (folder / "README.md").write_text(card(folder.name, record), encoding="utf-8")
    files = sorted(file for file in folder.iterdir() if file.name != "run.json")
    for file in files:
        file.chmod(0o644)  # safetensors leaves them to their owner alone
    write_record(folder, record | {"files": {file.name: sha256(file) for file in files}})


def sha256(file: Path) -> str:
    """Of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `python -m experiments.assets`."""
    parser = argparse.ArgumentParser(prog="experiments.assets", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--output", type=Path, default=ASSETS, help="folder of the assets (default: experiments/assets)"
    )
    parser.add_argument("--work", type=Path, default=Path("outputs/assets"), help="folder for the world and the runs")
    parser.add_argument("--only", choices=NAMES, nargs="+", default=NAMES, help="leave the other assets as they are")
    parser.add_argument("--smallest", action="store_true", help="a few rooms and steps, only to see that it runs")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0.

    Raises:
        ValueError: `--smallest` would replace the real assets.
    """
    given = make_parser().parse_args(argv)
    if given.smallest and given.output == ASSETS:
        raise ValueError(f"--smallest would replace the assets in {ASSETS}: pass another --output.")
    words = ["--only", *given.only] if tuple(given.only) != NAMES else []
    words += ["--smallest"] if given.smallest else []
    command_line = " ".join(["python -m experiments.assets", *words])
    build(SMALLEST if given.smallest else SHIPPED, given.output, given.work, command_line, tuple(given.only))
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
