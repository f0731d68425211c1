"""Who runs the shard function: this process, or several on this machine. The bytes are the same."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager

from tqdm import tqdm

from dataset_builders.shards import BuildPlan, ShardReport, build_shard


def run_shards(plan: BuildPlan, workers: int) -> list[ShardReport]:
    """Build all shards that are not there yet, with a progress bar over items.

    Args:
        plan: of the build.
        workers: processes; 1 = this one.

    Returns:
        The reports of all shards, in order.
    """
    reports = {shard: ShardReport.read(plan, shard) for shard in range(plan.num_shards)}
    missing = [shard for shard, report in reports.items() if report is None]
    if len(missing) < plan.num_shards:
        print(f"{plan.num_shards - len(missing)} of {plan.num_shards} shards are there already")
    done = len(plan.items) - sum(len(plan.shard_items(shard)) for shard in missing)
    with tqdm(total=len(plan.items), initial=done, desc="scenes", unit="scene") as bar:
        run = _in_this_process if workers == 1 else _in_processes
        for report in run(plan, missing, workers, bar):
            reports[report.shard] = report
    return [report for _, report in sorted(reports.items()) if report is not None]


def _in_this_process(plan: BuildPlan, missing: list[int], workers: int, bar: tqdm) -> Iterator[ShardReport]:
    with _quiet_datasets():
        for shard in missing:
            yield build_shard(plan, shard, on_item=bar.update)


def _in_processes(plan: BuildPlan, missing: list[int], workers: int, bar: tqdm) -> Iterator[ShardReport]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        futures = {pool.submit(build_shard, plan, shard): shard for shard in missing}
        for future in as_completed(futures):
            bar.update(len(plan.shard_items(futures[future])))
            yield future.result()


def _start_worker() -> None:
    from datasets import disable_progress_bars

    disable_progress_bars()


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
