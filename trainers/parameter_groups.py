"""One learning rate for each group of a stage, for any trainer of transformers."""

from typing import Any

import torch
from torch import nn

from trainers.config import TrainingConfig
from trainers.resumable import ResumableTrainer
from trainers.scale_out import settle_processes
from trainers.stages import Stage
from trainers.watching import WatchedTrainer


class GroupedRatesTrainer(ResumableTrainer, WatchedTrainer):
    """Trains the groups of a stage, each at its rate; TRL's trainers may come behind it as a second base."""

    args: TrainingConfig

    def __init__(self, stage: Stage, args: TrainingConfig, **kwargs: Any) -> None:
        """`stage` has been applied to the model with `apply_stage`; `kwargs` are the trainer's own."""
        self.stage = stage
        self.learning_rates = {group.name: args.learning_rate_of(group) for group in stage.groups}
        args.learning_rate = self.learning_rates[stage.groups[0].name]  # transformers wants one for its optimizer
        super().__init__(args=args, **kwargs)
        settle_processes(self)

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Optimizer groups of the trainable parameters: `name`, `params`, `lr`, `weight_decay`.

        Norms and biases do not decay, as in transformers, and alpha never does.
        """
        decaying = set(self.get_decay_parameter_names(model))
        rows: list[dict[str, Any]] = []
        for group in self.stage.groups:
            decayed: list[nn.Parameter] = []
            undecayed: list[nn.Parameter] = []
            for name, parameter in model.named_parameters():
                if self.stage.group_of(name) == group:
                    (decayed if group.decays and name in decaying else undecayed).append(parameter)
            settings = {"name": group.name, "lr": self.learning_rates[group.name]}
            rows.append(settings | {"params": decayed, "weight_decay": self.args.weight_decay})
            rows.append(settings | {"params": undecayed, "weight_decay": 0.0})
        return [row for row in rows if row["params"]]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer that `args.optim` names, over `parameter_groups`."""
        if self.optimizer_cls_and_kwargs is None:  # type: ignore[has-type]
            model = self.model if model is None else model
            optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer_cls_and_kwargs = optimizer_class, settings | {"params": self.parameter_groups(model)}
        return super().create_optimizer(model)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the learning rate of each group; a schedule scales all of them alike."""
        if "learning_rate" in logs:
            factor = logs["learning_rate"] / self.learning_rates[self.stage.groups[0].name]
            logs |= {f"learning_rate/{name}": factor * rate for name, rate in self.learning_rates.items()}
        super().log(logs, start_time)
