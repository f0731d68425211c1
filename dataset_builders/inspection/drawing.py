"""What a record speaks of, drawn: pictures with masks, 3D boxes and points, and bar charts, all as inline SVG."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from dataset_builders.facts import RecordFacts, Row

MAX_WIDTH_PX = 640
COLOURS = (
    "#e6194b",
    "#3cb44b",
    "#4363d8",
    "#f58231",
    "#911eb4",
    "#008080",
    "#9a6324",
    "#e377c2",
    "#bcbd22",
    "#17becf",
)
EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if (a ^ b).bit_count() == 1]  # of a box's corners
NEAR_M = 0.05  # an edge that comes nearer to the camera is not drawn


def colour_of(object_id: int) -> str:
    """The colour of an object, the same wherever it is drawn."""
    return COLOURS[object_id % len(COLOURS)]


def views_svg(record: Row) -> list[str]:
    """One picture per view: the image with what the record's turns and objects say about it."""
    facts = RecordFacts(record) if record["cameras"] else None
    return [_view_svg(record, facts, place) for place in range(len(record["images"]))]


def _view_svg(record: Row, facts: RecordFacts | None, view: int) -> str:
    with Image.open(io.BytesIO(record["images"][view]["bytes"])) as image:
        picture, (width, height) = image.convert("RGB"), image.size
    parts = []
    if facts is not None:
        asked = {name for turn in record["turns"] if turn["level"] != "caption" for name in turn["object_ids"]}
        rows = [row for row in record["objects"] if not row["is_support"]]
        for row in rows:
            if row["view"] == view and row.get("mask"):
                parts.append(_mask_image(row, width, height))
        for row in rows:
            if view in row["visible_in"]:
                parts.append(_box_svg(facts, row, view, row["id"] in asked))
        parts += _points_svg(record, view, width, height)
    label = f"image {view + 1} of record {record['id']}"
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f'<image href="{_data_uri(picture)}" width="{width}" height="{height}"/>{"".join(parts)}</svg>'
    )


