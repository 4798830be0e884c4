"""The charts of all pages, as Vega-Lite specifications made with Altair.

A chart fills the width that the page gives it. Its data go in as CSV text: a fifth of the size of JSON records.
Percentages are fractions in the data, and only shown as percent.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import altair as alt

BLUE, ORANGE, GREEN, RED, GRAY = "#3b82c4", "#e08a1e", "#2a9d5c", "#d1495b", "#8a8f98"
SERIES = [BLUE, ORANGE, GREEN, RED, "#8e6bbf", "#4fb0ae", "#b5793f", "#c76aa5"]
WHOLE = ("update", "epoch", "first k")  # quantities without fractions
Row = Mapping[str, Any]


def inline(rows: Sequence[Row]) -> alt.InlineData:
    """Rows with the same keys as data of a chart; a column is numeric if its first known value is a number."""
    text, numeric = _csv(rows)
    parse = {column: "number" if is_number else "string" for column, is_number in numeric}
    return alt.InlineData(values=text, format=alt.CsvDataFormat(type="csv", parse=parse))


def _csv(rows: Sequence[Row]) -> tuple[str, tuple[tuple[str, bool], ...]]:
    """The rows as CSV; the columns, and whether each is of numbers."""
    columns = list(rows[0]) if rows else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row[column]) for column in columns] for row in rows)
    known = {column: next((row[column] for row in rows if row[column] is not None), "") for column in columns}
    return text.getvalue(), tuple((column, isinstance(value, (int, float))) for column, value in known.items())


def _cell(value: Any) -> Any:
    return f"{value:.5g}" if isinstance(value, float) else "" if value is None else value


def bars(
    rows: Sequence[Row],
    *,
    x: str,
    y: str,
    percent: bool = False,
    series: str | None = None,
    line: float | None = None,
    line_name: str = "",
) -> dict[str, Any]:
    """Standing bars in the rows' order.

    Args:
        rows: `x` and `y`, `series` if bars stand in groups, and `low` and `high` where an interval is to be drawn.
        x: column of names.
        y: column of heights.
        percent: heights are fractions, shown in percent.
        series: column that tells the bars of a group apart.
        line: height of a level line across.
        line_name: what it says.
    """
    style = ".0%" if percent else ",d"
    base = alt.Chart(inline(rows)).encode(
        alt.X(f"{x}:N", sort=None, axis=alt.Axis(labelAngle=0, labelOverlap=True)).title(x),
        alt.Y(f"{y}:Q", axis=alt.Axis(format=style)).title(y),
        tooltip=_tooltips(rows, {y: ".1%" if percent else ",d", "share": ".1%", "low": ".1%", "high": ".1%"}),
    )
    marks = base.mark_bar(color=BLUE, width=alt.RelativeBandSize(band=0.9 if len(rows) > 4 else 0.4))
    if series:
        names = list(dict.fromkeys(row[series] for row in rows))
        marks = base.mark_bar().encode(
            alt.XOffset(f"{series}:N", sort=None),
            alt.Color(f"{series}:N", scale=alt.Scale(domain=names, range=SERIES), legend=_legend()),
        )
    layers: list[Any] = [marks]
    if rows and "low" in rows[0]:
        whiskers = base.mark_rule(color=GRAY, strokeWidth=2).encode(alt.Y("low:Q").title(y), alt.Y2("high:Q"))
        layers.append(whiskers.encode(alt.XOffset(f"{series}:N", sort=None)) if series else whiskers)
    if line is not None:
        layers += _level_line(line, line_name)
    return _finish(alt.layer(*layers))


def lying_bars(rows: Sequence[Row], *, name: str, value: str, ticks: Sequence[str] = ()) -> dict[str, Any]:
    """Lying bars of fractions, one a row, with a coloured tick for each further column.

    Args:
        rows: `name`, `value` and the columns of `ticks`, fractions or None.
        name: column of the bars' names.
        value: column of their lengths.
        ticks: columns to compare with.
    """
    bar = alt.Chart(inline(rows)).encode(
        alt.Y(f"{name}:N", sort=None, axis=alt.Axis(labelLimit=190)).title(None),
        tooltip=_tooltips(rows, dict.fromkeys((value, *ticks), ".1%")),
    )
    layers: list[Any] = [bar.mark_bar(color=BLUE).encode(_percent_x(value))]
    others = [
        {name: row[name], "compared with": tick.replace("_", " "), value: row[tick]}
        for row in rows
        for tick in ticks
        if row[tick] is not None
    ]
    if others:
        layers.append(
            alt.Chart(inline(others))
            .mark_tick(thickness=3)
            .encode(
                alt.Y(f"{name}:N", sort=None).title(None),
                _percent_x(value),
                alt.Color("compared with:N", scale=alt.Scale(range=SERIES[1:]), legend=_legend()),
                tooltip=_tooltips(others, {value: ".1%"}),
            )
        )
    return _finish(alt.layer(*layers), height=22 * len(rows))


def intervals(rows: Sequence[Row]) -> dict[str, Any]:
    """One line a number: a point, its interval, and what it is compared with.

    Args:
        rows: `name`, `what` ("ours", "paper", a baseline), `value`, and `low` and `high`, all fractions or None.
    """
    kinds = list(dict.fromkeys(row["what"] for row in rows))
    shapes = ["circle", "diamond", "triangle-up", "square", "cross", "triangle-down", "stroke"]
    base = alt.Chart(inline(rows)).encode(
        alt.Y("name:N", sort=None, axis=alt.Axis(labelLimit=220)).title(None),
        alt.Color("what:N", scale=alt.Scale(domain=kinds, range=SERIES), legend=_legend()),
        tooltip=_tooltips(rows, {"value": ".1%", "low": ".1%", "high": ".1%"}),
    )
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        _percent_x("value", "percent"), alt.Shape("what:N", scale=alt.Scale(domain=kinds, range=shapes))
    )
    whiskers = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2)
    return _finish(
        alt.layer(whiskers.encode(alt.X("low:Q").title("percent"), alt.X2("high:Q")), points),
        height=24 * len({row["name"] for row in rows}),
    )


def curves(
    rows: Sequence[Row],
    *,
    x: str,
    y: str,
    series: str | None = None,
    percent: bool = False,
    log_x: bool = False,
    log_y: bool = False,
    points: bool = False,
) -> dict[str, Any]:
    """Lines over a number, with a band where the rows have `low` and `high`.

    Args:
        rows: `x`, `y`, `series` if there are several lines, `low` and `high` where known.
        x: column of places.
        y: column of heights.
        series: column that tells lines apart.
        percent: heights are fractions, shown in percent.
        log_x: logarithmic places.
        log_y: logarithmic heights.
        points: mark the places too.
    """
    data, columns = _csv(rows)
    names = tuple(dict.fromkeys(row[series] for row in rows)) if series else ()
    spec = _curve_spec(columns, names, x, y, series, percent, log_x, log_y, points)
    return spec | {"datasets": dict.fromkeys(spec["datasets"], data)}


@cache
def _curve_spec(
    columns: tuple[tuple[str, bool], ...],
    names: tuple[str, ...],
    x: str,
    y: str,
    series: str | None,
    percent: bool,
    log_x: bool,
    log_y: bool,
    points: bool,
) -> dict[str, Any]:
    """A chart of `curves` without its data: a run draws the same charts at each checkpoint, and they take long to make."""
    rows = [{column: 1.0 if is_number else "" for column, is_number in columns}]
    y_axis = alt.Axis(format=".0%") if percent else alt.Axis()
    y_scale = alt.Scale(type="log") if log_y else alt.Scale(zero=percent)
    base = alt.Chart(inline(rows)).encode(
        alt.X(
            f"{x}:Q",
            axis=alt.Axis(tickMinStep=1 if x in WHOLE else alt.Undefined),
            scale=alt.Scale(type="log") if log_x else alt.Scale(zero=False, nice=False),
        ).title(x),
        tooltip=_tooltips(rows, {y: ".1%" if percent else ".4~g", "low": ".1%", "high": ".1%"}),
    )
    height = alt.Y(f"{y}:Q", axis=y_axis, scale=y_scale).title(y)
    line = base.mark_line(color=BLUE, strokeWidth=2, point={"filled": True, "size": 45} if points else False)
    band = base.mark_area(color=BLUE, opacity=0.2)
    hover = base.mark_point(size=120, opacity=0).encode(height)  # a place to point at: lines are thin
    if series:
        color = alt.Color(f"{series}:N", scale=alt.Scale(domain=list(names), range=SERIES), legend=_legend())
        line, band = line.encode(color), band.encode(color)
    layers: list[Any] = [line.encode(height), hover]
    if "low" in rows[0]:
        layers.insert(0, band.encode(alt.Y("low:Q").title(y), alt.Y2("high:Q")))
    return _finish(alt.layer(*layers))


def points(rows: Sequence[Row], *, x: str, y: str, diagonal: str = "") -> dict[str, Any]:
    """A cloud of fractions; with `diagonal`, the line where both are equal, and what it says."""
    unit = alt.Scale(domain=[0, 1])
    cloud = (
        alt.Chart(inline(rows))
        .mark_circle(color=BLUE, size=45, opacity=0.6)
        .encode(
            alt.X(f"{x}:Q", scale=unit, axis=alt.Axis(format=".0%")).title(x),
            alt.Y(f"{y}:Q", scale=unit, axis=alt.Axis(format=".0%")).title(y),
            tooltip=_tooltips(rows, {x: ".1%", y: ".1%"}),
        )
    )
    if not diagonal:
        return _finish(alt.layer(cloud))
    ends = [{x: 0.0, y: 0.0, "line": diagonal}, {x: 1.0, y: 1.0, "line": diagonal}]
    line = (
        alt.Chart(inline(ends))
        .mark_line(strokeDash=[5, 4])
        .encode(
            alt.X(f"{x}:Q").title(x),
            alt.Y(f"{y}:Q").title(y),
            alt.Color("line:N", scale=alt.Scale(range=[ORANGE]), legend=_legend()),
        )
    )
    return _finish(alt.layer(line, cloud))


def heat(rows: Sequence[Row], *, x: str, y: str, value: str, style: str = ".1%", height: int = 260) -> dict[str, Any]:
    """A matrix of coloured cells in the rows' order."""
    cells = (
        alt.Chart(inline(rows))
        .mark_rect()
        .encode(
            alt.X(f"{x}:N", sort=None, axis=alt.Axis(labelLimit=110, labelOverlap=True)).title(x),
            alt.Y(f"{y}:N", sort=None, axis=alt.Axis(labelLimit=150)).title(y),
            alt.Color(
                f"{value}:Q",
                scale=alt.Scale(scheme="viridis"),
                legend=alt.Legend(title=None, format=style, orient="top"),
            ),
            tooltip=_tooltips(rows, {value: style}),
        )
    )
    return _finish(alt.layer(cells), height=height)


