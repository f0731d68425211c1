"""Shards on a Ray cluster: a task per shard, an actor per model and GPU.

Tasks of Ray Core rather than a pipeline of Ray Data: the shard is the unit of work, it writes its own files, and only
its number travels back, so that there are no blocks to stream; and a reader of Ray Data would take the CPU that the
shards need (on two cores, its actors wait for ever). All machines must have this package installed and see the input
and the output folder under the same paths.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, cast

from dataset_builders.perception import MODELS, Models, PerceptionOptions, open_model
from dataset_builders.plans import BuildPlan
from dataset_builders.scene import DropItem, InputError
from dataset_builders.shards import Tools, build_shard, open_chat

MAX_RETRIES = 3  # of a shard whose machine died
CONNECTION_TIMEOUT_S = 10.0


def run_on_ray(plan: BuildPlan, missing: list[int], workers: int, address: str | None) -> Iterator[int]:
    """Numbers of shards as they are finished.

    Args:
        plan: of the build.
        missing: shards to build.
        workers: shards at a time in the whole cluster, each on one CPU.
        address: of a cluster that runs already; None = one on this machine, for the time of the build.

    Raises:
        InputError: there is no cluster at the address, workers died again and again, or what `build_shard` raises.
    """
    import ray
    from ray.exceptions import RayError

    with _connection(address):
        models = _start_models(plan.perception)
        shared_plan = ray.put(plan)
        task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(_build_in_task)
        waiting = iter(missing)
        running = [task.remote(shared_plan, shard, models) for shard in islice(waiting, workers)]
        while running:
            (done,), running = ray.wait(running)
            try:
                yield ray.get(done)
            except RayError as error:
                raise _cause(error) from error
            running += [task.remote(shared_plan, shard, models) for shard in islice(waiting, 1)]


@contextmanager
def _connection(address: str | None) -> Iterator[None]:
    """A cluster to work on; one that this process has already connected to is used as it is."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    import ray

    if ray.is_initialized():
        yield
        return
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            ray.init(include_dashboard=False, **settings)
        else:
            _check_reachable(address)
            ray.init(address=address, **settings)
    except (ConnectionError, OSError, ValueError) as error:
        raise InputError(
            f"--ray-address {address} is no Ray cluster ({str(error).splitlines()[0]}); start one with `ray start "
            "--head` and pass HOST:6379 or auto."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray itself waits for minutes for a machine that does not answer."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECTION_TIMEOUT_S).close()


def _build_in_task(plan: BuildPlan, shard: int, models: "RemoteModels") -> int:
    from datasets import disable_progress_bars

    disable_progress_bars()
    here = cast(Models, replace(models, shard=shard))  # same methods
    return build_shard(plan, shard, Tools(here, open_chat(plan))).shard


def _cause(error: Exception) -> Exception:
    """What was raised in a task, or in an actor that a task asked."""
    from ray.exceptions import RayTaskError

    if not isinstance(error, RayTaskError):
        return InputError(
            f"a Ray worker died ({type(error).__name__}), most often for want of memory; pass fewer --workers and run "
            "again, finished shards are kept."
        )
    while isinstance(error, RayTaskError):
        error = error.cause
    return error


@dataclass(frozen=True)
class RemoteModels:
    """`perception.Models` with the models in actors; a shard always asks the same ones.

    Attributes:
        options: as in `perception.Models`.
        actors: those that hold a model, per kind.
        shard: that asks.
    """

    options: PerceptionOptions
    actors: dict[str, list[Any]]
    shard: int = 0

    def has(self, kind: str) -> bool:
        """Whether the build uses a model of this kind."""
        return getattr(self.options, kind) is not None

    @contextmanager
    def use(self, kind: str) -> Iterator["RemoteModel"]:
        """The model of a kind; it stays in memory."""
        actors = self.actors[kind]
        yield RemoteModel(actors[self.shard % len(actors)])

    def release(self) -> None:
        """Nothing: other shards ask the same models."""


class RemoteModel:
    """Has the methods and attributes of the model that an actor holds."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        import ray

        is_method, value = ray.get(self._actor.look.remote(name))
        return partial(self._ask, name) if is_method else value

    def _ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        import ray

        answer, drop = ray.get(self._actor.ask.remote(method, arguments, named))
        if drop is not None:
            raise DropItem(*drop)
        return answer


class ModelActor:
    """Holds one model for all shards, loaded when it is first asked for."""

    def __init__(self, kind: str, options: PerceptionOptions) -> None:
        self._kind, self._options = kind, options
        self._model: Any = None

    def _loaded(self) -> Any:
        if self._model is None:
            self._model = open_model(self._kind, self._options)
        return self._model

    def look(self, name: str) -> tuple[bool, Any]:
        """Whether the model has a method of this name, else the value of the attribute."""
        value = getattr(self._loaded(), name)
        return (True, None) if callable(value) else (False, value)

    def ask(
        self, method: str, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[Any, tuple[str, str] | None]:
        """The answer, or reason and detail of a `DropItem`."""
        try:
            return getattr(self._loaded(), method)(*arguments, **named), None
        except DropItem as drop:
            return None, (drop.reason, drop.detail)


def _start_models(options: PerceptionOptions) -> RemoteModels:
    """One actor per kind of model on every GPU, which they share; one per kind on the CPU where there is no GPU.

    Actors take no CPU of their own, or shards and models could wait for each other.
    """
    import ray

    kinds = [kind for kind in MODELS if getattr(options, kind) not in (None, "chat")]
    gpus = 0 if options.device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
    here = replace(options, device="auto" if options.device.startswith("cuda") else options.device)
    share = 1 / len(kinds) if gpus and kinds else 0
    actor = ray.remote(num_cpus=0, num_gpus=share, max_restarts=MAX_RETRIES, max_task_retries=MAX_RETRIES)(ModelActor)
    return RemoteModels(here, {kind: [actor.remote(kind, here) for _ in range(max(gpus, 1))] for kind in kinds})
