"""The usage page: one HTML file with everything in it, readable without script and printable. Pure.

Text from callers, such as routes and clients, is escaped by Jinja2 wherever it is; the numbers for the script
are JSON in an element that browsers do not run. The page's policy allows its own style sheet and script only.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from exporter.usage import charts, questions, texts
from exporter.usage.charts import Drawing
from exporter.usage.questions import HOUR, PRESETS, Period
from exporter.usage.rollup import Completeness, Limits, Numbers, RollUp, bounded, total

_FOLDER = Path(__file__).parent
NAMES = {"24h": "24 hours", "7d": "7 days", "30d": "30 days", "90d": "90 days"}
# So many rows are in a table without script, and so many are there for the script to search and sort.
SHOWN_ROUTES, SHOWN_CLIENTS, SHOWN_PROBLEMS, SHOWN_ERRORS, SHOWN_DAYS = 20, 8, 8, 8, 7
MOST_ROUTES, MOST_CLIENTS = 1_000, 20
# A client is listed as one with problems from these shares of its requests on.
_MANY_CLIENT_ERRORS, _MANY_FAILURES, _FEW_REQUESTS = 0.1, 0.01, 20
# It is slow if its p95 is so many times that of all requests.
_SLOW = 2.0
# A change of less than a tenth has no colour.
_SMALL_CHANGE = 0.1
_HEAT_LEVELS = 6
# What is between these in a page are the last minutes, which change more often than the rest.
_LIVE, _LIVE_END = "<!--live-->", "<!--/live-->"
_NO_LIVE = _LIVE + _LIVE_END
# So many minutes are one bar: the first step with which all of them are few bars, for a small page.
_LIVE_STEPS, _MOST_LIVE_PARTS = (1, 5, 10), 14
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What is known of the pipeline when the page is written.

    Attributes:
        written_at: The time, in UTC.
        lag_s: How far the consumer is behind the stream in seconds; None if it is not known.
        quarantined: Records put aside, by reason.
        exported_through: The last day that the lake has; None for an empty lake.
        running: Whether more records are expected; if not, old numbers are not late.
    """

    written_at: datetime
    lag_s: float | None = None
    quarantined: Mapping[str, int] = field(default_factory=dict)
    exported_through: datetime | None = None
    running: bool = True


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart; its numbers are in the table of its range.

    Attributes:
        title: What it shows.
        finding: What one sees in it, as a sentence.
        kind: `bars` or `lines`.
        drawing: The geometry.
        legend: The names of its shapes, and what they stand for.
    """

    title: str
    finding: str
    kind: str
    drawing: Drawing
    legend: tuple[tuple[str, str], ...] = ()


def render(
    rollups: Sequence[RollUp], pipeline: Pipeline, *, title: str = "API usage", chosen: str = "7d"
) -> str:
    """Return the page.

    Args:
        rollups: Roll-ups of one type that share no time: hours of the newest days, days before.
        pipeline: What is known of the pipeline.
        title: The page's heading, such as the service's name.
        chosen: The range that is shown first, one of `PRESETS`.
    """
    through = questions.data_through(rollups)
    periods = {name: questions.period(rollups, questions.preset(name, through)) for name in PRESETS}
    timed = any(part.usage.total.timed for part in rollups)
    style, script = _style(), _script()
    return _template("page.html.j2").render(
        title=title,
        chosen=chosen,
        ranges=[_view(name, asked, timed) for name, asked in periods.items()],
        timed=timed,
        pipeline=_pipeline(periods["30d"], pipeline, through),
        style=Markup(style),  # noqa: S704 - the file beside this one
        script=Markup(script),  # noqa: S704 - the file beside this one
        policy=(
            f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        ),
        live=Markup(_NO_LIVE),  # noqa: S704 - ours
        heat=_heat(periods["30d"]),
        more=_more(periods, timed),
    )


def with_live(html: str, live: Mapping[str, Any] | None) -> str:
    """Return a page with other last minutes.

    Args:
        html: The page.
        live: What `live.summarize` returned; None removes them.
    """
    before, begin, rest = html.partition(_LIVE)
    _, end, after = rest.partition(_LIVE_END)
    shown = "" if live is None else _template("live.html.j2").render(live=_live(live))
    return before + begin + shown + end + after


def _live(live: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template shows of the last minutes: each one, or a few together if they are many."""
    cells = ("requests", "client_errors", "failures")
    whole, length = live["total"], len(live["minutes"])
    step = next(step for step in _LIVE_STEPS if length <= step * _MOST_LIVE_PARTS)
    firsts = range(0, length, step)
    starts = [datetime.fromisoformat(live["minutes"][first]["start"]) for first in firsts]
    minutes = [
        {cell: sum(each[cell] for each in live["minutes"][first : first + step]) for cell in cells}
        for first in firsts
    ]
    classes = {
        "ok": [each["requests"] - each["client_errors"] - each["failures"] for each in minutes],
        "client": [each["client_errors"] for each in minutes],
        "failed": [each["failures"] for each in minutes],
    }
    classes = {name: values for name, values in classes.items() if any(values)}
    names = {**CLASSES, "ok": "answered"}
    until = datetime.fromisoformat(live["to"])
    finding = (
        f"Until {until:%H:%M}: {whole['requests']:,} requests, {whole['client_errors']:,} with 4xx, "
        f"{whole['failures']:,} failed. Provisional: the numbers below have some of them already."
    )
    legend = tuple((name, names[name]) for name in classes)
    return {
        "chart": Chart(
            f"Since {starts[0]:%H:%M}, {'minute by minute' if step == 1 else f'each {step} minutes'}",
            finding,
            "bars",
            charts.stacked_bars(classes, texts.count),
            legend,
        ),
        "labels": charts.labels([f"{start:%H:%M}" for start in starts]),
        "unfinished": 1,
        "minutes": [
            [f"{start:%H:%M}", *(texts.count(each[cell]) for cell in cells)]
            for start, each in zip(starts, minutes, strict=True)
        ],
        "routes": [
            [row["method"], row["route"] or "(no route)", *(texts.count(row[cell]) for cell in cells)]
            for row in live["routes"]
        ],
    }


