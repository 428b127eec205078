"""Expressions against times worked out by hand, and the scheduler against a clock that the test turns."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onemachine.functions import Result
from onemachine.schedules import NoMoreTimesError, Schedule, Scheduler, next_after


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# 2026-11-20 is a Friday; 2026 began on a Thursday, and 2028 is a leap year.
NEXT_TIMES = [
    ("rate(1 minute)", "2026-11-20T09:00:30", "2026-11-20T09:01:30"),
    ("rate(12 hours)", "2026-11-20T21:00", "2026-11-21T09:00"),
    ("rate(1 day)", "2026-12-31T09:00", "2027-01-01T09:00"),
    ("cron(0 1 * * ? *)", "2026-11-20T00:59:59", "2026-11-20T01:00"),
    ("cron(0 1 * * ? *)", "2026-11-20T01:00", "2026-11-21T01:00"),
    ("cron(15 10 ? * 6L 2026-2027)", "2026-11-20T00:00", "2026-11-27T10:15"),  # the last Friday
    ("cron(0 18 ? * MON-FRI *)", "2026-11-20T18:00", "2026-11-23T18:00"),
    ("cron(0 18 ? * 2-6 *)", "2026-11-20T18:00", "2026-11-23T18:00"),
    ("cron(0 8 ? * 1 *)", "2026-11-20T00:00", "2026-11-22T08:00"),  # 1 is Sunday
    ("cron(0 8 ? * 7 *)", "2026-11-20T00:00", "2026-11-21T08:00"),  # 7 is Saturday
    ("cron(0 8 ? * L *)", "2026-11-20T00:00", "2026-11-21T08:00"),  # so is L
    ("cron(0 8 ? * SUN,3 *)", "2026-11-22T08:00", "2026-11-24T08:00"),
    ("cron(0 8 1 * ? *)", "2026-11-20T00:00", "2026-12-01T08:00"),
    ("cron(0/10 * ? * MON-FRI *)", "2026-11-20T23:50", "2026-11-23T00:00"),
    ("cron(5/20 9 * * ? *)", "2026-11-20T09:05", "2026-11-20T09:25"),
    ("cron(5-30/20 9 * * ? *)", "2026-11-20T09:25", "2026-11-21T09:05"),
    ("cron(*/30 9 * * ? *)", "2026-11-20T09:01", "2026-11-20T09:30"),
    ("cron(0 0 L * ? *)", "2028-02-01T00:00", "2028-02-29T00:00"),
    ("cron(0 0 15W * ? *)", "2026-11-20T00:00", "2026-12-15T00:00"),
    ("cron(0 0 15W 11 ? *)", "2026-01-01T00:00", "2026-11-16T00:00"),  # the 15th is a Sunday
    ("cron(0 9 ? * 3#2 *)", "2026-11-20T00:00", "2026-12-08T09:00"),  # the second Tuesday
    ("cron(0 9 ? * TUE#2 *)", "2026-11-20T00:00", "2026-12-08T09:00"),
    ("cron(0 0 1 JAN,JUL ? *)", "2026-11-20T00:00", "2027-01-01T00:00"),
    ("cron(0 0 29 2 ? *)", "2026-11-20T00:00", "2028-02-29T00:00"),
    ("cron(0 0 1 1 ? 2099)", "2026-11-20T00:00", "2099-01-01T00:00"),
]


@pytest.mark.parametrize(("expression", "after", "expected"), NEXT_TIMES)
def test_the_next_time_is_the_one_worked_out_by_hand(expression: str, after: str, expected: str) -> None:
    assert next_after(expression, at(after)) == at(expected)


def test_a_time_in_another_zone_is_taken_as_the_same_moment_in_utc() -> None:
    in_new_york = datetime.fromisoformat("2026-11-20T20:30:00-05:00")
    assert next_after("cron(0 1 * * ? *)", in_new_york) == at("2026-11-22T01:00")


REFUSED = [
    ("0 1 * * ? *", "neither cron"),
    ("at(2026-11-20T00:00:00)", "neither cron"),
    ("rate(5 weeks)", "neither cron"),
    ("rate(0 minutes)", "at least 1"),
    ("cron(0 1 * * ?)", "5 fields"),
    ("cron(0 1 * * * *)", "exactly one of day-of-month and day-of-week"),
    ("cron(0 1 ? * ? *)", "exactly one of day-of-month and day-of-week"),
    ("cron(60 1 * * ? *)", "'60' in minutes is not in 0 to 59"),
    ("cron(? 1 * * ? *)", r"'\?' in minutes is not understood"),
    ("cron(0 1 ? * 0 *)", "'0' in day-of-week is not in 1 to 7"),
    ("cron(0 1 ? * FRI-MON *)", "'FRI-MON' in day-of-week runs backwards"),
    ("cron(0 1 ? * MUN#1 *)", "'MUN' in day-of-week"),
    ("cron(0 1 LW * ? *)", "'LW' in day-of-month"),
    ("cron(0 1 L-3 * ? *)", "'L' in day-of-month"),
    ("cron(0/0 1 * * ? *)", "step of 0"),
    ("cron(H 1 * * ? *)", "'H' in minutes"),
    ("cron(0 1 1 1 ? 2100)", "'2100' in year is not in 1970 to 2099"),
]


@pytest.mark.parametrize(("expression", "complaint"), REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(expression: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        next_after(expression, at("2026-11-20T00:00"))


def test_an_expression_whose_years_are_over_says_so() -> None:
    with pytest.raises(NoMoreTimesError, match="no time after 2026-11-20"):
        next_after("cron(0 1 * * ? 2025)", at("2026-11-20T00:00"))


class TurnedClock:
    def __init__(self, start: datetime) -> None:
        self.now = start

    def __call__(self) -> datetime:
        return self.now


class Calls:
    """Remembers what was invoked."""

    def __init__(self) -> None:
        self.made: list[tuple[str, bytes]] = []

    def __call__(self, function: str, payload: bytes) -> Result:
        self.made.append((function, payload))
        return Result(b"null", None, "id")


def test_schedules_fire_once_when_their_time_has_come() -> None:
    clock, calls = TurnedClock(at("2026-11-20T00:59")), Calls()
    daily = Schedule("cron(0 1 * * ? *)", "daily", b'{"at":"<aws.scheduler.scheduled-time>"}')
    over = Schedule("cron(0 1 * * ? 2025)", "over", b"{}")
    scheduler = Scheduler([daily, over], calls, clock)

    scheduler.fire_due()
    assert calls.made == []

    clock.now = at("2026-11-20T01:00:20")
    scheduler.fire_due()
    scheduler.fire_due()
    assert calls.made == [("daily", b'{"at":"2026-11-20T01:00:00Z"}')]


def test_times_that_passed_unseen_are_not_made_up_for() -> None:
    clock, calls = TurnedClock(at("2026-11-20T00:00")), Calls()
    scheduler = Scheduler([Schedule("rate(1 minute)", "often", b"{}")], calls, clock)
    clock.now += timedelta(hours=3, seconds=10)
    scheduler.fire_due()
    scheduler.fire_due()
    assert len(calls.made) == 1


def test_a_clock_that_is_turned_by_days_fires_each_time_once_and_in_order() -> None:
    clock, calls = TurnedClock(at("2026-11-20T00:00")), Calls()
    text = b"<aws.scheduler.scheduled-time>"
    daily, half = Schedule("cron(15 0 * * ? *)", "daily", text), Schedule("rate(12 hours)", "half", text)
    scheduler = Scheduler([daily, half, daily], calls, clock, catch_up=True)
    clock.now += timedelta(days=2)
    scheduler.fire_due()
    scheduler.fire_due()
    assert [(function, payload.decode()) for function, payload in calls.made] == [
        ("daily", "2026-11-20T00:15:00Z"),
        ("daily", "2026-11-20T00:15:00Z"),
        ("half", "2026-11-20T12:00:00Z"),
        ("half", "2026-11-21T00:00:00Z"),
        ("daily", "2026-11-21T00:15:00Z"),
        ("daily", "2026-11-21T00:15:00Z"),
        ("half", "2026-11-21T12:00:00Z"),
        ("half", "2026-11-22T00:00:00Z"),
    ]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 90), max_size=20))
def test_however_a_clock_is_turned_each_minute_fires_once(steps: list[int]) -> None:
    start = at("2026-11-20T00:00")
    clock, calls = TurnedClock(start), Calls()
    scheduler = Scheduler(
        [Schedule("cron(* * * * ? *)", "often", b"<aws.scheduler.scheduled-time>")],
        calls,
        clock,
        catch_up=True,
    )
    for step in steps:
        clock.now += timedelta(seconds=step)
        scheduler.fire_due()
    fired = [payload.decode() for _, payload in calls.made]
    assert fired == [
        f"{start + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}" for minute in range(1, sum(steps) // 60 + 1)
    ]


def test_two_that_look_at_once_fire_once() -> None:
    clock, calls = TurnedClock(at("2026-11-20T00:00")), Calls()
    scheduler = Scheduler([Schedule("rate(1 day)", "daily", b"{}")], calls, clock, catch_up=True)
    clock.now += timedelta(days=5)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: scheduler.fire_due(), range(8)))
    assert len(calls.made) == 5


def test_a_rate_does_not_drift_by_the_delay_of_its_firing() -> None:
    clock, calls = TurnedClock(at("2026-11-20T00:00")), Calls()
    scheduler = Scheduler(
        [Schedule("rate(1 minute)", "often", b"<aws.scheduler.scheduled-time>")], calls, clock
    )
    for second in (61, 121, 182):
        clock.now = at("2026-11-20T00:00") + timedelta(seconds=second)
        scheduler.fire_due()
    assert [payload for _, payload in calls.made] == [
        b"2026-11-20T00:01:00Z",
        b"2026-11-20T00:02:00Z",
        b"2026-11-20T00:03:00Z",
    ]


def test_tick_fires_now_with_the_event_that_eventbridge_sends() -> None:
    clock, calls = TurnedClock(at("2026-11-20T05:00")), Calls()
    scheduler = Scheduler([Schedule("rate(1 day)", "daily"), Schedule("rate(1 day)", "other")], calls, clock)
    assert [result.error for result in scheduler.tick("daily")] == [None]
    (function, payload), *others = calls.made
    event = json.loads(payload)
    assert (function, others) == ("daily", [])
    assert (event["source"], event["detail-type"]) == ("aws.events", "Scheduled Event")
    assert event["time"] == "2026-11-20T05:00:00Z"
    with pytest.raises(KeyError, match="nobody"):
        scheduler.tick("nobody")


def test_tick_leaves_out_a_disabled_schedule() -> None:
    clock, calls = TurnedClock(at("2026-11-20T05:00")), Calls()
    both = [Schedule("rate(1 day)", "daily", name="on"), Schedule("rate(1 hour)", "daily", name="off")]
    scheduler = Scheduler(both, calls, clock, is_enabled=lambda schedule: schedule.name == "on")

    assert [result.error for result in scheduler.tick("daily")] == [None]
    assert len(calls.made) == 1


def test_a_call_that_cannot_be_made_leaves_the_other_schedules_alone() -> None:
    clock, calls = TurnedClock(at("2026-11-20T00:00")), Calls()

    def invoke(function: str, payload: bytes) -> Result:
        if function == "broken":
            raise RuntimeError("stopped")
        return calls(function, payload)

    scheduler = Scheduler(
        [Schedule("rate(1 minute)", "broken", b"{}"), Schedule("rate(1 minute)", "fine", b"{}")],
        invoke,
        clock,
    )
    clock.now += timedelta(minutes=1)
    with pytest.raises(RuntimeError):
        scheduler.fire_due()
    scheduler.fire_due()
    assert calls.made == [("fine", b"{}")]


def test_the_thread_fires_and_stops() -> None:
    clock, calls = TurnedClock(at("2026-11-20T00:00")), Calls()
    fired = []
    scheduler = Scheduler([Schedule("rate(1 minute)", "often", b"{}")], calls, clock)
    clock.now += timedelta(minutes=1)
    scheduler.start()
    for _ in range(1_200):
        fired = list(calls.made)
        if fired:
            break
        scheduler._stopped.wait(0.05)
    scheduler.stop()
    assert fired == [("often", b"{}")]
