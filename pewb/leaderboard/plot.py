"""A table as a picture: what each row earns, with its interval, beside the memory and the time that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pewb.errors import InputError
from pewb.leaderboard.group import Group

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


def plot(group: Group, path: Path) -> Path:
    """Draw the rows of a group, one of which has a result, as an SVG picture into `path`, and return the path.

    Raises:
        InputError: altair is not installed.
    """
    try:
        import altair
        import vl_convert  # noqa: F401
    except ImportError:
        raise InputError(
            "altair and vl-convert-python, which draw pictures, are not installed: pip install 'pewb[plot]', or in a clone"
            " pip install -c constraints.txt -e '.[plot]'"
        ) from None
    points = points_of(group)
    metric = group.main_metric.replace("_", " ")
    panels = [_values(altair, points, f"{metric} on the test split, 95 % interval")]
    panels += [
        _costs(altair, points, key, title)
        for key, title in (("memory", "peak memory in training, MiB"), ("seconds", "training, seconds"))
        if any(point[key] for point in points)
    ]
    page = altair.hconcat(*panels, spacing=14).resolve_scale(y="shared")
    page = page.properties(title=altair.TitleParams(group.title, anchor="start", fontSize=13))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.configure_view(stroke="#dddddd").configure(background="white").save(str(path), format="svg")
    return path


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
                "value": row.main.value,
                "low": row.main.low,
                "high": row.main.high,
                "memory": memory and memory / 2**20,
                "seconds": row.time.train_seconds,
                "standing": told,
                "color": color,
            }
        )
    return points


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
    base = altair.Chart(altair.Data(values=points)).properties(width=_WIDTHS["value"], height=altair.Step(_ROW_HEIGHT))
    rule = base.mark_rule(strokeWidth=1.5).encode(
        x=altair.X("low:Q", scale=scale, title=title), x2="high:Q", y=y, color=color
    )
    return rule + base.mark_point(filled=True, size=45, opacity=1).encode(
        x=altair.X("value:Q", scale=scale), y=y, color=color
    )


def _costs(altair: Any, points: list[dict[str, Any]], key: str, title: str) -> Any:
    """Return the panel of one cost, in the same order."""
    known = [point for point in points if point[key]]
    chart = altair.Chart(altair.Data(values=known)).properties(width=_WIDTHS[key], height=altair.Step(_ROW_HEIGHT))
    return chart.mark_bar(height=9, color="#9bb3c9").encode(
        x=altair.X(f"{key}:Q", title=title),
        y=altair.Y("name:N", scale=altair.Scale(domain=[point["name"] for point in points]), title=None, axis=None),
    )
