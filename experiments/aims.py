"""What issue and paper claim of a table, each put beside what was found: met, not met, or not measured."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Arms = dict[str, Any]
FAMILIES = ("depth", "segmentation", "classification", "retrieval")
KEPT = ("classification", "retrieval")  # what an encoder could do before, and must not forget


class Aim(NamedTuple):
    """A claim, what was found in its place, and whether it holds (None: not measured)."""

    claim: str
    found: str
    met: bool | None


def aims_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The claims of a table with what was found."""
    arms, reference = found["arms"], found["reference"]
    checks: list[Callable[[Arms], Aim]] = [*CHECKS.get(found["table"], ())]
    if reference == "base" and "shuffled_answers" in arms:
        checks.append(shuffled_answers_do_not_help)
    return [check(arms)._asdict() for check in checks]


def depth_falls_by_15_per_cent(arms: Arms) -> Aim:
    """Of boosted against base, linear probe."""
    claim = "linear depth RMSE falls by 15 % or more"
    base, boosted = _mean(arms, "base", "depth"), _mean(arms, "language", "depth")
    if base is None or boosted is None:
        return Aim(claim, "not measured", None)
    change = 100 * (boosted - base) / base
    return Aim(claim, f"{change:+.1f} % ({_verdict(arms, 'language', 'depth')})", change <= -15)


def segmentation_rises_by_2_points(arms: Arms) -> Aim:
    """Of boosted against base, linear probe."""
    claim = "segmentation mIoU rises by 2 points or more"
    base, boosted = _mean(arms, "base", "segmentation"), _mean(arms, "language", "segmentation")
    if base is None or boosted is None:
        return Aim(claim, "not measured", None)
    found = f"{boosted - base:+.2f} points ({_verdict(arms, 'language', 'segmentation')})"
    return Aim(claim, found, boosted - base >= 2)


def nothing_is_forgotten(arms: Arms) -> Aim:
    """Of boosted against base: classes and retrieval."""
    claim = "classes and retrieval are no worse"
    found = {measure: _verdict(arms, "language", measure) for measure in KEPT}
    told = ", ".join(f"{measure} {_difference(arms, 'language', measure)} ({word})" for measure, word in found.items())
    if "not measured" in found.values():
        return Aim(claim, told, None)
    return Aim(claim, told, "worse" not in found.values())


def shuffled_answers_do_not_help(arms: Arms) -> Aim:
    """The control that has the same texts under wrong images."""
    claim = "shuffled answers give no gain in depth and segmentation"
    found = {measure: _verdict(arms, "shuffled_answers", measure) for measure in ("depth", "segmentation")}
    told = ", ".join(
        f"{measure} {_difference(arms, 'shuffled_answers', measure)} ({word}; the true answers "
        f"{_difference(arms, 'language', measure)})"
        for measure, word in found.items()
    )
    if "not measured" in found.values():
        return Aim(claim, told, None)
    return Aim(claim, told, "better" not in found.values())


def language_beats_every_head(arms: Arms) -> Aim:
    """On the mean over families of the relative improvement."""
    claim = "the language model is better than every pixel head on the mean of the families"
    heads = ("linear_depth", "linear_segmentation", "mask_decoder", "point_decoder")
    return _ranked(claim, arms, ("language", *heads), first_is_highest)


def dual_channel_keeps_most(arms: Arms) -> Aim:
    """On the mean of what classes and retrieval lose."""
    claim = "dual-channel keeps more of classes and retrieval than full fine-tuning and LoRA"
    names = ("language", "full", "full_slow", "lora", "lora_fast", "lora_matched")
    return _ranked(claim, arms, names, first_is_highest, KEPT)


def forward_is_best(arms: Arms) -> Aim:
    """Of the orders of the turns."""
    claim = "turns in forward order are the best, and better than none"
    return _ranked(claim, arms, ("single_view", "single_random", "single_reverse"), first_is_highest_gain)


def mix_is_best(arms: Arms) -> Aim:
    """Of single-view, multi-view and both."""
    claim = "a mix of single- and multi-view is the best, and better than none"
    return _ranked(claim, arms, ("language", "single_view", "multi_view"), first_is_highest_gain)


def more_data_is_better(arms: Arms) -> Aim:
    """At equal steps."""
    names = ("data_12", "data_25", "data_50", "language")
    return _ranked("more data is better at equal steps", arms, names, lambda gains: gains == sorted(gains))


def own_objective_is_flat(arms: Arms) -> Aim:
    """Against language on the same images."""
    claim = "language helps, and more than the encoder's own objective"
    return _ranked(claim, arms, ("language", "own_objective"), first_is_highest_gain)


