r"""The small models that come with the code: a base encoder, a language model, and what the three stages make of them.

    python -m experiments.assets                    # rebuilds them all in experiments/assets: an hour on a CPU
    python -m experiments.assets --smallest --output outputs/assets-smallest      # to see that it runs: minutes
    spatialboost boost experiments/assets/base --adapter experiments/assets/boosted --output outputs/boosted

`base` and `language_model` load by their names in transformers; `stage2` and `vlm` are the vision-language models
after stages 2 and 3 of `spatialboost train`; `boosted` is the second channel of `vlm` alone, an adapter on `base`.
`run.json` in each folder tells how it was made and names its files by their SHA-256; the recipe is the table below,
and a test checks that both agree.
"""

import argparse
import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass
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
from experiments.presets import PRACTICE_RATE, PROJECTOR_RATE, RUNS, STAGE_DATA
from experiments.ridge_probe import is_admitted, probe
from experiments.variants import make_variant
from experiments.workshop import entries_of, recipe_of
from experiments.world import WorldSize, make_world
from modeling_spatialboost import SpatialBoostForConditionalGeneration, SpatialBoostModel, SpatialBoostProcessor
from trainers.run_record import git_commit, package_versions, read_record, write_record

ASSETS = Path(__file__).parent / "assets"
NAMES = ("base", "language_model", "stage2", "vlm", "boosted")
LARGEST_BYTES = 20_000_000  # of all weights together


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


def described(recipe: AssetRecipe) -> dict[str, Any]:
    """A recipe as it stands in a record, with what the code fixes; the number of workers changes nothing."""
    numbers = json.loads(json.dumps(asdict(recipe)))
    del numbers["world"]["workers"]
    numbers["world"]["variety"] = hashlib.sha256(repr(RICH).encode()).hexdigest()[:16]
    rates = {"encoder_rate": base_encoder.LEARNING_RATE, "language_rate": language_model.LEARNING_RATE}
    rates["stage3_projector_rate"] = PROJECTOR_RATE
    language: dict[str, Any] = {"language_window": language_model.LEARNT_TOKENS}
    language |= {"near_tokens": language_model.NEAR_TOKENS}
    language |= {"initial_scale": language_model.INITIAL_SCALE, "practice_questions": NUM_QUESTIONS}
    reads = {run: [" ".join(rows).strip() for rows in data] for run, data in STAGE_DATA.items()}
    return numbers | rates | language | {"reads": reads}


def build(recipe: AssetRecipe, output: Path, work: Path, command_line: str) -> None:
    """Make all assets; what is finished in `work` is reused.

    Args:
        recipe: of all.
        output: folder of the assets.
        work: folder for the world and the runs between.
        command_line: that made them, for the records.
    """
    world = make_world(work / "world", recipe.world, recipe.seed)
    made: dict[str, Any] = {"status": "finished", "command": command_line, "recipe": described(recipe)}
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
    save_base(base, output / "base")
    save_language_model(language, output / "language_model")
    runs = train_stages(recipe, world.data, output, work)
    save_vlm(work / "stage2", output / "stage2")
    save_vlm(work / "stage3", output / "vlm")
    save_boosted(work / "stage3" / "encoder", output / "base", output / "boosted")
    findings = measure(world.data, output, work)
    parts = {"base": [base], "language_model": [language], "stage2": runs[:-1], "vlm": runs, "boosted": runs}
    for name in NAMES:
        history = [_history(part) for part in parts[name]]
        leave(output / name, made | {"trained": history} | findings[name])
    total = sum(file.stat().st_size for name in NAMES for file in (output / name).glob("*.safetensors"))
    print(f"{output}: {', '.join(NAMES)}, {total / 1e6:.1f} MB of weights")


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


def train_stages(recipe: AssetRecipe, data: Path, output: Path, work: Path) -> list[Path]:
    """Stages 1 to 3 by `spatialboost train` from the saved assets; returns their folders."""
    from trainers import sft

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    folders = [work / run for run in RUNS]
    starts = [["--encoder", str(output / "base"), "--language_model", str(output / "language_model")]]
    starts += [["--model", str(folder)] for folder in folders[:-1]]

    def folder_of(variant: str, config: str) -> Path:
        return make_variant(data, work / variant, variant, (config,), recipe.world.workers) if variant else data

    numbers = zip(RUNS, starts, folders, recipe.stage_steps, recipe.stage_rates, recipe.stage_batches)
    for run, start, folder, steps, rate, batch in numbers:
        names = entries_of(run, data, folder_of)
        at_once = min(batch, 16)  # of like length
        settings = ["--max_steps", str(steps), "--train_sampling_strategy", "batch_rebalance"]
        settings += ["--per_device_train_batch_size", str(at_once)]
        settings += ["--gradient_accumulation_steps", str(batch // at_once)]
        settings += ["--seed", str(recipe.seed), "--report_to", "none", "--resume_from_checkpoint", "auto"]
        settings += ["--learning_rate", str(rate), "--save_steps", "250"]
        settings += ["--cache_features", str(work / "features")] if run != "stage3" else []
        settings += ["--projector_learning_rate", str(PROJECTOR_RATE)] if run == "stage3" else []
        arguments = ["--config", os.path.relpath(recipe_of(run)), *start, "--datasets", *names]
        code = sft.main([*arguments, "--output_dir", str(folder), *settings])
        if code:
            raise ValueError(f"{run} stopped with exit code {code}: run the command again to go on.")
    return folders


def measure(data: Path, output: Path, work: Path) -> dict[str, dict[str, Any]]:
    """What each asset is worth: ridge probes of both encoders, fluency, and answers with and without the image."""
    boosted = work / "boosted"
    if not boosted.is_dir():
        SpatialBoostModel.from_adapter(output / "boosted", output / "base").save_pretrained(boosted)
        AutoImageProcessor.from_pretrained(output / "base").save_pretrained(boosted)
    found = probe([str(output / "base"), str(boosted)], data, limit=1000)
    names = list(found)
    scores = {"position": found["position"], "base": found[names[1]], "boosted": found[names[2]]}
    scores["random base"] = found[names[3]]
    named = ("alignment", "pointing", "grounding", "multi_view_vqa", "single_view")
    configs = [config for config in named if held_out_files(data, config)]
    reading = [measure_reading(work / f"stage{n}", data, configs, limit=100) for n in (2, 3)]
    record = read_record(work / "language_model") or {}
    return {
        "base": {"probes": scores, "admitted": is_admitted(scores["base"], scores["position"])},
        "language_model": {"perplexity": record["perplexity"], "perplexity_told": record["perplexity_told"]},
        "stage2": {"stage": 2, "reading": reading[0]},
        "vlm": {"stage": 3, "reading": reading[1]},
        "boosted": {"probes": scores},
    }


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
    command_line = f"python -m experiments.assets{' --smallest' if given.smallest else ''}"
    build(SMALLEST if given.smallest else SHIPPED, given.output, given.work, command_line)
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
