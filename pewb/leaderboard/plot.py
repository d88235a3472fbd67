"""Tables as pictures: what each row earns, with its interval, beside what it takes; and what more examples bring."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from itertools import chain
from itertools import count as count_from
from math import inf, isfinite
from pathlib import Path
from typing import Any

from pewb.errors import InputError
from pewb.leaderboard.group import Group
from pewb.leaderboard.row import Row

_STANDINGS = {
    "best": ("best, or not told apart from it", "#1f5fa8"),
    "alike": ("best, or not told apart from it", "#1f5fa8"),
    "behind": ("told apart from the best", "#c8553d"),
    "not tested": ("not tested", "#8a8a8a"),
}
_ROW_HEIGHT = 17
_WIDTHS = {"value": 300, "memory": 110, "seconds": 110}
"""Pixels of each panel."""
_LONGEST_NAME = 420
"""Pixels of a row's name; longer ones are cut."""
_ROOM = 0.25
"""How far beyond the strategies' intervals, in parts of their span, the axis goes for what else stands in a table."""
_SPREAD = 1.25
"""By what the places of the first and the last method differ, on a logarithmic axis."""


def draw(groups: Sequence[Group], folder: Path) -> list[Path]:
    """Draw each table with a result as an SVG picture into `folder`, and what differs in the number of training examples as curves.

    Raises:
        InputError: altair is not installed.
    """
    altair = _altair()
    pages: dict[str, Any] = {}
    families: dict[tuple[str, ...], list[Group]] = defaultdict(list)
    for group in groups:
        if any(row.main for row in group.rows):
            families[group.conditions_but_size].append(group)
            pages[_free(group.file_name, pages)] = _table(altair, group)
    for family in families.values():
        if points := size_points(family):
            pages[_free(family[0].file_name_but_size, pages)] = _curves(altair, family[0], points)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, page in pages.items():
        paths.append(folder / f"{name}.svg")
        page.configure_view(stroke="#dddddd").configure(background="white").save(str(paths[-1]), format="svg")
    return paths


def _altair() -> Any:
    try:
        import altair
        import vl_convert  # noqa: F401
    except ImportError:
        raise InputError(
            "altair and vl-convert-python, which draw pictures, are not installed: pip install 'pewb[plot]', or in a clone"
            " pip install -c constraints.txt -e '.[plot]'"
        ) from None
    return altair


def _free(name: str, taken: Collection[str]) -> str:
    candidates = chain([name], (f"{name}-{count}" for count in count_from(2)))
    return next(one for one in candidates if one not in taken)


def _table(altair: Any, group: Group) -> Any:
    """Return the rows of a group, with a panel for what they earn and one for each of two costs."""
    points = points_of(group)
    panels = [_values(altair, points, _metric_title(group))]
    panels += [
        _costs(altair, points, key, title)
        for key, title in (("memory", "peak memory in training, MiB"), ("seconds", _title_of_times(group)))
        if any(point[key] for point in points)
    ]
    page = altair.hconcat(*panels, spacing=24).resolve_scale(y="shared")
    return page.properties(title=_title(altair, group.title))


def _title_of_times(group: Group) -> str:
    return "training, seconds" if group.times_compare else "seconds (pale: other machine)"


def _title(altair: Any, text: str) -> Any:
    return altair.TitleParams(text, anchor="start", fontSize=13)


def _metric_title(group: Group) -> str:
    return f"{group.main_metric.replace('_', ' ')} on the test split, 95 % interval"


def points_of(group: Group) -> list[dict[str, Any]]:
    """Return what the picture shows of each row that has a result, best first."""
    points = []
    for row, name, standing in zip(group.rows, group.names, group.standings, strict=True):
        if row.main is None:
            continue
        told, color = _STANDINGS[standing.place if standing else "not tested"]
        memory = row.peak_memory_bytes
        points.append(
            {
                "name": name,
                "memory": memory and memory / 2**20,
                "seconds": row.time.train_seconds,
                "is_pale": not row.time_compares,
                "standing": told,
                "color": color,
            }
            | _interval(row)
        )
    rows = [row for row in group.rows if row.main is not None]
    low, high = _range_of([point for point, row in zip(points, rows, strict=True) if row.kind == "strategy"])
    for point in points:
        point["beyond"] = "below" if point["value"] < low else "above" if point["value"] > high else ""
    return points


