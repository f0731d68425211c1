"""How large an experiment is: the world, the starting models, the steps of each stage, and how it is measured."""

from dataclasses import dataclass

from experiments.base_encoder import EncoderShape
from experiments.language_model import LanguageShape
from experiments.world import WorldSize

RUNS = ("stage1", "practice", "practice_turned", "stage2", "stage3")  # of `spatialboost train`
PRACTICES = ("practice", "practice_turned")  # stage 2's recipe on short questions
PROJECTOR_RATE = 3e-4  # in stage 3
PRACTICE_RATE = 1e-2  # of learning; lower ones were slower (docs/log.md)
# From the practices on, in place of stage 2, to a model that reads depth: runs by stage 2's recipe, and their rates of
# language model and projector. In the last one the language model is held, in effect.
READER_RUNS = {
    "practice_depth": (PRACTICE_RATE, PRACTICE_RATE),
    "stage2_depth": (4e-3, 4e-3),
    "fitting": (1e-7, 3e-3),
}

# What each run reads: variant ("" = as built), and configuration with its rows. Stage 2 begins with nothing but short
# questions about points, for among longer texts a small language model does not learn to look at places; and with half
# of the images turned, for in upright rooms rows tell so much that it does not learn to use columns. Then it has
# everything, and some of stage 3's dialogues: it answers them as well as the frozen encoder lets it, and what stage 3
# can still gain is the encoder's. A model that has not met them takes brightness for depth, and stage 3 then begins
# by blinding the projector.
STAGE_DATA = {
    "stage1": (("", "alignment:train"),),
    "practice": (("pointing", "grounding:train"),),
    "practice_turned": (("pointing_turned", "grounding:train"),),
    "stage2": (
        ("", "alignment:train[:30%]"),
        ("pointing", "grounding:train"),
        ("", "grounding:train[:30%]"),
        ("", "multi_view_vqa:train[:5%]"),
        ("", "single_view:train[:30%]"),
        ("", "multi_view:train[:10%]"),
    ),
    "stage3": (("", "single_view:train"), ("", "multi_view:train")),
    # The base shows next to no depth, so that behind rooms a language model learns to answer without looking, and then
    # has nothing to teach. It learns to read depth under pictures of depth; then the projector alone meets rooms.
    "practice_depth": (("depth_pointing", "grounding:train"),),
    "stage2_depth": (
        ("depth_pointing", "grounding:train"),
        ("depth_pictures", "single_view:train[:50%]"),
        ("", "alignment:train[:30%]"),
        ("pointing", "grounding:train[:50%]"),
        ("", "grounding:train[:20%]"),
    ),
    "fitting": (
        ("depth_questions", "grounding:train"),
        ("", "single_view:train[:50%]"),
        ("", "alignment:train[:30%]"),
    ),
}


@dataclass(frozen=True)
class StartingModels:
    """How base encoder and language model are trained where none are at hand."""

    encoder: EncoderShape
    encoder_steps: int
    encoder_batch: int
    language: LanguageShape
    language_steps: int
    language_batch: int
    objective: str = "attributes+places"


