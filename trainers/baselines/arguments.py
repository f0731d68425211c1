"""What the recipe of a baseline may say: the objective, where it starts, its data, and its optimisation."""

import argparse
import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from trainers.config import TrainingConfig
from trainers.stages import STAGES, ParameterGroup, Stage

OBJECTIVES = {
    "depth": "linear depth head in place of the language model",
    "segmentation": "linear segmentation head in place of the language model",
    "masks": "SAM's mask decoder in place of the language model",
    "points": "multi-view point decoder in place of the language model",
    "own": "self-distillation on the images alone",
}
DECODER = ParameterGroup("decoder", r"^decoder\.", 1e-3)  # at the rate of stage 1's projector: it too is new


def objective_of(argv: list[str] | None) -> str:
    """The objective that a command line or its recipe names, "language" where neither does."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--objective")
    parser.add_argument("--config", type=Path)
    given, _ = parser.parse_known_args(argv)
    if given.objective is None and given.config is not None and given.config.is_file():
        with contextlib.suppress(yaml.YAMLError):  # which the parser of the run will tell
            recipe = yaml.safe_load(given.config.read_text())
            given.objective = recipe.get("objective") if isinstance(recipe, dict) else None
    return given.objective or "language"


@dataclass
class BaselineArguments:
    """A stage 3 without a language model.

    Attributes:
        objective: what the encoder learns from.
        encoder: id or folder of the encoder that the language run began with.
        datasets: the very entries of the language run.
        image_size: side in pixels, as in the language run's stage 1.
        revision: of the encoder's repository.
        boosted_layers: attention layers that get a second channel, as in the language run.
        max_depth_m: "depth": range of the head's bins, metres.
        mask_decoder: "masks": id or folder of a SAM model to start from.
        force: train again where `output_dir` holds a finished run.
    """

    objective: str = field(metadata={"help": f"One of {', '.join(OBJECTIVES)}."})
    encoder: str = field(metadata={"help": "Id or folder of the vision encoder."})
    datasets: list[str] = field(
        metadata={"help": "One or more PATH[:CONFIG[:SPLIT]]; a split may be a slice such as train[:1000]."}
    )
    image_size: int | None = field(
        default=None, metadata={"help": "Side of the input images in pixels; null = the encoder's own."}
    )
    revision: str | None = field(default=None, metadata={"help": "Revision of the encoder's Hub repository."})
    boosted_layers: list[int] | None = field(
        default=None, metadata={"help": "Attention layers that get a second channel; null = all."}
    )
    max_depth_m: float | None = field(
        default=None, metadata={"help": "Objective depth: farthest depth that counts, metres; null = 10."}
    )
    mask_decoder: str | None = field(
        default=None, metadata={"help": "Objective masks: id or folder of a SAM model; null = a new decoder."}
    )
    force: bool = field(default=False, metadata={"help": "Train again where output_dir holds a finished run."})

    def __post_init__(self) -> None:
        """Check the objective, and that nothing is given that it would ignore."""
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"objective={self.objective!r} is not known: pass language or one of {', '.join(OBJECTIVES)}."
            )
        if isinstance(self.datasets, str):  # a single entry in the YAML file
            self.datasets = [self.datasets]
        if self.boosted_layers == []:
            raise ValueError("boosted_layers=[] leaves nothing to train: name some layers, or null for all.")
        for name, owner in (("max_depth_m", "depth"), ("mask_decoder", "masks")):
            if getattr(self, name) is not None and self.objective != owner:
                value = getattr(self, name)
                raise ValueError(f"{name}={value!r} has no effect on objective {self.objective}: remove it.")
        if self.max_depth_m is not None and self.max_depth_m <= 1e-3:
            raise ValueError(f"max_depth_m={self.max_depth_m}: pass metres, such as 10 for rooms and 80 for streets.")

    @property
    def row(self) -> Stage:
        """What trains: the second channel at stage 3's rates, and the decoder; the teacher of "own" does not."""
        names = ("attn_plus", "alpha")
        groups = [replace(one, pattern=rf"^encoder\..*{one.pattern}") for one in STAGES[3].groups if one.name in names]
        return Stage(3, OBJECTIVES[self.objective], (*groups, DECODER))


@dataclass
class BaselineConfig(TrainingConfig):
    """`TrainingConfig` with a rate for the decoder in place of the projector's."""

    decoder_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak rate of the decoder; null = 1e-3."}
    )

    def __post_init__(self) -> None:
        """Refuse what only a language run reads; keep samples whole, which are no rows of columns."""
        if self.projector_learning_rate is not None:
            raise ValueError(
                f"projector_learning_rate={self.projector_learning_rate}: a baseline has no projector, pass "
                "decoder_learning_rate."
            )
        self.remove_unused_columns = False
        super().__post_init__()

    def learning_rate_of(self, group: ParameterGroup) -> float:
        """Peak learning rate of a group: the decoder's is its own, `learning_rate` the second channel's."""
        if group.name == "decoder":
            return group.learning_rate if self.decoder_learning_rate is None else self.decoder_learning_rate
        return super().learning_rate_of(group)
