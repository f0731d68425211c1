"""The three stages: one row each of what trains and at which learning rate; all else is frozen."""

import logging
import re
from dataclasses import dataclass

from torch import nn

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that train at one learning rate.

    Attributes:
        name: key of the group in logs and in `run.json`.
        pattern: regular expression, searched for in the parameter's name.
        learning_rate: peak rate where the recipe names none.
        decays: whether weight decay applies; it would pull alpha towards 0.5.
    """

    name: str
    pattern: str
    learning_rate: float
    decays: bool = True


@dataclass(frozen=True)
class Stage:
    """A row of the table: what trains. Everything that no group's pattern matches is frozen."""

    number: int
    description: str
    groups: tuple[ParameterGroup, ...]

    def group_of(self, parameter_name: str) -> ParameterGroup | None:
        """The group that a parameter belongs to, None for a frozen one."""
        return next((group for group in self.groups if re.search(group.pattern, parameter_name)), None)

    def trains(self, group_name: str) -> bool:
        """Whether the stage has a group of that name."""
        return any(group.name == group_name for group in self.groups)


@dataclass(frozen=True)
class ParameterCounts:
    """How many numbers a stage trains, in all and by group, and how many it leaves alone."""

    trainable: int
    frozen: int
    by_group: dict[str, int]


PROJECTOR = r"(^|\.)multi_modal_projector\."
LANGUAGE_MODEL = r"(^|\.)(language_model|lm_head)\."
ATTN_PLUS = r"\.attn_plus\."
ALPHA = r"\.alpha_logit$"

# Learning rates after LLaVA-1.5; the paper publishes none.
STAGES = {
    1: Stage(1, "feature alignment", (ParameterGroup("projector", PROJECTOR, 1e-3),)),
    2: Stage(
        2,
        "visual instruction tuning",
        (ParameterGroup("projector", PROJECTOR, 2e-5), ParameterGroup("language_model", LANGUAGE_MODEL, 2e-5)),
    ),
    3: Stage(
        3,
        "encoder fine-tuning through the second channel",
        (
            ParameterGroup("attn_plus", ATTN_PLUS, 2e-5),
            ParameterGroup("projector", PROJECTOR, 2e-5),
            ParameterGroup("alpha", ALPHA, 1e-3, decays=False),
        ),
    ),
}


def get_stage(number: int) -> Stage:
    """The row of a stage.

    Raises:
        ValueError: there is no such stage.
    """
    if number not in STAGES:
        raise ValueError(f"stage={number!r} is not a stage: pass one of {', '.join(map(str, STAGES))}.")
    return STAGES[number]


def apply_stage(model: nn.Module, stage: Stage | int) -> ParameterCounts:
    """Freeze the whole model, then open what the stage trains.

    Args:
        model: the vision-language model.
        stage: a row of `STAGES`, or its number.

    Returns:
        Counts of trainable and frozen parameters.

    Raises:
        ValueError: no such stage, or one of its patterns matches nothing (a stage-3 run on an unboosted model).
    """
    stage = get_stage(stage) if isinstance(stage, int) else stage
    model.requires_grad_(False)
    by_group = {group.name: 0 for group in stage.groups}
    frozen = 0
    for name, parameter in model.named_parameters():
        group = stage.group_of(name)
        if group is None:
            frozen += parameter.numel()
        else:
            parameter.requires_grad_(True)
            by_group[group.name] += parameter.numel()
    for group in stage.groups:
        if by_group[group.name] == 0:
            raise ValueError(_nothing_matches(model, stage, group))
    counts = ParameterCounts(sum(by_group.values()), frozen, by_group)
    details = ", ".join(f"{name} {count:,}" for name, count in by_group.items())
    logger.info(
        f"Stage {stage.number} ({stage.description}): {counts.trainable:,} parameters train ({details}), "
        f"{counts.frozen:,} are frozen"
    )
    return counts


def _nothing_matches(model: nn.Module, stage: Stage, group: ParameterGroup) -> str:
    config = getattr(model, "config", None)
    name = getattr(config, "_name_or_path", "") or type(model).__name__
    if getattr(getattr(config, "vision_config", None), "boosted_layers", None) == []:
        return (
            f"Stage {stage.number} trains the second channel, but the encoder of {name!r} has boosted_layers=[]: set "
            "`boosted_layers: null` (all layers) in the recipe, or boost the encoder first with `spatialboost boost`."
        )
    return (
        f"Stage {stage.number} trains {group.name!r}, but no parameter of {name!r} matches {group.pattern!r}: pass a "
        "SpatialBoostForConditionalGeneration, or change the group's pattern."
    )