@dataclass(frozen=True)
class Preset:
    """All numbers of an experiment; tables and arms are the same in every preset.

    Attributes:
        world: size of the world, which all seeds share.
        starting: of the base encoder and the language model.
        uses_assets: start from the models that come with the code, where they are; else each seed trains its own.
        stage_steps: of `RUNS`; a run of every arm takes as many steps as stage 3.
        reader_steps: of `READER_RUNS`.
        batch_size: conversations of a step.
        learning_rate: peak rate of what trains in the encoder; projector and alpha have the recipes'.
        stage3_start: what stage 3 starts from where an arm does not say: the model after "stage2", or the
            "depth_reader", which has something to teach.
        seeds: of everything but the world.
        head_seeds: of the probes' heads, for each seed.
        probe_limit: at most so many items of each split of a probe; None = the small protocol's own.
        probe_steps: of the dense heads; None = the small protocol's own.
        num_conversations: that the vision-language models are asked about.
        answer_tokens: of an answer at most.
        answer_batch: conversations that are answered together; None = the protocol's own.
        num_workers: processes that read training data.
    """

    world: WorldSize
    starting: StartingModels
    uses_assets: bool
    stage_steps: tuple[int, int, int, int, int]
    reader_steps: tuple[int, int, int]
    batch_size: int
    learning_rate: float
    seeds: tuple[int, ...]
    stage3_start: str = "depth_reader"
    head_seeds: tuple[int, ...] = (0,)
    probe_limit: int | None = None
    probe_steps: int | None = None
    num_conversations: int = 32
    answer_tokens: int = 128
    answer_batch: int | None = None
    num_workers: int = 0

    def steps(self, run: str) -> int:
        """Of one of `RUNS` or `READER_RUNS`, or of "baseline", which takes as many as stage 3."""
        numbers = zip((*RUNS, *READER_RUNS), (*self.stage_steps, *self.reader_steps), strict=True)
        return dict(numbers)["stage3" if run == "baseline" else run]


PRESETS = {
    "smallest": Preset(  # a look at the shape of a table; its numbers mean nothing
        world=WorldSize(num_scenes=8, views=2, image_size_px=64, workers=1),
        starting=StartingModels(
            EncoderShape(width=64, num_layers=2),
            2,
            4,
            LanguageShape(width=64, num_layers=1, vocabulary_size=512),
            2,
            2,
        ),
        uses_assets=False,
        stage_steps=(2, 2, 2, 2, 3),  # in the first two steps of stage 3 alpha has no gradient yet
        reader_steps=(2, 2, 2),
        batch_size=2,
        learning_rate=1e-3,
        seeds=(0,),
        probe_limit=4,
        probe_steps=9,
        num_conversations=1,
        answer_tokens=4,
    ),
    "cpu": Preset(  # a taste, on two cores
        world=WorldSize(num_scenes=240, views=2, image_size_px=64, workers=1),
        starting=StartingModels(
            EncoderShape(width=128, num_layers=4), 300, 64, LanguageShape(width=64, num_layers=2), 200, 8
        ),
        uses_assets=True,
        stage_steps=(60, 2000, 1000, 120, 150),
        reader_steps=(500, 120, 60),
        batch_size=8,
        learning_rate=3e-4,
        seeds=(0,),
        stage3_start="stage2",  # so few images cannot teach depth, and this model knows more of everything else
        num_conversations=8,
        answer_tokens=96,
    ),
    "hour": Preset(  # on two cores, for table `teaching`: as many images as the shipped models have seen
        world=WorldSize(num_scenes=2000, views=4, image_size_px=64, workers=1),
        starting=StartingModels(
            EncoderShape(width=128, num_layers=4), 2000, 64, LanguageShape(width=64, num_layers=2), 3000, 16
        ),
        uses_assets=True,
        stage_steps=(100, 2200, 1000, 800, 800),
        reader_steps=(500, 500, 250),
        batch_size=16,
        learning_rate=5e-4,
        seeds=(0,),
        num_conversations=8,
        answer_tokens=96,
    ),
    "gpu": Preset(  # the real answer, on one H200 or A100
        world=WorldSize(num_scenes=6000, views=4, image_size_px=64, workers=16),
        starting=StartingModels(
            EncoderShape(width=384, num_layers=6), 4000, 256, LanguageShape(width=128, num_layers=4), 4000, 32
        ),
        uses_assets=False,
        stage_steps=(200, 3000, 1500, 1500, 2000),
        reader_steps=(800, 800, 400),
        batch_size=32,
        learning_rate=3e-4,
        seeds=(0, 1, 2),
        head_seeds=(0, 1, 2),
        num_conversations=96,
        answer_batch=96,
        num_workers=8,
    ),
}
