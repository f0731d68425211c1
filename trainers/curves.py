"""Curves as SVG text: axes with units and round ticks, bands, marks, a title and a description for screen readers."""

import math
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 420, 236
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 26, 36
SMALL_WIDTH, SMALL_HEIGHT = 168, 112
MAX_POINTS = 300  # of a line; more would be closer together than pixels


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        points: (step, value) pairs, finite, in the order of the steps.
        label: of the legend; "" for none.
        style: CSS class, which gives colour and dashes.
        band: (low, high) around each point, or nothing.
        depth: place between the first (0) and the last (1) layer, which gives the colour; None = by `style`.
    """

    points: list[tuple[float, float]]
    label: str = ""
    style: str = "one"
    band: list[tuple[float, float]] = field(default_factory=list)
    depth: float | None = None


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high`, laid out from `start` to `end` in pixels.

    Attributes:
        logarithmic: powers of ten at equal distances; all values positive.
        percent: ticks in percent.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False
    percent: bool = False

    def place(self, value: float) -> float:
        """Pixel of a value."""
        low, high, value = (math.log10(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, wanted: int = 5) -> list[tuple[float, str]]:
        """Round values inside the axis and their texts."""
        if self.logarithmic:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            step = max(1, math.ceil((last - first) / wanted))
            return [(10.0**power, _power_text(power)) for power in range(first, last + 1, step)]
        rough = (self.high - self.low) / wanted
        scale = 10 ** math.floor(math.log10(rough))
        step = next(scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(i * step, number_text(i * step, step, self.percent)) for i in range(first, last + 1)]


def number_text(value: float, step: float, percent: bool = False) -> str:
    """A tick's text, with the decimals that `step` needs: 0.25, 1,500, 20k, 3M, 2e-5, 40 %."""
    if percent:
        return f"{number_text(100 * value, 100 * step)} %"
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * factor or (factor > 1e3 and abs(value) >= factor):
            return number_text(value / factor, step / factor) + unit
    if not value and step < 1e-3:
        return "0"
    if step < 1e-3:
        digits, power = f"{value:.1e}".split("e")
        return f"{digits.removesuffix('.0')}e{int(power)}"
    decimals = next((d for d in range(6) if abs(step * 10**d - round(step * 10**d)) < 1e-6), 6)
    return f"{value:,.{decimals}f}"


def thin(curve: Curve) -> Curve:
    """The curve with at most `MAX_POINTS` points: means over equal runs of points, and the bands around them."""
    size = math.ceil(len(curve.points) / MAX_POINTS)
    if size <= 1:
        return curve
    groups = [curve.points[i : i + size] for i in range(0, len(curve.points), size)]
    bands = [curve.band[i : i + size] for i in range(0, len(curve.band), size)]
    return Curve(
        [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups],
        curve.label,
        curve.style,
        [(min(low for low, _ in band), max(high for _, high in band)) for band in bands],
        curve.depth,
    )


def value_range(curves: list[Curve], from_zero: bool = False, logarithmic: bool = False) -> tuple[float, float]:
    """Lowest and highest value of all curves and bands, with some room; never empty."""
    values = [y for curve in curves for _, y in curve.points]
    values += [y for curve in curves for pair in curve.band for y in pair]
    low, high = min(values), max(values)
    if logarithmic:
        return low / 1.3, high * 1.3
    low = min(low, 0) if from_zero else low
    room = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return (low if from_zero else low - room), high + room


def line_chart(
    title: str,
    unit: str,
    curves: list[Curve],
    last_step: float,
    marks: list[float] | None = None,
    from_zero: bool = False,
    percent: bool = False,
) -> str:
    """A figure of lines over the steps of a run.

    Args:
        title: heading of the figure.
        unit: of the vertical axis, written above it.
        curves: at least one point in each.
        last_step: end of the horizontal axis.
        marks: steps with a dashed vertical.
        from_zero: the vertical axis starts at zero; else where the values do.
        percent: values are shares, shown in percent.
    """
    description = ". ".join(_describe(curve, percent) for curve in (curves if len(curves) <= 4 else curves[-1:]))
    curves = [thin(curve) for curve in curves]
    low, high = value_range(curves, from_zero)
    logarithmic = not from_zero and not percent and 0 < 50 * min(y for c in curves for _, y in c.points) < high
    if logarithmic:
        (low, high), unit = value_range(curves, logarithmic=True), f"{unit}, log scale"
    x = Axis(0, max(last_step, 1), LEFT, WIDTH - RIGHT)
    y = Axis(low, high, HEIGHT - BOTTOM, TOP, logarithmic, percent)
    body = _axes(x, y, unit, "step") + "".join(_mark(x.place(mark), y) for mark in marks or [])
    body += "".join(_draw(curve, x, y) for curve in curves)
    return _figure(title, _legend(curves), _svg(body, title, description, WIDTH, HEIGHT))


