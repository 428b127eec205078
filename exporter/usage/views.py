"""Answers to what is asked most, made before anybody asks. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from exporter.usage import questions
from exporter.usage.questions import PRESETS, Period
from exporter.usage.rollup import Limits, RollUp, bounded

# What is answered, by the last part of its path; `summary` is the whole.
ANSWERS = ("summary", "series", "routes", "clients")
# So many rows an answer has; what is used least is in one more row.
MOST_ROWS = 1_000


def content_of(name: str, asked: Period, only: questions.Filter = questions.ALL) -> dict[str, Any]:
    """Return the content of an answer, with what it states of its numbers.

    Args:
        name: One of `ANSWERS`.
        asked: The numbers.
        only: Which requests count in a summary or a series.
    """
    if name == "summary":
        return questions.summary(asked, only)
    if name == "series":
        return {**questions.envelope(asked), "series": questions.series(asked, only)}
    limits = Limits(routes=MOST_ROWS, clients=MOST_ROWS)
    shown = replace(asked, usage=bounded(asked.usage, limits))
    rows = questions.routes(shown) if name == "routes" else questions.clients(shown)
    return {**questions.envelope(asked), name: rows}


def summary_with_live(body: bytes, live: Mapping[str, Any] | None) -> bytes:
    """Return a summary that is ready with other last minutes.

    Args:
        body: The summary as JSON.
        live: What `live.summarize` returned.
    """
    return orjson.dumps({**orjson.loads(body), "live": live})


def ready_answers(
    rollups: Sequence[RollUp], live: Mapping[str, Any] | None = None
) -> dict[tuple[str, str], bytes]:
    """Return the answers about each range of `PRESETS`, as JSON, by their name and the range's.

    Args:
        rollups: Roll-ups that share no time: hours of the newest days, days before.
        live: The last minutes, `live.summarize`.
    """
    through = questions.data_through(rollups)
    made: dict[tuple[str, str], bytes] = {}
    for range_ in PRESETS:
        asked = questions.period(rollups, questions.preset(range_, through))
        made |= {(name, range_): orjson.dumps(content_of(name, asked)) for name in ANSWERS}
        made["summary", range_] = summary_with_live(made["summary", range_], live)
    return made