def depth_base_still_gains(arms: Arms) -> Aim:
    """Of a base that knows depth, if it does: beyond chance over itself and over shuffled answers, at no price."""
    claim = "an encoder that was trained with depth still gains, by more than shuffled answers"
    plain, base = _mean(arms, "base", "depth"), _mean(arms, "depth_base", "depth")
    cells = {one: arms.get("depth_language", {}).get("measures", {}).get(one, {}) for one in FAMILIES[:2]}
    if plain is None or base is None or not all("over_shuffled" in cell for cell in cells.values()):
        return Aim(claim, "not measured", None)
    if base >= plain:
        return Aim(claim, f"cannot be told: that encoder has {base:.3f} m, the plain base {plain:.3f} m", None)
    told = ", ".join(
        f"{one} {cell['difference']['mean']:+.3g} ({cell['verdict']}), over shuffled answers "
        f"{cell['over_shuffled']['difference']['mean']:+.3g} ({cell['over_shuffled']['verdict']})"
        for one, cell in cells.items()
    )
    gained = any(cell["verdict"] == cell["over_shuffled"]["verdict"] == "better" for cell in cells.values())
    return Aim(claim, told, gained and all(cell["verdict"] != "worse" for cell in cells.values()))


def questions_teach_depth(arms: Arms) -> Aim:
    """Language at its densest."""
    return _teaches_depth("short questions teach depth", arms, "questions")


def dialogues_teach_depth(arms: Arms) -> Aim:
    """The paper's own form."""
    return _teaches_depth("12-turn dialogues teach depth in as many steps", arms, "dialogues")


def _teaches_depth(claim: str, arms: Arms, name: str) -> Aim:
    """Beyond chance better than the base, and than with shuffled answers."""
    claim = f"{claim}: more than shuffled answers, and than none"
    cell = arms.get(name, {}).get("measures", {}).get("depth", {})
    over = cell.get("over_shuffled")
    if over is None:
        return Aim(claim, "not measured", None)
    found = f"over the base {_difference(arms, name, 'depth')} m ({cell['verdict']}), "
    found += f"over shuffled answers {over['difference']['mean']:+.3g} m ({over['verdict']})"
    return Aim(claim, found, cell["verdict"] == over["verdict"] == "better")


def first_is_highest(gains: list[float]) -> bool:
    """Whether the first gain is above all others."""
    return gains[0] > max(gains[1:])


def first_is_highest_gain(gains: list[float]) -> bool:
    """The same, and above nothing at all: less bad than another is no help."""
    return gains[0] > 0 and first_is_highest(gains)


def mean_gains(arms: Arms, name: str, measures: tuple[str, ...] = FAMILIES) -> list[float] | None:
    """By seed, the mean over families of an arm's improvement over the base in per cent of it; None if one lacks."""
    cells = [[arms.get(arm, {}).get("measures", {}).get(one) for arm in ("base", name)] for one in measures]
    if not all(cell and np.isfinite(cell["per_seed"]).all() for pair in cells for cell in pair):
        return None
    if not all(all(base["per_seed"]) for base, _ in cells):  # nothing to take a share of
        return None
    gains = [
        100 * (np.divide(own["per_seed"], base["per_seed"]) - 1) * (-1 if one.startswith("depth") else 1)
        for one, (base, own) in zip(measures, cells)
    ]
    return np.mean(gains, axis=0).tolist()


def _ranked(
    claim: str,
    arms: Arms,
    names: tuple[str, ...],
    holds: Callable[[list[float]], bool],
    measures: tuple[str, ...] = FAMILIES,
) -> Aim:
    """A claim on the mean improvements of some arms; where there are several seeds it tells in how many it holds.

    Args:
        claim: in words.
        arms: of a table.
        names: of the arms that the claim is about.
        holds: whether it is true of their gains, which come in the order of `names`.
        measures: that the mean is over.
    """
    found = [mean_gains(arms, name, measures) for name in names]
    gains = [gain for gain in found if gain is not None]
    if len(gains) < len(names):
        return Aim(claim, "not measured", None)
    means = np.mean(gains, axis=1).tolist()
    told = ", ".join(f"{arms[name]['label']} {mean:+.1f} %" for name, mean in zip(names, means))
    seeds = [holds(list(of_seed)) for of_seed in zip(*gains)]
    counted = f"; so in {sum(seeds)} of {len(seeds)} seeds" if len(seeds) > 1 else ""
    what = "mean improvement over the base" if measures == FAMILIES else "mean change of classes and retrieval"
    return Aim(claim, f"{what}: {told}{counted}", holds(means))


def _mean(arms: Arms, name: str, measure: str) -> float | None:
    cell = arms.get(name, {}).get("measures", {}).get(measure)
    return None if cell is None or cell["mean"] != cell["mean"] else cell["mean"]


def _verdict(arms: Arms, name: str, measure: str) -> str:
    return arms.get(name, {}).get("measures", {}).get(measure, {}).get("verdict", "not measured")


def _difference(arms: Arms, name: str, measure: str) -> str:
    cell = arms.get(name, {}).get("measures", {}).get(measure, {}).get("difference")
    return "-" if cell is None else f"{cell['mean']:+.3g}"


CHECKS: dict[str, tuple[Callable[[Arms], Aim], ...]] = {
    "main": (depth_falls_by_15_per_cent, segmentation_rises_by_2_points, nothing_is_forgotten),
    "table6": (language_beats_every_head,),
    "table7": (forward_is_best, mix_is_best),
    "figure5": (more_data_is_better,),
    "figure6": (dual_channel_keeps_most,),
    "table8": (own_objective_is_flat,),
    "table9": (depth_base_still_gains,),
    "teaching": (questions_teach_depth, dialogues_teach_depth),
}
