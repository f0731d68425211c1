"""Who runs the shard function: this process, several on this machine, or a Ray cluster. The bytes are the same."""

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from tqdm import tqdm

from dataset_builders.plans import BuildPlan, ShardReport, ShardReports, full_disk_told
from dataset_builders.scene import InputError
from dataset_builders.shards import Tools, build_shard

ENGINES = ("local", "ray")
_of_this_worker: tuple[BuildPlan, Tools] | None = None  # set once in every process that `_in_processes` starts


def run_shards(plan: BuildPlan, workers: int, engine: str = "local", address: str | None = None) -> ShardReports:
    """Build all shards that are not there yet, with a progress bar over scenes.

    Args:
        plan: of the build.
        workers: shards at a time; with the local engine processes, 1 = this one.
        engine: one of `ENGINES`.
        address: of a Ray cluster that runs already; None = one of its own on this machine.

    Returns:
        The reports of all shards, in order, read from disk when they are gone through.

    Raises:
        InputError: no such engine, no cluster at the address, the disk is full, or a worker died.
    """
    if engine not in ENGINES:
        raise InputError(f"--engine {engine!r} is unknown; choose one of {', '.join(ENGINES)}.")
    if address is not None and engine != "ray":
        raise InputError(f"--ray-address {address} is of no use to --engine {engine}; pass --engine ray.")
    missing = [shard for shard in range(plan.num_shards) if not ShardReport.marker(plan, shard).is_file()]
    if len(missing) < plan.num_shards:
        print(f"{plan.num_shards - len(missing)} of {plan.num_shards} shards are there already")
    _prepare_staging(plan)
    done = len(plan.items) - sum(len(plan.shard_items(shard)) for shard in missing)
    with tqdm(total=len(plan.items), initial=done, desc="scenes", unit="scene") as bar:
        if not missing:
            pass
        elif engine == "ray":
            from dataset_builders.ray_engine import run_on_ray

            for shard in run_on_ray(plan, missing, workers, address):
                bar.update(len(plan.shard_items(shard)))
        elif workers == 1:
            _in_this_process(plan, missing, bar)
        else:
            for shard in _in_processes(plan, missing, workers):
                bar.update(len(plan.shard_items(shard)))
    return ShardReports(plan)


def _prepare_staging(plan: BuildPlan) -> None:
    """Only here is the staging folder made: a worker that outlives its build cannot bring it back."""
    with full_disk_told(plan.output_dir):
        plan.staging_dir.mkdir(parents=True, exist_ok=True)
    for partial in plan.staging_dir.glob("*.partial"):  # left by a run that was killed
        partial.unlink(missing_ok=True)


def _in_this_process(plan: BuildPlan, missing: list[int], bar: tqdm) -> None:
    tools = Tools.of(plan)
    with _quiet_datasets():
        for shard in missing:
            build_shard(plan, shard, tools, on_item=bar.update)


def _in_processes(plan: BuildPlan, missing: list[int], workers: int) -> Iterator[int]:
    """Numbers of shards as they are finished."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(plan,))
    with _threads_per_process(max(1, (os.cpu_count() or 1) // workers)), pool:
        futures = [pool.submit(_build_in_worker, shard) for shard in missing]
        try:
            for future in as_completed(futures):
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise InputError(
                        f"one of {workers} worker processes was killed, most often for want of memory; pass fewer "
                        "--workers and run again, finished shards are kept."
                    ) from error
                if error is not None:
                    raise error
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _threads_per_process(count: int) -> Iterator[None]:
    """Processes that start meanwhile use so many threads each, where the user does not say; else each takes all."""
    said = os.environ.get("OMP_NUM_THREADS")
    os.environ.setdefault("OMP_NUM_THREADS", str(count))
    try:
        yield
    finally:
        if said is None:
            del os.environ["OMP_NUM_THREADS"]


def _start_worker(plan: BuildPlan) -> None:
    from datasets import disable_progress_bars

    global _of_this_worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    disable_progress_bars()
    _of_this_worker = plan, Tools.of(plan)


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _build_in_worker(shard: int) -> int:
    assert _of_this_worker is not None
    plan, tools = _of_this_worker
    return build_shard(plan, shard, tools).shard


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """No bar of `datasets` for every file of ours."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    were_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            enable_progress_bars()
