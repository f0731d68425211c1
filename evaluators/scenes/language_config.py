"""What the tasks are told whose answers come from a language model that reads fused features."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from evaluators.contract import NotMeasurable
from evaluators.language.config import state_of
from evaluators.scenes.scene import Scene, SceneConfig, digest

CPU_QUESTIONS = 48


class Question(NamedTuple):
    """A question, or a description, about a scene.

    Attributes:
        scene_id: of its scene.
        text: what the model reads.
        answers: the references, one at least; empty for a description.
        object_id: what is described, -1 for a question.
    """

    scene_id: str
    text: str
    answers: tuple[str, ...] = ()
    object_id: int = -1


@dataclass(frozen=True)
class QuestionData:
    """Both splits; scenes by id."""

    source: str
    train: tuple[Question, ...]
    test: tuple[Question, ...]
    scenes: dict[str, Scene]
    test_split: str
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """What a report prints about the data."""
        rows = {}
        for name, questions in (("train", self.train), (self.test_split, self.test)):
            scenes = [self.scenes[one] for one in dict.fromkeys(question.scene_id for question in questions)]
            rows[name] = {
                "items": len(questions),
                "dropped": self.dropped.get(name, {}),
                "fingerprint": digest(scenes, questions),
            }
        shared = {one.scene_id for one in self.train} & {one.scene_id for one in self.test}
        warnings = [f"{len(shared)} scenes are in both splits."] if shared else []
        return {"source": self.source, "splits": rows, "warnings": warnings}


@dataclass(frozen=True, kw_only=True)
class ReaderConfig(SceneConfig):
    """A language model that reads a scene; None and 0 = what the preset says.

    Attributes:
        language_model: folder or Hub id of a causal language model; there is no default.
        scannet: ROOT of ScanNet, None = the questions' own folder holds scans/.
        lora_rank: 0 = the language model is frozen, else it gets LoRA of this rank in all linear layers.
        num_tokens: of a scene, at most.
        epochs: over the training questions; the last one counts.
        batch_size: questions a step.
        learning_rate: the highest; it ends at a tenth of it.
        warmup_steps: of the learning rate.
        num_beams: of the search for an answer.
        max_new_tokens: of an answer.
    """

    language_model: str | None = None
    scannet: str | None = None
    lora_rank: int = 0
    num_tokens: int = 0
    epochs: int = 0
    batch_size: int = 8
    learning_rate: float = 0.0
    weight_decay: float = 0.05
    warmup_steps: int | None = None
    num_beams: int = 0
    max_new_tokens: int = 40

    def __post_init__(self) -> None:
        """Fill in what the preset says."""
        is_small = self.preset == "cpu"
        filled = {
            "limit": CPU_QUESTIONS if self.limit is None and is_small else self.limit,
            "num_tokens": self.num_tokens or (32 if is_small else 256),
            "epochs": self.epochs or (4 if is_small else 10),
            "learning_rate": self.learning_rate or (2e-3 if is_small else 1e-4),
            "warmup_steps": (4 if is_small else 1000) if self.warmup_steps is None else self.warmup_steps,
            "num_beams": self.num_beams or (1 if is_small else 5),
        }
        for name, value in filled.items():
            object.__setattr__(self, name, value)
        super().__post_init__()

    def settings(self) -> dict[str, Any]:
        """What a report prints."""
        names = (
            "language_model", "lora_rank", "num_tokens", "epochs", "batch_size", "learning_rate", "weight_decay",
            "warmup_steps", "num_beams", "max_new_tokens", "max_points", "max_views", "frame_step",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def blind_key(self, described: dict[str, Any], channels: int, what: str) -> str:
        """What decides the items of a reader that sees no features."""
        state = state_of(self.language_model or "")
        return f"{described} {self.settings()} {state} {self.seeds[0]} {self.upstream_compat} {channels} blind {what}"

    def why_not_comparable(self) -> str:
        """Why the numbers cannot be put beside the paper's."""
        small = ", and the preset is cpu" if self.preset == "cpu" else ""
        return f"the paper's language model is 3D-LLM's BLIP-2 FlanT5-XL, ours {self.language_model}{small}"


def check_reader(config: ReaderConfig, task: str) -> None:
    """Raise NotMeasurable without a language model, ValueError for one that is none."""
    if not config.language_model:
        raise NotMeasurable(f"no language model reads the scenes: pass --set {task}.language_model=FOLDER_OR_ID")
    from transformers import AutoConfig

    from modeling_spatialboost.encoder_loading import first_line

    try:
        AutoConfig.from_pretrained(config.language_model)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--set {task}.language_model={config.language_model!r} is no language model: pass a folder written by "
            f"save_pretrained or a Hub id that AutoModelForCausalLM knows ({first_line(error)})"
        ) from error
