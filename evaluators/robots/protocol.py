"""How policies are taught and tried: CortexBench's protocol, or a small one, and the configuration that changes it."""

import dataclasses
from dataclasses import asdict, dataclass

from evaluators.contract import TaskConfig
from evaluators.robots.simulators import ROBOT_TASKS, RobotTask

MAX_SHORT_HORIZON_STEPS = 200  # of demonstrations and rollouts in the small protocol


@dataclass(frozen=True)
class Protocol:
    """How a policy is taught and tried.

    Attributes:
        demonstrations: episodes that are imitated.
        rollouts: trials per evaluation.
        epochs: of training.
        evaluate_every: epochs from one evaluation to the next; the last epoch always ends with one.
        horizon_steps: length of a rollout, and the most of a demonstration; None: rollouts are twice as long as the
            mean demonstration, and both at most MAX_SHORT_HORIZON_STEPS or what the full protocol has.
        steps_after_success: how long a scripted expert goes on, so that the policy learns to stay at its goal.
        image_size_px: side of the pictures.
    """

    demonstrations: int
    rollouts: int
    epochs: int = 100
    evaluate_every: int = 5
    horizon_steps: int | None = None
    steps_after_success: int = 50
    image_size_px: int = 256


def preset_protocol(preset: str, task: RobotTask) -> Protocol:
    """CortexBench's protocol, or a small one that two CPU cores finish in minutes with a tiny encoder."""
    if preset == "cpu":
        return Protocol(10, 10, evaluate_every=50, steps_after_success=50, image_size_px=128)
    return Protocol(
        task.demonstrations, task.rollouts, horizon_steps=task.horizon_steps, steps_after_success=task.horizon_steps
    )


@dataclass(frozen=True, kw_only=True)
class CloningConfig(TaskConfig):
    """Behaviour cloning; what is None is the preset's, see `Protocol`.

    Attributes:
        read_pickles: allow recorded demonstrations in CortexBench's pickles.
    """

    demonstrations: int | None = None
    rollouts: int | None = None
    epochs: int | None = None
    evaluate_every: int | None = None
    horizon_steps: int | None = None
    steps_after_success: int | None = None
    image_size_px: int | None = None
    read_pickles: bool = False

    def protocol(self) -> Protocol:
        """The preset's with the settings of this configuration, cut to `limit`."""
        chosen = {field.name: getattr(self, field.name) for field in dataclasses.fields(Protocol)}
        given = {name: value for name, value in chosen.items() if value is not None}
        protocol = dataclasses.replace(preset_protocol(self.preset, self.task()), **given)
        if self.limit is None:
            return protocol
        return dataclasses.replace(
            protocol,
            demonstrations=min(protocol.demonstrations, self.limit),
            rollouts=min(protocol.rollouts, self.limit),
        )

    def task(self) -> RobotTask:
        """The row of the table of robot tasks."""
        return ROBOT_TASKS[self.data_set]

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, value in asdict(self.protocol()).items():
            if value is not None and value < (0 if name == "steps_after_success" else 1):
                raise ValueError(f"{name} {value} leaves nothing to do: pass 1 or more")
