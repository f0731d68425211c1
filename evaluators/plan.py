"""From the arguments of `spatialboost evaluate` to what is measured, all of it checked before anything runs."""

import argparse
import dataclasses
import difflib
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from evaluators.catalogue import DATA_SETS, TASKS, kind_of, parse_data, parse_tasks, task_module

PRESET_SEEDS = {"full": (0, 1, 2), "cpu": (0,)}


class Plan(NamedTuple):
    """What is measured: a checked configuration per entry "TASK/DATA_SET"; and what is not, with the reason."""

    configs: dict[str, Any]
    not_measured: dict[str, str]


def make_plan(arguments: argparse.Namespace) -> Plan:
    """Decide what the arguments of `spatialboost evaluate` ask for.

    With `--tasks all`, what has no data or lacks a package is listed as not measured; what is named must be there.

    Raises:
        ValueError: a name, a place, a setting or a package is wrong or missing.
    """
    from evaluators.contract import NotMeasurable
    from evaluators.language.config import check_vlms

    tasks, places = parse_tasks(arguments.tasks), parse_data(arguments.data)
    settings = parse_settings(arguments.set)
    common = {
        "cache_dir": arguments.cache_dir or arguments.output / "features",
        "preset": arguments.preset,
        "seeds": tuple(arguments.seeds or PRESET_SEEDS[arguments.preset]),
        "limit": arguments.limit,
        "resolution": parse_resolution(arguments.resolution),
        "upstream_compat": arguments.upstream_compat,
    }
    plan = Plan({}, {})
    asking = [task for task in tasks if TASKS[task].asks_vlm]
    no_vlm = check_vlms(arguments, asking)
    for task, name in _pairs(tasks, places):
        entry = f"{task}/{name}"
        if name not in places and not _runs_unasked(task, name, arguments, places):
            plan.not_measured[entry] = _no_data(name)
            continue
        if task in asking and no_vlm:
            plan.not_measured[entry] = no_vlm
            continue
        try:
            module = task_module(task)
            config = module.Config(data_set=kind_of(name), data=places.get(name), **common)
            config = with_settings(config, task, settings.get(task, {}))
            if hasattr(module, "check"):
                module.check(config)
        except NotMeasurable as error:
            if arguments.tasks != "all":
                raise
            plan.not_measured[entry] = str(error)
            continue
        except ModuleNotFoundError as error:
            if arguments.tasks != "all" or not error.name or error.name.startswith("evaluators"):
                raise
            extra = TASKS[task].extra or "eval"
            plan.not_measured[entry] = f"{error.name} is missing: pip install 'spatialboost[{extra}]'"
            continue
        plan.configs[entry] = config
    _check_use(arguments.tasks, tasks, places, settings, plan)
    return plan


def _pairs(tasks: list[str], places: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each task with each data set that it can read, once per place of it, in the order of the report."""
    for task in tasks:
        for kind, row in DATA_SETS.items():
            if task in row.tasks:
                yield from ((task, name) for name in [name for name in places if kind_of(name) == kind] or [kind])


def _runs_unasked(task: str, name: str, arguments: argparse.Namespace, places: dict[str, Any]) -> bool:
    """Whether a simulator is used without `--data`: its task is named, and none of the task's simulators is."""
    if arguments.tasks == "all" or any(task in DATA_SETS[kind_of(other)].tasks for other in places):
        return False
    return arguments.preset in DATA_SETS[name].unasked


def _no_data(name: str) -> str:
    if not DATA_SETS[name].needs_data:
        return f"a simulator runs for minutes: name it, --data {name}"
    hub_id, terms = DATA_SETS[name].hub_id, DATA_SETS[name].terms
    place = f"--data {name} (from {hub_id}) or {name}=FOLDER" if hub_id else f"--data {name}=FOLDER"
    return f"no data: {place}" + (f". {terms}" if terms else "")


def _check_use(wanted: str, tasks: list[str], places: dict[str, Any], settings: dict[str, Any], plan: Plan) -> None:
    """Raise for what was named and would not be used."""
    for chosen in wanted.split(",") if wanted != "all" else []:
        of_name = parse_tasks(chosen)
        if not any(entry.split("/")[0] in of_name for entry in plan.configs):
            names = ", ".join(name for name, row in DATA_SETS.items() if set(of_name) & set(row.tasks))
            raise ValueError(f"--tasks {chosen} has no data: pass --data NAME=FOLDER with a NAME of {names}")
    for name in places:
        if not any(entry.endswith(f"/{name}") for entry in (*plan.configs, *plan.not_measured)):
            raise ValueError(f"--data {name!r} is read by none of --tasks {wanted}: remove it")
    if unused := [task for task in settings if task not in tasks]:
        raise ValueError(f"--set {unused[0]!r} is none of the tasks that run: {', '.join(tasks)}")
    if not plan.configs:
        raise ValueError(f"--tasks {wanted} has no data: pass --data FOLDER, made by `spatialboost build`")


def parse_settings(entries: list[str]) -> dict[str, dict[str, Any]]:
    """Settings by task of `TASK.SETTING=VALUE`, values as YAML reads them.

    Raises:
        ValueError: an entry of another form.
    """
    settings: dict[str, dict[str, Any]] = {}
    for entry in entries:
        name, separator, value = entry.partition("=")
        task, dot, setting = name.partition(".")
        if not separator or not dot:
            raise ValueError(f"--set {entry!r} is no TASK.SETTING=VALUE: write depth_linear.max_depth_m=80")
        settings.setdefault(task, {})[setting] = yaml.safe_load(value)
    return settings


def with_settings(config: Any, task: str, settings: dict[str, Any]) -> Any:
    """The configuration with a task's own settings.

    Raises:
        ValueError: a setting that the task has not, or a value of another type.
    """
    known = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for name, value in settings.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"--set {task}.{name}: {task} has no such setting{hint}, only {', '.join(known)}")
        present = known[name]
        if isinstance(present, float) and isinstance(value, int):
            settings[name] = float(value)
        elif present is not None and type(value) is not type(present):
            raise ValueError(f"--set {task}.{name}={value!r}: pass a {type(present).__name__} such as {present!r}")
    return dataclasses.replace(config, **settings)


def parse_resolution(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of `224` or `480x640`, None for None.

    Raises:
        ValueError: for anything else.
    """
    if text is None:
        return None
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise ValueError(
            f"--resolution {text!r} is no size: pass SIDE or HEIGHTxWIDTH in pixels, such as 224 or 480x640"
        )
    return int(sides[0]), int(sides[-1])