def _view(name: str, asked: Period, timed: bool) -> dict[str, Any]:
    """Return what the template shows of a range."""
    summary = questions.summary(asked)
    limits = Limits(routes=SHOWN_ROUTES, clients=SHOWN_CLIENTS)
    shown = replace(asked, usage=bounded(asked.usage, limits))
    series = _series(asked)
    starts = [datetime.fromisoformat(part["start"]) for part in series.parts]
    return {
        "id": name,
        "name": NAMES[name],
        "span": texts.span(asked.range.start, asked.range.end),
        "compared": _compared(name, asked),
        "cards": _cards(summary, timed),
        "charts": [
            _requests_chart(series),
            _latency_chart(series) if timed else _bytes_chart(series),
            _errors_chart(series),
        ],
        "labels": charts.labels([texts.short(start, asked.range.step) for start in starts]),
        "unfinished": sum(not part["complete"] for part in series.parts),
        "table": _table(series, timed),
        "statuses": _statuses(asked.usage.total),
        "errors": _errors(asked),
        "routes": _rows(questions.routes(shown), _ROUTE_TIMES if timed else ("bytes",)),
        "clients": _rows(questions.clients(shown), _CLIENT_TIMES if timed else ("bytes",)),
        "all_clients": texts.count(summary["clients"]),
        "problems": _problems(asked),
    }


def _compared(name: str, asked: Period) -> str:
    if asked.compared is None:
        return f"There are no records of the {NAMES[name]} before to compare with."
    start, end = asked.compared
    before = texts.span(start - asked.shift, end - asked.shift)
    return f"Changes compare {texts.span(start, end)} with {before}, equally long."


