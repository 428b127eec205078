"""Moving from Timestream to the lake, as docs/how-to/choose-a-store.md tells it."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from onemachine.pipeline import Pipeline
from rich.console import Console
from rich.progress import Progress

from cli import lake
from cli.apps import tagline_with_samples
from cli.commands.kept import replay_logs
from cli.compare import Side, differences, store_side
from cli.replay import ReplayOutcome
from cli.target import Target, target_of
from exporter.store import Days
from tests.test_both_stores import GROUP, line, log, put

PER_DAY, LATE = 60, 5


def days_lines(when: int, name: str, count: int = PER_DAY) -> Sequence[str]:
    return [
        line(
            f"{name}-{number:03}",
            when + number,
            {"client": f"client-{number % 3}", "status": 200 + number % 2, "plan": "free"},
        )
        for number in range(count)
    ]


def test_a_stack_that_changes_its_store_has_every_row_once() -> None:
    now = datetime.now(UTC)
    when = int((now - timedelta(minutes=2)).timestamp() * 1_000)
    today = datetime.fromtimestamp(when / 1_000, UTC).date()
    yesterday = today - timedelta(days=1)
    # Rows of yesterday are in Timestream's magnetic store.
    early, late = days_lines(when - 86_400_000, "yesterday"), days_lines(when, "today")
    bars = Progress(console=Console(file=io.StringIO()))

    def both_days(where: Target) -> list[Side]:
        return [store_side(where, day, "store") for day in (yesterday, today)]

    with Pipeline(tagline_with_samples(store="timestream"), in_process=True) as pipeline:
        where = target_of(pipeline)
        put(where, [*early, *late])
        pipeline.settle()
        list(lake.export_days(where, Days(yesterday, yesterday), bars))
        before = both_days(where)
        kept = {
            key: b"".join(where.bucket().stream(key))
            for prefix in ("records/", "lake/")
            for key in where.bucket().keys(prefix)
        }

    with Pipeline(tagline_with_samples(store="lake"), in_process=True) as pipeline:
        where = target_of(pipeline)
        # The stack's bucket and log groups stay as they are when its store changes.
        for key, body in kept.items():
            where.bucket().write(key, body)
        log(where, late, when)
        assert [side.rows for side in both_days(where)] == [PER_DAY, 0]

        start = f"{now - timedelta(hours=1):%Y-%m-%dT%H:%M:%S}"
        for _ in range(2):
            replay_logs(where, ReplayOutcome(), (GROUP, start, None), "", do_it=True, pause=0)

        after = both_days(where)
        assert [side.rows for side in after] == [PER_DAY, PER_DAY]
        assert [differences(*sides) for sides in zip(before, after, strict=True)] == [[], []]

        # Late rows of a day that only Timestream had, and some that it had already.
        put(where, [*early[:LATE], *days_lines(when - 86_400_000, "late", LATE)])
        pipeline.settle()
        list(lake.export_days(where, Days(yesterday, today), bars))
        assert [side.rows for side in both_days(where)] == [PER_DAY + LATE, PER_DAY]
        answers = lake.do_task(where, "verify", Days(yesterday, today), bars, "")
        assert [text for answer in answers for each in answer["results"] for text in each["problems"]] == []
        rows = where.store().sql("SELECT count(*), count(DISTINCT _id) FROM {table}")
        assert [tuple(row) for row in rows.rows] == [(str(2 * PER_DAY + LATE),) * 2]