def _range_of(points: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Return between which values the axis of the metric shows points; what lies beyond is written at its edge."""
    if not points:
        return -inf, inf
    low, high = min(point["low"] for point in points), max(point["high"] for point in points)
    room = _ROOM * (high - low)
    return low - room, high + room


def _values(altair: Any, points: list[dict[str, Any]], title: str) -> Any:
    """Return the panel of the main metric: a point and its interval for each row."""
    colors = {point["standing"]: point["color"] for point in points}
    axis = altair.Axis(labelLimit=_LONGEST_NAME, grid=True, ticks=False)
    y = altair.Y("name:N", scale=altair.Scale(domain=[point["name"] for point in points]), title=None, axis=axis)
    scale = altair.Scale(zero=False, nice=True)
    color = altair.Color(
        "standing:N",
        title=None,
        scale=altair.Scale(domain=list(colors), range=list(colors.values())),
        legend=altair.Legend(orient="bottom", direction="horizontal", labelLimit=300),
    )
    inside = [point for point in points if not point["beyond"]]
    base = altair.Chart(altair.Data(values=inside)).properties(width=_WIDTHS["value"], height=altair.Step(_ROW_HEIGHT))
    rule = base.mark_rule(strokeWidth=1.5).encode(
        x=altair.X("low:Q", scale=scale, title=title, axis=altair.Axis(labelFlush=False, tickCount=6)),
        x2="high:Q",
        y=y,
        color=color,
    )
    dots = base.mark_point(filled=True, size=45, opacity=1).encode(x=altair.X("value:Q", scale=scale), y=y, color=color)
    return altair.layer(rule, dots, *_at_the_edges(altair, points, y, color))


def _at_the_edges(altair: Any, points: list[dict[str, Any]], y: Any, color: Any) -> list[Any]:
    """Return the values of points beyond the axis, written on the side where they lie."""
    layers = []
    for side, form, edge, align, shift in (
        ("below", "◂ {:.3f}", 0, "left", 4),
        ("above", "{:.3f} ▸", _WIDTHS["value"], "right", -4),
    ):
        if beyond := [point | {"told": form.format(point["value"])} for point in points if point["beyond"] == side]:
            text = altair.Chart(altair.Data(values=beyond)).mark_text(align=align, dx=shift, font="sans-serif")
            layers.append(text.encode(x=altair.value(edge), y=y, text="told:N", color=color))
    return layers


def _costs(altair: Any, points: list[dict[str, Any]], key: str, title: str) -> Any:
    """Return the panel of one cost, in the same order."""
    known = [point for point in points if point[key]]
    chart = altair.Chart(altair.Data(values=known)).properties(width=_WIDTHS[key], height=altair.Step(_ROW_HEIGHT))
    opacity = (
        altair.condition("datum.is_pale", altair.value(0.35), altair.value(1)) if key == "seconds" else altair.value(1)
    )
    return chart.mark_bar(height=9, color="#9bb3c9").encode(
        opacity=opacity,
        x=altair.X(f"{key}:Q", title=title, axis=altair.Axis(labelFlush=False, tickCount=3)),
        y=altair.Y("name:N", scale=altair.Scale(domain=[point["name"] for point in points]), title=None, axis=None),
    )


def size_points(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return, of tables that differ in the number of training examples, each method that is in several.

    Of several rows of a method those count whose rate was searched, and of these the best; a rate that was searched for
    one size and not for another would look like the examples' doing. None where only references are in several.
    """
    found: dict[tuple[str, bool], dict[int, Row]] = defaultdict(dict)
    for group in groups:
        for row in sorted(group.rows, key=lambda row: row.older_numerics):  # stable: the best first
            if row.main and row.kind != "untouched" and row.train_examples:
                found[row.method, not row.num_trials].setdefault(row.train_examples, row)
    several: dict[str, dict[int, Row]] = {}
    for (name, _), rows in sorted(found.items()):  # those that were searched first
        if len(rows) > 1:
            several.setdefault(name, rows)
    if not any(row.kind == "strategy" for rows in several.values() for row in rows.values()):
        return []
    apart = _SPREAD ** (1 / max(1, len(several) - 1))
    return [
        {"name": name, "examples": size, "shown_at": size * apart ** (place - (len(several) - 1) / 2)} | _interval(row)
        for place, (name, rows) in enumerate(several.items())
        for size, row in sorted(rows.items())
    ]


def _interval(row: Row) -> dict[str, Any]:
    """Return a row's value and its interval, as far as this is finite."""
    assert row.main is not None
    value, low, high = row.main.value, row.main.low, row.main.high
    return {"value": value, "low": low if isfinite(low) else value, "high": high if isfinite(high) else value}


def _curves(altair: Any, group: Group, points: list[dict[str, Any]]) -> Any:
    """Return what each method earns from more and more examples; their points stand a little apart, so that each is seen."""
    base = altair.Chart(altair.Data(values=points)).properties(width=460, height=300)
    sizes = sorted({point["examples"] for point in points})
    x = altair.X(
        "shown_at:Q",
        title="training examples",
        scale=altair.Scale(type="log", domain=[sizes[0] / 1.5, sizes[-1] * 1.5]),
        axis=altair.Axis(values=sizes),
    )
    scale = altair.Scale(zero=False)
    color = altair.Color("name:N", title=None, legend=altair.Legend(labelLimit=300))
    lines = base.mark_line(opacity=0.6).encode(
        x=x, y=altair.Y("value:Q", scale=scale, title=_metric_title(group)), color=color
    )
    rules = base.mark_rule(opacity=0.5).encode(x=x, y=altair.Y("low:Q", scale=scale), y2="high:Q", color=color)
    dots = base.mark_point(filled=True, size=40, opacity=1).encode(x=x, y=altair.Y("value:Q", scale=scale), color=color)
    return (lines + rules + dots).properties(title=_title(altair, group.title_but_size))