def _cards(summary: Mapping[str, Any], timed: bool) -> list[dict[str, str]]:
    """Return the boxes at the top: term, name, value, change with its colour, and a note."""
    now, changes = summary["total"], summary["changes"] or {}
    note = f"median {texts.milliseconds(now['p50_ms'])}, mean {texts.milliseconds(now['mean_ms'])}"
    sent = ("bytes", "Data sent", "bytes", texts.size(now["bytes"]), "in answers", False)
    slow = ("percentile", "Response p95", "p95_ms", texts.milliseconds(now["p95_ms"]), note, True)
    failed = texts.percent(now["failure_rate"])
    refused = texts.percent(now["client_error_rate"])
    answered = texts.percent(now["availability"])
    # The last value tells whether a change is good or bad.
    boxes = [
        (
            "request",
            "Requests",
            "requests",
            texts.count(now["requests"]),
            f"{summary['routes']:,} routes",
            False,
        ),
        slow if timed else sent,
        (
            "client-error",
            "4xx errors",
            "client_error_rate",
            refused,
            f"{now['client_errors']:,} requests",
            True,
        ),
        ("failure", "5xx, no answer", "failure_rate", failed, f"{now['failures']:,} requests", True),
        ("availability", "Availability", "availability", answered, "of all requests", True),
        (
            "rate-limited",
            "Rate-limited",
            "rate_limited",
            texts.count(now["rate_limited"]),
            "status 429",
            True,
        ),
        (
            "auth",
            "Failed sign-in",
            "auth_failures",
            texts.count(now["auth_failures"]),
            "status 401, 403",
            True,
        ),
        ("client", "Clients", "", texts.count(summary["clients"]), _new_clients(summary), False),
    ]
    return [
        {
            "term": term,
            "name": name,
            "value": value,
            "note": note,
            "change": (texts.points if figure in questions.IN_POINTS else texts.change)(changes.get(figure)),
            "colour": _colour(figure, summary, worse),
        }
        for term, name, figure, value, note, worse in boxes
    ]


def _colour(figure: str, summary: Mapping[str, Any], worse: bool) -> str:
    """Return the colour of a change: none if it is small."""
    if not worse or summary["previous"] is None:
        return "flat"
    if figure == "availability":
        return _colour("failure_rate", summary, worse)
    before, difference = summary["previous"][figure], summary["changes"][figure]
    if not before or difference is None:
        return "flat"
    relative = difference / before if figure in questions.IN_POINTS else difference
    if abs(relative) < _SMALL_CHANGE:
        return "flat"
    return "worse" if relative > 0 else "better"


def _new_clients(summary: Mapping[str, Any]) -> str:
    return "" if summary["new_clients"] is None else f"{summary['new_clients']:,} new"


CLASSES = {"ok": "2xx", "redirect": "3xx", "client": "4xx", "failed": "5xx, no answer", "none": "No status"}
PERCENTILES = {"p50": "p50", "p95": "p95", "p99": "p99"}
RATES = {"client": "4xx", "failed": "5xx, no answer"}


@dataclass(frozen=True, slots=True)
class _Series:
    """A range's series as charts and the table need it.

    Attributes:
        parts: The figures of each part.
        times: The time of each part as text.
        classes: Requests of each part by the class of their status; classes without requests are left out.
    """

    parts: Sequence[Mapping[str, Any]]
    times: Sequence[str]
    classes: Mapping[str, Sequence[int]]

    def peak(self, figure: str) -> int:
        """Return the part with the largest figure."""
        return max(range(len(self.parts)), key=lambda part: self.parts[part][figure] or 0)


def _series(asked: Period) -> _Series:
    parts = questions.series(asked)
    step = asked.range.step
    classes = {name: [0] * len(parts) for name in CLASSES}
    for hour, numbers in asked.usage.hours.items():
        place = (questions.hour_of(hour) - asked.range.start) // step
        for status, requests in numbers.statuses.items():
            classes[_class(status)][place] += requests
    present = {name: values for name, values in classes.items() if any(values)}
    times = [texts.part(datetime.fromisoformat(part["start"]), step) for part in parts]
    return _Series(parts, times, present or {"ok": classes["ok"]})


