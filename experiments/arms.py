"""The arms: every way in which the tables make an encoder from the base. One row each, no code.

All arms of a seed share the base encoder, stage 1 and stage 2; each then takes as many steps of as many conversations,
so that only what its row names differs.
"""

from dataclasses import dataclass

BOTH = ("single_view", "multi_view")
GROUNDING = ("grounding",)
BASELINES = {"depth", "segmentation", "masks", "points", "own"}


@dataclass(frozen=True)
class Arm:
    """How an encoder is made from the base: one run of `spatialboost train`.

    Attributes:
        name: of its folder.
        label: in tables.
        learns_from: "language" (stage 3), an objective of `trainers.baselines`, or "" for no training at all.
        variant: key of `variants.VARIANTS`, what is changed in the conversations; "" = nothing.
        configs: of the conversations.
        share: of the training rows, the first ones.
        settings: further arguments of `spatialboost train`.
        rate: times the preset's learning rate.
        boosted: which layers get a second channel, "all" or the "upper" half.
        base: "plain", "depth" (an encoder that was already trained with depth) or "random" (not trained at all).
        start: of stage 3: the model after "stage2", the "depth_reader", or "" for what the preset has.
    """

    name: str
    label: str
    learns_from: str = "language"
    variant: str = ""
    configs: tuple[str, ...] = BOTH
    share: float = 1.0
    settings: tuple[str, ...] = ()
    rate: float = 1.0
    boosted: str = "all"
    base: str = "plain"
    start: str = ""


def _tuning(name: str, *more: str) -> tuple[str, ...]:
    return ("--encoder_tuning", name, *more)


_ROWS = (
    Arm("base", "base", ""),
    Arm("random_encoder", "random encoder", "", base="random"),
    Arm("language", "language model (boosted)"),
    # controls
    Arm("shuffled_answers", "shuffled answers", variant="shuffled_answers"),
    Arm("captions_only", "captions only (more training)", variant="captions_only"),
    # table 6: what supervises
    Arm("linear_depth", "linear depth head", "depth"),
    Arm("linear_segmentation", "linear segmentation head", "segmentation"),
    Arm("mask_decoder", "mask decoder (SAM's)", "masks"),
    Arm("point_decoder", "multi-view points (VGGT's row)", "points"),
    # table 7: order of the turns, number of views
    Arm("single_view", "single-view, forward", configs=("single_view",)),
    Arm("single_random", "single-view, random", variant="random_order", configs=("single_view",)),
    Arm("single_reverse", "single-view, reverse", variant="reverse_order", configs=("single_view",)),
    Arm("multi_view", "multi-view, forward", configs=("multi_view",)),
    # figure 5: how much data, at equal steps
    Arm("data_12", "12.5 % of the data", share=0.125),
    Arm("data_25", "25 % of the data", share=0.25),
    Arm("data_50", "50 % of the data", share=0.5),
    # figure 6: what of the encoder trains
    Arm("full", "full fine-tuning", settings=_tuning("full")),
    Arm("full_slow", "full fine-tuning, a tenth of the rate", settings=_tuning("full"), rate=0.1),
    Arm("lora", "LoRA, rank 16", settings=_tuning("lora", "--lora_rank", "16")),
    Arm("lora_fast", "LoRA, rank 16, three times the rate", settings=_tuning("lora", "--lora_rank", "16"), rate=3.0),
    Arm("lora_matched", "LoRA, as many parameters", settings=_tuning("lora_matched")),
    # table 8: the encoder's own kind of objective
    Arm("own_objective", "self-distillation on the images", "own"),
    # table 9: a base that has been trained with depth
    Arm("depth_base", "base trained with depth", "", base="depth"),
    Arm("depth_language", "base trained with depth, boosted", base="depth"),
    Arm("depth_shuffled", "base trained with depth, shuffled answers", variant="shuffled_answers", base="depth"),
    # teaching: what it takes for language to teach depth
    Arm("questions", "short depth questions", variant="depth_questions", configs=GROUNDING, start="depth_reader"),
    Arm(
        "questions_shuffled",
        "short depth questions, shuffled answers",
        variant="depth_questions_shuffled",
        configs=GROUNDING,
        start="depth_reader",
    ),
    Arm(
        "questions_plain",
        "short depth questions, model does not read depth",
        variant="depth_questions",
        configs=GROUNDING,
        start="stage2",
    ),
    Arm("dialogues", "12-turn dialogues", configs=("single_view",), start="depth_reader"),
    Arm(
        "dialogues_shuffled",
        "12-turn dialogues, shuffled answers",
        variant="shuffled_answers",
        configs=("single_view",),
        start="depth_reader",
    ),
    # levels
    Arm("without_pixel", "without pixel turns", variant="without_pixel"),
    Arm("without_object", "without object turns", variant="without_object"),
    Arm("without_scene", "without scene turns", variant="without_scene"),
    # design
    Arm("alpha_high", "alpha starts at 0.9", settings=("--alpha_start", "0.9")),
    Arm("alpha_low", "alpha starts at 0.1", settings=("--alpha_start", "0.1")),
    Arm("alpha_head", "one alpha per head", settings=("--alpha_sharing", "head")),
    Arm("alpha_layer", "one alpha per layer", settings=("--alpha_sharing", "layer")),
    Arm("upper_half", "second channel in the upper half", boosted="upper"),
    Arm("without_captions", "captions removed", variant="without_captions"),
)
ARMS = {arm.name: arm for arm in _ROWS}
CONTROLS = ("shuffled_answers", "captions_only", "random_encoder")  # in every table but `teaching`, which has its own
