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

    def trains(self, part: str) -> bool:
        """Whether the stage changes what that part computes: it has a group of that name, or LoRA on it."""
        return any(group.name in (part, f"{part}_lora") for group in self.groups)

    def opens(self, group_name: str) -> bool:
        """Whether the stage has a group of exactly that name, whose own weights it changes."""
        return any(group.name == group_name for group in self.groups)


@dataclass(frozen=True)
class ParameterCounts:
    """How many numbers a stage trains, in all and by group, and how many it leaves alone."""

    trainable: int
    frozen: int
    by_group: dict[str, int]


PROJECTOR = r"(^|\.)multi_modal_projector\."
LANGUAGE_MODEL = r"(^|\.)(language_model|lm_head)\."
LANGUAGE_MODEL_LORA = r"(^|\.)language_model\..*\.lora_[AB]\."
# without what the patch tokens do not depend on: DistributedDataParallel would wait for its gradients
ENCODER = r"(^|\.)vision_tower\.(?!.*(mask_token|pool|\.head\.))"
ENCODER_LORA = r"(^|\.)vision_tower\..*\.lora_[AB]\."
ATTN_PLUS = r"\.attn_plus\."
ALPHA = r"\.alpha_logit$"
PROJECTOR_GROUP = ParameterGroup("projector", PROJECTOR, 2e-5)  # stages 2 and 3

# Learning rates after LLaVA-1.5, of LoRA ten times as much, as is usual; the paper publishes none.
ENCODER_TUNINGS = {
    "dual_channel": Stage(
        3,
        "encoder fine-tuning through the second channel",
        (
            ParameterGroup("attn_plus", ATTN_PLUS, 2e-5),
            PROJECTOR_GROUP,
            ParameterGroup("alpha", ALPHA, 1e-3, decays=False),
        ),
    ),
    "full": Stage(
        3, "encoder fine-tuning of all its weights", (ParameterGroup("encoder", ENCODER, 2e-5), PROJECTOR_GROUP)
    ),
    "lora": Stage(
        3, "encoder fine-tuning through LoRA", (ParameterGroup("encoder_lora", ENCODER_LORA, 2e-4), PROJECTOR_GROUP)
    ),
    "frozen": Stage(3, "the projector alone, the encoder frozen", (PROJECTOR_GROUP,)),
}
ENCODER_TUNINGS["lora_matched"] = ENCODER_TUNINGS["lora"]

STAGES = {
    1: Stage(1, "feature alignment", (ParameterGroup("projector", PROJECTOR, 1e-3),)),
    2: Stage(
        2,
        "visual instruction tuning",
        (PROJECTOR_GROUP, ParameterGroup("language_model", LANGUAGE_MODEL, 2e-5)),
    ),
    3: ENCODER_TUNINGS["dual_channel"],
}
STAGE_2_LORA = Stage(
    2,
    "visual instruction tuning through LoRA",
    (PROJECTOR_GROUP, ParameterGroup("language_model_lora", LANGUAGE_MODEL_LORA, 2e-4)),
)


def get_stage(number: int, encoder_tuning: str | None = None, lora_rank: int | None = None) -> Stage:
    """The row of a stage.

    Args:
        number: 1, 2 or 3.
        encoder_tuning: of stage 3, a key of `ENCODER_TUNINGS`; None = dual_channel.
        lora_rank: not None in stage 2 puts LoRA on the language model.

    Raises:
        ValueError: there is no such stage, or no such tuning.
    """
    if number not in STAGES:
        raise ValueError(f"stage={number!r} is not a stage: pass one of {', '.join(map(str, STAGES))}.")
    if number == 3 and encoder_tuning is not None:
        if encoder_tuning not in ENCODER_TUNINGS:
            raise ValueError(f"encoder_tuning={encoder_tuning!r}: pass one of {', '.join(ENCODER_TUNINGS)}.")
        return ENCODER_TUNINGS[encoder_tuning]
    return STAGE_2_LORA if number == 2 and lora_rank is not None else STAGES[number]


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
    if stage.opens("attn_plus") and getattr(getattr(config, "vision_config", None), "boosted_layers", None) == []:
        return (
            f"Stage {stage.number} trains the second channel, but the encoder of {name!r} has boosted_layers=[]: set "
            "`boosted_layers: null` (all layers) in the recipe, or boost the encoder first with `spatialboost boost`."
        )
    return (
        f"Stage {stage.number} trains {group.name!r}, but no parameter of {name!r} matches {group.pattern!r}: pass a "
        "SpatialBoostForConditionalGeneration, or change the group's pattern."
    )
