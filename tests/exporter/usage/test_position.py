"""How far the consumer is, in a table of what the stream and the consumer measured."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from exporter.usage.position import position_of

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
NOW = NOON + timedelta(minutes=7, seconds=20)


def at(minute: int) -> datetime:
    return NOON + timedelta(minutes=minute)


@pytest.mark.parametrize(
    ("arrivals", "ages_s", "through", "lag_s"),
    [
        pytest.param([], {}, NOW, 0, id="nothing came"),
        pytest.param([-60], {-60: (1, 2)}, NOW, 1, id="one record came long ago, and was read"),
        pytest.param(range(-60, 7), dict.fromkeys(range(-60, 6), (1, 2)), NOW, 2, id="it reads all"),
        pytest.param(range(-60, 7), dict.fromkeys(range(-60, -30), (1, 2)), at(-30), 2240, id="stopped"),
        pytest.param([-9, 3], {-9: (1, 2)}, NOW, 1, id="what waits has not waited long"),
        pytest.param([-10, 2], {-10: (1, 2)}, at(2), 320, id="what waits has waited long"),
        pytest.param([-50, -20], {}, at(-50), 3440, id="it has read nothing"),
        pytest.param(
            range(-60, 7),
            dict.fromkeys(range(-60, 7), (2400, 2400)),
            at(-33),
            2420,
            id="it reads, and is 40 minutes behind",
        ),
        pytest.param(
            range(-60, 7),
            dict.fromkeys(range(-60, 7), (1, 2400)),
            at(-33),
            2420,
            id="it is behind in one of two shards",
        ),
        pytest.param(
            range(-60, -20), {-20: (1, 2_400)}, NOW, 1, id="it caught up, and nothing has come since then"
        ),
    ],
)
def test_how_far_the_consumer_is(
    arrivals: list[int], ages_s: dict[int, tuple[float, float]], through: datetime, lag_s: float
) -> None:
    ages_ms = {at(minute): (low * 1_000.0, high * 1_000.0) for minute, (low, high) in ages_s.items()}

    found = position_of(dict.fromkeys(map(at, arrivals), 1.0), ages_ms, at(-60), NOW)

    assert (found.through, found.lag_s) == (through, lag_s)