def _class(status: int) -> str:
    if status <= 0:
        return "failed" if status < 0 else "none"
    return {3: "redirect", 4: "client", 5: "failed"}.get(status // 100, "ok")


def _requests_chart(series: _Series) -> Chart:
    peak = series.peak("requests")
    requests = series.parts[peak]["requests"]
    return Chart(
        "Requests",
        f"Most: {requests:,} on {series.times[peak]}." if requests else "There were no requests.",
        "bars",
        charts.stacked_bars(series.classes, texts.count),
        tuple((name, CLASSES[name]) for name in series.classes),
    )


def _latency_chart(series: _Series) -> Chart:
    values = {name: [part[f"{name}_ms"] for part in series.parts] for name in PERCENTILES}
    known = [value for each in values.values() for value in each if value is not None]
    scale = charts.logarithmic(min(known), max(known)) if known else charts.logarithmic(1, 10)
    slow = series.peak("p95_ms")
    p95 = texts.milliseconds(series.parts[slow]["p95_ms"])
    return Chart(
        "Response time",
        f"Slowest p95: {p95} on {series.times[slow]}." if known else "No request has a duration.",
        "lines",
        charts.curves(values, scale, texts.milliseconds),
        tuple(PERCENTILES.items()),
    )


def _bytes_chart(series: _Series) -> Chart:
    peak = series.peak("bytes")
    sizes = [part["bytes"] for part in series.parts]
    return Chart(
        "Data sent",
        f"Most: {texts.size(sizes[peak])} on {series.times[peak]}."
        if sizes[peak]
        else "No answer has a size.",
        "bars",
        charts.stacked_bars({"bytes": sizes}, texts.size),
    )


def _errors_chart(series: _Series) -> Chart:
    values = {
        "client": [part["client_error_rate"] for part in series.parts],
        "failed": [part["failure_rate"] for part in series.parts],
    }
    largest = max((value or 0 for each in values.values() for value in each), default=0)
    worst = series.peak("failure_rate")
    rate = series.parts[worst]["failure_rate"]
    return Chart(
        "Error rate",
        f"Most failures: {texts.percent(rate)} on {series.times[worst]}." if rate else "No request failed.",
        "lines",
        charts.curves(values, charts.linear(largest or 0.01), texts.short_percent),
        tuple(RATES.items()),
    )


def _table(series: _Series, timed: bool) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns and the rows of the numbers behind a range's charts.

    The script adds the rates, which follow from the counts: the page is smaller without them.
    """
    names = ["Time", "Requests", *(CLASSES[name] for name in series.classes)]
    names += PERCENTILES.values() if timed else ["Data sent"]
    rows = []
    for place, (time, part) in enumerate(zip(series.times, series.parts, strict=True)):
        counts = [texts.count(values[place]) for values in series.classes.values()]
        times = [texts.milliseconds(part[f"{name}_ms"]) for name in PERCENTILES]
        last = times if timed else [texts.size(part["bytes"])]
        rows.append([time, texts.count(part["requests"]), *counts, *last])
    return names, rows


def _heat(asked: Period) -> dict[str, Any]:
    """Return requests by weekday and hour, each with its level from 0 to `_HEAT_LEVELS`."""
    counts = [[0] * 24 for _ in _WEEKDAYS]
    for hour, numbers in asked.usage.hours.items():
        time = questions.hour_of(hour)
        counts[time.weekday()][time.hour] += numbers.requests
    most = max(max(row) for row in counts)
    busiest = next(
        f"{day} {hour:02}:00"
        for day, row in zip(_WEEKDAYS, counts, strict=True)
        for hour, count in enumerate(row)
        if count == most
    )
    return {
        "span": texts.span(asked.range.start, asked.range.end),
        "finding": f"Busiest: {busiest}." if most else "There were no requests.",
        "rows": [
            (day[:3], [(texts.compact(count), -(-count * _HEAT_LEVELS // (most or 1))) for count in row])
            for day, row in zip(_WEEKDAYS, counts, strict=True)
        ],
    }


def _statuses(numbers: Numbers) -> list[dict[str, Any]]:
    """Return the statuses, the most frequent first, with a bar's length in percent."""
    requests = numbers.requests or 1
    found = sorted(numbers.statuses.items(), key=lambda each: -each[1])[:SHOWN_ERRORS]
    names = {0: "No status", -1: "No answer"}
    return [
        {
            "name": names.get(status, str(status)),
            "meaning": texts.meaning(status),
            "class": _class(status),
            "requests": texts.count(count),
            "share": texts.percent(count / requests),
            "bar": round(count * 100 / requests, 1),
        }
        for status, count in found
    ]


def _errors(asked: Period) -> list[dict[str, str]]:
    found = sorted(asked.usage.errors.items(), key=lambda each: (-each[1], repr(each[0])))
    return [
        {
            "error": error,
            "method": route[0] or "",
            "route": route[1] or "(no route)",
            "count": texts.count(count),
        }
        for (route, error), count in found[:SHOWN_ERRORS]
    ]


# The figures of routes and of clients that follow the requests, where requests have durations.
_ROUTE_TIMES, _CLIENT_TIMES = ("p50_ms", "p95_ms"), ("p95_ms",)


def _rows(rows: Sequence[Mapping[str, Any]], last: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows of routes or clients as the tables show them; bars are shares of the largest row.

    Args:
        rows: The rows.
        last: The figures in the last cells.
    """
    most = max((row["requests"] for row in rows if "other" not in row), default=1)
    return [
        {
            "method": row.get("method") or "",
            "name": _name(row),
            "named": "other" not in row,
            "bar": round(row["requests"] * 100 / most) if "other" not in row else 0,
            "cells": [
                texts.count(row["requests"]),
                texts.row_change(row),
                texts.percent(row["client_error_rate"], 1),
                texts.percent(row["failure_rate"], 1),
                *(
                    texts.size(row[name]) if name == "bytes" else texts.milliseconds(row[name])
                    for name in last
                ),
            ],
        }
        for row in rows
    ]


def _name(row: Mapping[str, Any]) -> str:
    kind = "route" if "route" in row else "client"
    if "other" in row:
        return f"{row['other']:,} more {kind}s"
    return row[kind] if row[kind] is not None else f"(no {kind})"


def _problems(asked: Period) -> list[dict[str, Any]]:
    """Return the clients with problems and what these are, those with most failed requests first."""
    overall = questions.figures(asked.usage.total)["p95_ms"]
    found = []
    for row in questions.clients(asked):
        problems = [] if "other" in row else _problems_of(row, overall)
        if problems:
            failed = row["client_errors"] + row["failures"]
            texts_of = {
                "name": _name(row),
                "failed": texts.count(failed),
                "requests": texts.count(row["requests"]),
            }
            found.append((failed, {**texts_of, "problems": problems}))
    found.sort(key=lambda each: -each[0])
    return [row for _, row in found[:SHOWN_PROBLEMS]]


def _problems_of(row: Mapping[str, Any], overall_p95: float | None) -> list[str]:
    problems = []
    if row["failures"] and (row["failure_rate"] or 0) >= _MANY_FAILURES:
        problems.append(f"{texts.percent(row['failure_rate'])} failed")
    if row["rate_limited"]:
        problems.append(f"{row['rate_limited']:,} rate-limited")
    if row["auth_failures"]:
        problems.append(f"{row['auth_failures']:,} failed sign-in")
    other = row["client_errors"] - row["rate_limited"] - row["auth_failures"]
    if row["requests"] and other / row["requests"] >= _MANY_CLIENT_ERRORS:
        problems.append(f"{other:,} other 4xx")
    if row["timed"] >= _FEW_REQUESTS and overall_p95 and row["p95_ms"] >= _SLOW * overall_p95:
        problems.append(f"p95 {texts.milliseconds(row['p95_ms'])}")
    return problems


def _pipeline(asked: Period, known: Pipeline, through: datetime) -> dict[str, Any]:
    """Return what the page shows of the pipeline: the last days, and what is not in the numbers."""
    days: dict[str, list[RollUp]] = {}
    for part in asked.parts:
        days.setdefault(texts.date(part.start), []).append(part)
    completeness = asked.completeness
    age = known.written_at - through
    return {
        "through": texts.time(through),
        "written": texts.time(known.written_at),
        "age": texts.duration(age),
        "late": known.running and age > 2 * HOUR,
        "lag": "not measured" if known.lag_s is None else texts.duration(timedelta(seconds=known.lag_s)),
        "exported": "nothing yet" if known.exported_through is None else texts.date(known.exported_through),
        "lost": completeness.lost,
        "quarantined": sum(known.quarantined.values()) if known.quarantined else completeness.quarantined,
        "replayed": completeness.replayed,
        "reasons": sorted(known.quarantined.items(), key=lambda each: -each[1]),
        "days": [_pipeline_day(day, parts) for day, parts in list(reversed(days.items()))[:SHOWN_DAYS]],
    }


def _pipeline_day(day: str, parts: Sequence[RollUp]) -> dict[str, str]:
    known = Completeness()
    for part in parts:
        known += part.completeness
    return {
        "day": day,
        "requests": texts.count(total(part.usage.total for part in parts).requests),
        "lost": "not known" if known.lost is None else texts.count(known.lost),
        "quarantined": texts.count(known.quarantined),
        "replayed": texts.count(known.replayed),
        "complete": "yes" if all(part.complete for part in parts) else "not yet",
        "revision": str(max(part.revision for part in parts)),
    }


def _more(periods: Mapping[str, Period], timed: bool) -> dict[str, Any]:
    """Return the rows that the tables leave out: names once, and by range the cells by column."""
    routes, clients = {}, {}
    for name, asked in periods.items():
        usage = bounded(asked.usage, Limits(routes=MOST_ROUTES, clients=MOST_CLIENTS))
        all_rows = replace(asked, usage=usage)
        of_routes = _rows(questions.routes(all_rows), _ROUTE_TIMES if timed else ("bytes",))
        of_clients = _rows(questions.clients(all_rows), _CLIENT_TIMES if timed else ("bytes",))
        routes[name] = of_routes[SHOWN_ROUTES:]
        clients[name] = of_clients[SHOWN_CLIENTS:]
    return {"routes": _columns(routes), "clients": _columns(clients)}


def _columns(ranges: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return names once, those of the longest range first, and by range a text for each column of cells.

    A text has a cell for each name, empty where the range has no such row: names need no numbers then.
    """
    by_name = {
        range_: {(row["method"], row["name"], row["named"]): row["cells"] for row in rows}
        for range_, rows in ranges.items()
    }
    names = list(dict.fromkeys(name for range_ in reversed(by_name) for name in by_name[range_]))
    columns = {
        range_: [
            "|".join(_packed(rows[name][column]) if name in rows else "" for name in names)
            for column in range(len(next(iter(rows.values()), ())))
        ]
        for range_, rows in by_name.items()
    }
    return {"names": names, "ranges": columns}


def _packed(cell: str) -> str:
    """Return a cell without what the script can put back: the unit of most, and the direction of changes."""
    return cell.removesuffix(" %").removesuffix(" ms").replace("▲ ", "").replace("▼ ", "-")


def _hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _style() -> str:
    """Return the style sheet without spaces and semicolons that it does not need."""
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    return re.sub(r"\s*([{};,]|:(?= ))\s*", r"\1", style).replace(": ", ":").replace(";}", "}")


def _script() -> str:
    """Return the script without indentation and comments."""
    lines = [line.strip() for line in (_FOLDER / "page.js").read_text(encoding="utf-8").splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith("//"))


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment.get_template(name)
