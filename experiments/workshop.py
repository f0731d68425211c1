"""From a preset and a seed to encoders: the world, the starting models, the shared stages, and one run for each arm.

Every run is a command of `spatialboost`, printed as one would type it; what is finished is used again.
"""

import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from experiments.arms import BASELINES, Arm
from experiments.base_encoder import train_base_encoder
from experiments.language_model import train_language_model
from experiments.pieces import Ledger, Piece, device, remove_checkpoints, run_verb, shown, typed
from experiments.presets import PRACTICE_RATE, PRACTICES, PROJECTOR_RATE, READER_RUNS, STAGE_DATA, Preset
from experiments.variants import make_variant
from experiments.world import World, make_world
from trainers.run_record import read_record

RECIPES = Path(__file__).resolve().parent.parent / "trainers" / "recipes" / "smoke"
WORLD_SEED = 0
FEW_ROWS = 20


class Workshop:
    """All that the arms of one seed are made from, and the arms themselves; nothing is made before it is asked for."""

    def __init__(self, root: Path, preset: Preset, seed: int, ledger: Ledger) -> None:
        """Everything lies below `root`; the world is shared by all seeds."""
        self.root, self.preset, self.seed, self.ledger = root, preset, seed, ledger
        self.folder = root / f"seed{seed}"
        self.world: World | None = None

    def make_world(self) -> Piece:
        """Rooms with conversations and dense maps, and what the probes of whole pictures read."""
        size = self.preset.world
        folder = self.root / "world"
        call = f"make_world(Path({shown(folder)!r}), {replace(size, workers=1)}, seed={WORLD_SEED})"
        imports = "from pathlib import Path; from experiments.world import WorldSize, make_world"
        command = f"python -c {shlex.quote(f'{imports}; {call}')}"

        def work() -> None:
            self.world = make_world(folder, size, WORLD_SEED)

        piece = self.ledger.do(folder, command, [], work)
        if self.world is None:
            work()
        return piece

    def places(self) -> World:
        """Where the parts of the world are."""
        self.make_world()
        assert self.world is not None
        return self.world

    def base(self, kind: str) -> Piece:
        """The base encoder of a kind of `Arm.base`: an asset, or trained for this seed.

        Where the plain one is an asset, the one with depth goes on from it, for as many steps as stage 3 has: from
        nothing, in the time that such a preset has, it would know less of depth than the plain one does.
        """
        if kind == "random":
            return self._random_encoder()
        shipped = self._asset("base")
        if shipped and kind == "plain":
            return shipped
        starting, data = self.preset.starting, self.places().data
        objective = starting.objective if kind == "plain" else f"{starting.objective}+depth"
        steps = self.preset.steps("stage3") if shipped else starting.encoder_steps
        folder, start = self.folder / f"base_{kind}", shipped.folder if shipped else None
        command = (
            f"python -m experiments.base_encoder --data {shown(data)} --output {shown(folder)} --steps {steps} "
            f"--batch_size {starting.encoder_batch} --layers {starting.encoder.num_layers} --width "
            f"{starting.encoder.width} --objective {objective} --seed {self.seed}"
        )
        command += f" --start {shown(start)}" if start else ""
        words = (steps, starting.encoder_batch, self.seed, objective, device(), start)
        return self.ledger.do(
            folder,
            command,
            [self.make_world(), *([shipped] if shipped else [])],
            lambda: train_base_encoder(data, folder, starting.encoder, *words),
        )

    def language_model(self) -> Piece:
        """The language model, which has read the world's conversations without their images."""
        if shipped := self._asset("language_model"):
            return shipped
        starting, data, folder = self.preset.starting, self.places().data, self.folder / "language_model"
        command = (
            f"python -m experiments.language_model --data {shown(data)} --output {shown(folder)} --steps "
            f"{starting.language_steps} --batch_size {starting.language_batch} --layers "
            f"{starting.language.num_layers} --width {starting.language.width} --seed {self.seed}"
        )
        return self.ledger.do(
            folder,
            command,
            [self.make_world()],
            lambda: train_language_model(
                data,
                folder,
                starting.language,
                starting.language_steps,
                starting.language_batch,
                self.seed,
                device(),
            ),
        )

    def stage2(self, kind: str) -> Piece:
        """The model after stage 2 with the base encoder of a kind, shared by all arms; the plain one's is an asset.

        Where it is, that of another encoder starts from it, with its encoder exchanged: a language model that knows
        how to look learns to read the other encoder.
        """
        folder, shipped = self.folder / kind, self._asset("stage2")
        if shipped and kind == "plain":
            return shipped
        exchanged = shipped and self._with_encoder(shipped, self.base(kind), folder / "start")
        model = exchanged or self._practised(kind)
        return self._train(folder / "stage2", "stage2", {"--model": model}, self._data("stage2"))

    def depth_reader(self, kind: str) -> Piece:
        """The model that has learnt to read depth under pictures of depth, likewise; its last run fits an encoder."""
        folder, shipped = self.folder / kind, self._asset("depth_reader")
        if shipped and kind == "plain":
            return shipped
        exchanged = shipped and self._with_encoder(shipped, self.base(kind), folder / "reader_start")
        model = exchanged or self._practised(kind)
        for run in [*READER_RUNS][-1:] if exchanged else READER_RUNS:
            words = rate_words(*READER_RUNS[run])
            model = self._train(folder / run, run, {"--model": model}, self._data(run), words)
        return model

    def _practised(self, kind: str) -> Piece:
        """The model after stage 1 and both practices, of an encoder that the shipped models do not know."""
        start = {"--encoder": self.base(kind), "--language_model": self.language_model()}
        model = self._train(self.folder / kind / "stage1", "stage1", start, self._data("stage1"))
        for run in PRACTICES:
            folder = self.folder / kind / run
            model = self._train(folder, run, {"--model": model}, self._data(run), rate_words(PRACTICE_RATE))
        return model

    def start_of(self, arm: Arm) -> Piece:
        """The model that stage 3 of an arm starts from."""
        return self.depth_reader(arm.base) if self.reads_depth(arm) else self.stage2(arm.base)

    def reads_depth(self, arm: Arm) -> bool:
        """Whether stage 3 of an arm starts from a model that has learnt to read depth."""
        return (arm.start or self.preset.stage3_start) == "depth_reader"

    def arm(self, arm: Arm) -> Piece:
        """The run of an arm; its encoder is at `encoder_of`."""
        if not arm.learns_from:
            return self.base(arm.base)
        folder = self.folder / "arms" / arm.name
        rate = arm.rate * self.preset.learning_rate
        layers = ["--boosted_layers", *map(str, self._upper_half(arm))] if arm.boosted == "upper" else []
        if arm.learns_from in BASELINES:
            words = ["--objective", arm.learns_from, *rate_words(rate), *layers]
            return self._train(folder, "baseline", {"--encoder": self.base(arm.base)}, self._arm_data(arm), words)
        words = [*rate_words(rate), *layers, *rate_words(projector=PROJECTOR_RATE), *arm.settings]
        return self._train(folder, "stage3", {"--model": self.start_of(arm)}, self._arm_data(arm), words)

    def reader(self, arm: Arm) -> Piece:
        """Stage 2's model, which learns to read an arm's encoder: the latter stays frozen, and dialogues have images.

        As the paper measures its encoders by ScanQA: what a language model can answer from them.
        """
        folder = self.folder / "readers" / arm.name
        joined = self._with_encoder(self.stage2("plain"), self._encoder_piece(arm), folder / "start")
        dialogues = f"{shown(self.places().data)}:single_view:train"
        data = [*self._data("stage2"), dialogues]
        return self._train(folder / "stage2", "stage2", {"--model": joined}, data)

    def _with_encoder(self, model: Piece, encoder: Piece, folder: Path) -> Piece:
        """A vision-language model with another encoder of the same width in its place."""
        command = f"# {shown(model.folder)} with the encoder {shown(encoder.folder)}"
        return self.ledger.do(
            folder, command, [model, encoder], lambda: exchange_encoder(model.folder, encoder.folder, folder)
        )

    def encoder_of(self, arm: Arm) -> Path:
        """The folder of an arm's encoder."""
        return self._encoder_piece(arm).folder

    def _encoder_piece(self, arm: Arm) -> Piece:
        piece = self.arm(arm)
        return Piece(piece.folder / "encoder", piece.key) if arm.learns_from else piece

    def _train(
        self, folder: Path, run: str, start: dict[str, Piece], data: list[str], words: list[str] | None = None
    ) -> Piece:
        """One run of `spatialboost train`, of the number of steps that the preset has for it."""
        from trainers import sft

        steps = self.preset.steps(run)
        argv = ["--config", shown(recipe_of(run))]
        argv += [word for option, piece in start.items() for word in (option, shown(piece.folder))]
        argv += ["--datasets", *data, *(words or []), "--output_dir", shown(folder), "--max_steps", str(steps)]
        argv += ["--per_device_train_batch_size", str(self.preset.batch_size), "--seed", str(self.seed)]
        argv += ["--save_steps", str(max(20, steps // 4)), "--report_to", "none"]
        if self.preset.num_workers:
            argv += ["--dataloader_num_workers", str(self.preset.num_workers)]

        def work() -> None:
            os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
            run_verb(sft.main, [*argv, "--resume_from_checkpoint", "auto"])
            remove_checkpoints(folder)

        return self.ledger.do(folder, typed("train", argv), [self.make_world(), *start.values()], work)

    def _data(self, run: str) -> list[str]:
        """The entries of `--datasets` of a run."""
        return entries_of(run, self.places().data, lambda variant, config: self._variant(variant, (config,)))

    def _arm_data(self, arm: Arm) -> list[str]:
        """The entries of `--datasets` of an arm: the world's own, a variant's, or the first rows of them."""
        folder, entries = self._variant(arm.variant, arm.configs), []
        for config in arm.configs:
            if (place := self.places().data / config).is_dir():
                rows = f"[:{max(1, round(arm.share * num_rows(place)))}]" if arm.share < 1 else ""
                entries.append(f"{shown(folder)}:{config}:train{rows}")
        return entries

    def _variant(self, name: str, configs: tuple[str, ...]) -> Path:
        data, folder = self.places().data, self.root / "variants" / name
        return make_variant(data, folder, name, configs, self.preset.world.workers) if name else data

    def _upper_half(self, arm: Arm) -> range:
        from transformers import AutoConfig

        layers = AutoConfig.from_pretrained(self.base(arm.base).folder).num_hidden_layers
        return range(layers // 2, layers)

    def _asset(self, name: str) -> Piece | None:
        """A model that comes with the code, None where the preset or the installation has none."""
        if not self.preset.uses_assets:
            return None
        from experiments.assets import ASSETS

        record = read_record(ASSETS / name)
        return None if record is None else Piece(ASSETS / name, str(record["files"]))

    def _random_encoder(self) -> Piece:
        """The architecture of the plain base with the weights that it would have before any training."""
        base, folder = self.base("plain"), self.folder / "base_random"

        def work() -> None:
            import torch
            from transformers import AutoConfig, AutoImageProcessor, AutoModel

            torch.manual_seed(1000 + self.seed)
            AutoModel.from_config(AutoConfig.from_pretrained(base.folder)).save_pretrained(folder)
            AutoImageProcessor.from_pretrained(base.folder).save_pretrained(folder)

        command = f"# the architecture of {shown(base.folder)} with new weights, seed {1000 + self.seed}"
        return self.ledger.do(folder, command, [base], work)


def rate_words(rate: float | None = None, projector: float | None = None) -> list[str]:
    """Arguments of `spatialboost train` for peak rates."""
    words = ["--learning_rate", f"{rate:g}"] if rate else []
    return [*words, "--projector_learning_rate", f"{projector:g}"] if projector else words


def recipe_of(run: str) -> Path:
    """The file with the settings of one of `RUNS` or `READER_RUNS`, or of "baseline"."""
    return RECIPES / f"{'stage2' if run in (*PRACTICES, *READER_RUNS) else run}.yaml"


def entries_of(run: str, data: Path, folder_of: Callable[[str, str], Path]) -> list[str]:
    """The entries of `--datasets` of a run; of the smallest worlds all rows, for a share may be none.

    Args:
        run: key of `STAGE_DATA`.
        data: of the world; configurations that it has not are left out.
        folder_of: variant ("" = as built) and configuration -> the data set that holds both.
    """
    entries = []
    for variant, rows in STAGE_DATA[run]:
        config = rows.split(":")[0]
        if (place := data / config).is_dir():
            chosen = rows if num_rows(place) >= FEW_ROWS else f"{config}:train"
            entries.append(f"{shown(folder_of(variant, config))}:{chosen}")
    return entries


def exchange_encoder(vlm: Path, encoder: Path, folder: Path) -> None:
    """Save a vision-language model with another encoder of the same width in its place."""
    import torch

    from modeling_spatialboost import SpatialBoostForConditionalGeneration, SpatialBoostProcessor
    from modeling_spatialboost.modeling_spatialboost_vlm import load_boosted_encoder

    model = SpatialBoostForConditionalGeneration.from_pretrained(vlm, dtype=torch.float32)
    model.model.vision_tower = load_boosted_encoder(str(encoder), [], dtype=torch.float32)
    model.config.vision_config = model.vision_tower.config
    model.save_pretrained(folder)
    SpatialBoostProcessor.from_pretrained(vlm).save_pretrained(folder)


def num_rows(folder: Path) -> int:
    """Rows of the training split of a configuration."""
    from pyarrow.parquet import read_metadata

    return sum(read_metadata(file).num_rows for file in sorted(folder.glob("train-*.parquet")))