def timelines(rows: Sequence[Row]) -> dict[str, Any]:
    """Labelled stretches of time: videos below each other, in each the `row`s (truth, prediction) below each other.

    Args:
        rows: `video`, `row`, `label`, `start` and `end` in seconds, `colour` a number of the label.
    """
    chart = (
        alt.Chart(inline(rows))
        .mark_bar()
        .encode(
            alt.Y("video:N", sort=None, axis=alt.Axis(labelLimit=110)).title(None),
            alt.YOffset("row:N", sort=None),
            alt.X("start:Q", scale=alt.Scale(nice=False)).title("seconds"),
            alt.X2("end:Q"),
            alt.Color("colour:N", scale=alt.Scale(scheme="tableau20"), legend=None),
            tooltip=_tooltips(rows, {}, without=("colour",)),
        )
    )
    videos, in_a_video = len({row["video"] for row in rows}), len({row["row"] for row in rows})
    return _finish(alt.layer(chart), height=videos * (9 * in_a_video + 6))


def step_matrix(cells: Sequence[Row], truths: Sequence[Row], path: Sequence[Row]) -> dict[str, Any]:
    """Scores of a video's steps over time, the annotated stretches as frames, the found path as points on a line.

    Args:
        cells: `step`, `start`, `end` in seconds, `score`.
        truths: `step`, `start`, `end`.
        path: `step`, `second`, `right` ("in a true stretch", "outside").
    """
    row = alt.Y("step:N", sort=None, axis=alt.Axis(labelLimit=120)).title(None)
    layers: list[Any] = [
        alt.Chart(inline(cells))
        .mark_rect()
        .encode(
            row,
            alt.X("start:Q", scale=alt.Scale(nice=False)).title("seconds"),
            alt.X2("end:Q"),
            alt.Color("score:Q", scale=alt.Scale(scheme="viridis"), legend=None),
            tooltip=_tooltips(cells, {"score": ".2f"}),
        )
    ]
    if truths:
        layers.append(
            alt.Chart(inline(truths))
            .mark_rect(fillOpacity=0, stroke="white", strokeWidth=2)
            .encode(row, alt.X("start:Q").title("seconds"), alt.X2("end:Q"), tooltip=_tooltips(truths, {}))
        )
    if path:
        found = alt.Chart(inline(path)).encode(row, alt.X("second:Q").title("seconds"), alt.Order("second:Q"))
        hit = alt.Scale(domain=["in a true stretch", "outside"], range=["#ffffff", RED])
        layers += [
            found.mark_line(color="white", strokeWidth=1, opacity=0.8),
            found.mark_point(filled=True, size=60, opacity=1, stroke="black", strokeWidth=1).encode(
                alt.Fill("right:N", scale=hit, legend=None), tooltip=_tooltips(path, {})
            ),
        ]
    return _finish(
        alt.layer(*layers).resolve_scale(color="independent", fill="independent"),
        height=18 * len({row["step"] for row in cells}),
    )