def small_chart(title: str, curve: Curve, last_step: float, span: tuple[float, float]) -> str:
    """A small figure of one line and its band; `span` is the vertical axis that it shares with others."""
    description, curve = _describe(curve), thin(curve)
    x = Axis(0, max(last_step, 1), 34, SMALL_WIDTH - 8)
    y = Axis(*span, SMALL_HEIGHT - 20, 8)
    body = _axes(x, y, "", "", wanted=3) + _draw(curve, x, y)
    return _figure(title, "", _svg(body, title, description, SMALL_WIDTH, SMALL_HEIGHT))


def layer_chart(title: str, unit: str, rows: list[tuple[int, float, float, float]], from_zero: bool = False) -> str:
    """A figure of one dot for each layer, with the range around it.

    Args:
        title: heading of the figure.
        unit: of the vertical axis.
        rows: layer, value, low, high.
        from_zero: the vertical axis starts at zero.
    """
    dots = Curve([(layer, value) for layer, value, _, _ in rows], band=[(low, high) for _, _, low, high in rows])
    x = Axis(rows[0][0] - 0.7, rows[-1][0] + 0.7, LEFT, WIDTH - RIGHT)
    y = Axis(*value_range([dots], from_zero), HEIGHT - BOTTOM, TOP)
    body = _axes(x, y, unit, "layer", whole=True)
    for layer, value, low, high in rows:
        place = f"{x.place(layer):.1f}"
        if high > low:
            body += f'<path class="range" d="M{place} {y.place(low):.1f}V{y.place(high):.1f}"/>'
        body += f'<circle class="dot" cx="{place}" cy="{y.place(value):.1f}" r="3.5"/>'
    texts = (f"layer {layer}: {value:.3g}, from {low:.3g} to {high:.3g}" for layer, value, low, high in rows)
    description = "; ".join(texts)
    return _figure(title, "", _svg(body, title, description, WIDTH, HEIGHT))


def _axes(x: Axis, y: Axis, unit: str, x_unit: str, wanted: int = 5, whole: bool = False) -> str:
    parts = []
    for value, text in y.ticks(wanted):
        height = f"{y.place(value):.1f}"
        parts.append(f'<path class="grid" d="M{x.start} {height}H{x.end}"/>')
        parts.append(f'<text class="tick" x="{x.start - 6}" y="{height}" dy="0.35em" text-anchor="end">{text}</text>')
    for value, text in x.ticks(wanted):
        if not whole or value == round(value):
            place = f"{x.place(value):.1f}"
            parts.append(f'<text class="tick" x="{place}" y="{y.start + 16}" text-anchor="middle">{text}</text>')
    parts.append(f'<path class="axis" d="M{x.start} {y.start}H{x.end}"/>')
    parts.append(f'<text class="unit" x="4" y="14">{escape(unit)}</text>')
    parts.append(f'<text class="unit" x="{x.end}" y="{y.start + 31}" text-anchor="end">{x_unit}</text>')
    return "".join(parts)


def _draw(curve: Curve, x: Axis, y: Axis) -> str:
    places = [(x.place(step), y.place(value)) for step, value in curve.points]
    parts = []
    if curve.band:
        edges = [(place, y.place(low), y.place(high)) for (place, _), (low, high) in zip(places, curve.band)]
        outline = [(place, high) for place, _, high in edges] + [(place, low) for place, low, _ in reversed(edges)]
        parts.append(f'<path class="band {curve.style}" d="{_path(outline)}Z"/>')
    mixed = ""
    if curve.depth is not None:
        mixed = f' style="stroke:color-mix(in oklab,var(--last) {curve.depth:.0%},var(--first))"'
    if len(places) == 1:
        parts.append(f'<circle class="dot" cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3.5"/>')
    parts.append(f'<path class="line {curve.style}"{mixed} d="{_path(places)}"/>')
    return "".join(parts)


def _path(places: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def _mark(place: float, y: Axis) -> str:
    return f'<path class="mark" d="M{place:.1f} {y.start}V{y.end}"/>'


def _legend(curves: list[Curve]) -> str:
    shown = [curve for curve in curves if curve.label and curve.depth is None]
    items = "".join(f'<li><i class="key {curve.style}"></i>{escape(curve.label)}</li>' for curve in shown)
    return f'<ul class="legend">{items}</ul>' if items else ""


def _describe(curve: Curve, percent: bool = False) -> str:
    values = [f"{value:.1%}" if percent else f"{value:.4g}" for _, value in curve.points]
    ends = f"from {values[0]} at step {curve.points[0][0]:g} to {values[-1]} at step {curve.points[-1][0]:g}"
    return f"{curve.label}: {ends}" if curve.label else ends.capitalize()


def _svg(body: str, title: str, description: str, width: int, height: int) -> str:
    name = "".join(letter if letter.isalnum() else "-" for letter in title)  # titles differ in a page
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{name} {name}d"><title id="{name}">'
        f'{escape(title)}</title><desc id="{name}d">{escape(description)}</desc>{body}</svg>'
    )


def _figure(title: str, legend: str, svg: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{legend}{svg}</figure>"


def _power_text(power: int) -> str:
    return f"{10.0**power:g}" if -4 <= power <= 4 else f"1e{power}"