def _data_uri(picture: Image.Image) -> str:
    """A JPEG of at most `MAX_WIDTH_PX` pixels a side, embedded."""
    picture = picture.copy()
    picture.thumbnail((MAX_WIDTH_PX, MAX_WIDTH_PX))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _mask_image(row: Row, width: int, height: int) -> str:
    """The mask of an object as a translucent layer."""
    from pycocotools import mask as coco

    mask = coco.decode({"size": [height, width], "counts": row["mask"].encode()}).astype(bool)
    red, green, blue = (int(colour_of(row["id"])[start : start + 2], 16) for start in (1, 3, 5))
    layer = np.zeros((height, width, 4), dtype=np.uint8)
    layer[mask] = (red, green, blue, 90)
    picture = Image.fromarray(layer)
    picture.thumbnail((MAX_WIDTH_PX, MAX_WIDTH_PX), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return f'<image href="{uri}" width="{width}" height="{height}"/>'


def box_corners_px(facts: RecordFacts, row: Row, view: int) -> np.ndarray | None:
    """The corners (8, 2) of an object's 3D box in the pixels of a view; None if one is too near to be seen.

    `EDGES` says which of them are joined.
    """
    camera = facts.cameras[view]
    box = facts.box(row, view)
    signs = np.array([[(corner >> bit & 1) - 0.5 for bit in range(3)] for corner in range(8)])  # (8, 3)
    corners = box.centre + (signs * box.dimensions) @ box.axes
    to_camera = facts.world_to_camera[view] @ np.linalg.inv(facts.canonical[view])
    corners = corners @ to_camera[:3, :3].T + to_camera[:3, 3]
    if (corners[:, 2] < NEAR_M).any():
        return None
    focal, centre = (camera["fx"], camera["fy"]), (camera["cx"], camera["cy"])
    return corners[:, :2] / corners[:, 2:] * focal + centre


def _box_svg(facts: RecordFacts, row: Row, view: int, asked: bool) -> str:
    """The edges of an object's 3D box, seen by a view; bold and with its name if a turn speaks of it."""
    corners = box_corners_px(facts, row, view)
    if corners is None:
        return ""
    camera, (u, v) = facts.cameras[view], corners.T
    size = max(camera["width"], camera["height"]) / 320
    lines = "".join(f'<path d="M{u[a]:.1f} {v[a]:.1f}L{u[b]:.1f} {v[b]:.1f}"/>' for a, b in EDGES)
    style = f'stroke="{colour_of(row["id"])}" stroke-width="{size * (1.4 if asked else 0.5):.2f}" fill="none"'
    group = f"<g {style}><title>{escape(row['mention'])}</title>{lines}</g>"
    if not asked:
        return group
    left, right = max(u.min(), 0), min(u.max(), camera["width"])
    anchor, x = ("start", left) if left + right < camera["width"] else ("end", right)
    place = f'x="{x:.0f}" y="{max(v.min() - 2 * size, 10 * size):.0f}" text-anchor="{anchor}"'
    text = f'<text {place} class="label" font-size="{9 * size:.1f}" fill="{colour_of(row["id"])}">'
    return f"{group}{text}{escape(row['name'])}</text>"


def points_of(record: Row, view: int) -> dict[tuple[float, float], str]:
    """The points (x, y) of a view that turns speak of, 0..1, with the numbers of those turns, such as "2,5"."""
    turns: dict[tuple[float, float], list[str]] = {}
    for turn in record["turns"]:
        for point in turn["points"]:
            if point["view"] == view:
                turns.setdefault((point["x"], point["y"]), []).append(str(turn["index"]))
    return {place: ",".join(dict.fromkeys(numbers)) for place, numbers in turns.items()}


def _points_svg(record: Row, view: int, width: int, height: int) -> list[str]:
    """A ring around every point of a view that a turn speaks of, with the numbers of the turns."""
    size = max(width, height) / 320
    parts = []
    for (x, y), label in points_of(record, view).items():
        u, v = x * width, y * height
        anchor, shift = ("end", -4) if x > 0.85 else ("start", 4)
        place = f'x="{u + shift * size:.1f}" y="{max(v - 3 * size, 9 * size):.1f}" text-anchor="{anchor}"'
        parts.append(
            f'<circle cx="{u:.1f}" cy="{v:.1f}" r="{3 * size:.1f}" class="ring" stroke-width="{size:.1f}"/>'
            f'<text {place} class="label point" font-size="{9 * size:.1f}">{label}</text>'
        )
    return parts


def bars(counts: Mapping[str, float], unit: str = "") -> str:
    """Horizontal bars with their numbers, as a list that needs no script."""
    most = max(counts.values(), default=1) or 1
    rows = [
        f'<li><span class="name">{escape(str(name))}</span><span class="bar">'
        f'<i style="width:{100 * count / most:.1f}%"></i></span><span class="count">{count:,}{unit}</span></li>'
        for name, count in counts.items()
    ]
    return f'<ul class="bars">{"".join(rows)}</ul>'


def histogram(values_m: Sequence[float], label: str, bins: int = 24) -> str:
    """A histogram of lengths up to the 99th percentile, with median and count in its caption."""
    if not values_m:
        return f'<p class="quiet">No question about {escape(label)}.</p>'
    values = np.asarray(values_m)
    end = max(float(np.percentile(values, 99)), 1e-3)
    counts, edges = np.histogram(values.clip(max=end), bins=bins, range=(0, end))
    tallest = counts.max()
    columns = "".join(
        f'<rect x="{place * 10}" y="{100 - 96 * count / tallest:.1f}" width="9" height="{96 * count / tallest:.1f}">'
        f"<title>{edges[place]:.2f} to {edges[place + 1]:.2f} m: {count}</title></rect>"
        for place, count in enumerate(counts)
    )
    caption = f"{label}: {len(values):,} values, median {np.median(values):.2f} m, 99 % below {end:.2f} m"
    return (
        f'<figure class="histogram"><svg viewBox="0 0 {bins * 10} 114" role="img" aria-label="{escape(caption)}">'
        f'{columns}<text x="0" y="112">0</text>'
        f'<text x="{bins * 10}" y="112" text-anchor="end">{end:.2f} m</text></svg>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def shares(counts: Mapping[str, int]) -> dict[str, Any]:
    """Each answer with its share, in the order of the answers."""
    total = sum(counts.values())
    return {f"{answer} ({100 * counts[answer] / total:.1f} %)": counts[answer] for answer in sorted(counts)}