def _percent_x(column: str, title: str | None = None) -> alt.X:
    scale = alt.Scale(domain=[0, 1])
    return alt.X(f"{column}:Q", scale=scale, axis=alt.Axis(format=".0%")).title(title or column)


def _level_line(level: float, name: str) -> list[Any]:
    data = inline([{"level": float(level), "line": name}])
    rule = alt.Chart(data).mark_rule(strokeWidth=2, strokeDash=[5, 4])
    color = alt.Color("line:N", scale=alt.Scale(range=[ORANGE]), legend=_legend())
    return [rule.encode(alt.Y("level:Q"), color, tooltip=["line:N", alt.Tooltip("level:Q", format=".1%")])]


def _legend() -> alt.Legend:
    return alt.Legend(orient="top", title=None, labelLimit=320, columns=2, symbolOpacity=1)


def _tooltips(rows: Sequence[Row], formats: Mapping[str, str], without: Sequence[str] = ()) -> list[alt.Tooltip]:
    if not rows:
        return []
    shown = []
    for column, value in rows[0].items():
        if column in without:
            continue
        numeric = isinstance(value, (int, float)) or (value is None and column in formats)
        style = formats.get(column) if numeric else None
        shown.append(alt.Tooltip(f"{column}:{'Q' if numeric else 'N'}", format=style or alt.Undefined))
    return shown


def _finish(chart: Any, height: int = 240) -> dict[str, Any]:
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")  # the height is the drawing's, without axes and legend
    whole = chart.properties(width="container", height=height, autosize=fit)
    spec: dict[str, Any] = whole.to_dict()
    return {key: value for key, value in spec.items() if key not in ("$schema", "config")}  # the page sets both
