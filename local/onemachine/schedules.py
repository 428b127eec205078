"""What EventBridge fires on time: cron and rate expressions, in UTC.

https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html
"""

from __future__ import annotations

import json
import logging
import re
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from croniter import CroniterBadDateError, CroniterError, croniter
from moto.scheduler.models import scheduler_backends

from onemachine.clock import Now
from onemachine.functions import ACCOUNT_ID, DEFAULT_REGION, Invoke, Result
from onemachine.service import Client, ResourceType
from onemachine.template.stack import Resource

logger = logging.getLogger(__name__)


LOOK_EVERY_S = 0.5
SCHEDULED_TIME = b"<aws.scheduler.scheduled-time>"


class NoMoreTimesError(ValueError):
    """The expression has no time after the one that was asked for."""


@dataclass(frozen=True)
class Schedule:
    """A schedule or an EventBridge rule.

    Attributes:
        expression: `cron(...)` or `rate(...)`.
        function: The name of the function that it calls.
        payload: The event, in which `<aws.scheduler.scheduled-time>` stands for the time; empty for the
            event that EventBridge sends of itself.
        name: The rule's or schedule's name, for that event.
        timezone: The IANA time zone of a cron expression; only UTC is followed.
        enabled: Whether it fires when the stack is made.
        logical_id: Its name in the template.
    """

    expression: str
    function: str
    payload: bytes = b""
    name: str = ""
    timezone: str = "UTC"
    enabled: bool = True
    logical_id: str = ""


# --- expressions ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Field:
    """A field of a cron expression, its values and the forms that it has beyond lists, ranges and steps."""

    name: str
    lowest: int
    highest: int
    names: tuple[str, ...] = ()
    special: str = "(?!)"
    shift: int = 0


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

_FIELDS = (
    _Field("minutes", 0, 59),
    _Field("hours", 0, 23),
    _Field("day-of-month", 1, 31, special=r"L|(?:[1-9]|[12]\d|3[01])W"),
    _Field("month", 1, 12, _MONTHS),
    # AWS counts the days of the week from 1, cron from 0.
    _Field(
        "day-of-week",
        1,
        7,
        _DAYS,
        special=r"(?P<last>[1-7])?L|(?P<day>[1-7]|[A-Z]+)#(?P<week>[1-5])",
        shift=-1,
    ),
    # AWS allows years until 2199; croniter, which does the calendar, ends with 2099.
    _Field("year", 1970, 2099),
)

_YEARS = 2099 - 1970
_UNITS = {"minute": 1, "hour": 60, "day": 24 * 60}


def next_after(expression: str, after: datetime) -> datetime:
    """Find the next time of an expression.

    Args:
        expression: `cron(minutes hours day-of-month month day-of-week year)` or `rate(number unit)`.
        after: The time after which to look, with a time zone; for a rate, when it fired last.

    Returns:
        The first time later than `after`, in UTC.

    Raises:
        NoMoreTimesError: No later time exists.
        ValueError: The expression is not one of AWS's, or uses what cannot be followed here; the message
            names the part that is meant.
    """
    utc = after.astimezone(UTC)
    if match := re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", expression):
        if match[1].strip("0") == "":
            raise ValueError(f"{expression}: a rate is at least 1")
        return utc + timedelta(minutes=int(match[1]) * _UNITS[match[2]])
    if match := re.fullmatch(r"cron\((.*)\)", expression):
        try:
            times = croniter(_unix_cron(expression, match[1].split()), utc, max_years_between_matches=_YEARS)
            return times.get_next(datetime)
        except CroniterBadDateError as error:
            raise NoMoreTimesError(f"{expression} has no time after {utc.isoformat()}") from error
        except CroniterError as error:
            raise ValueError(f"{expression}: {error}") from error
    raise ValueError(f"{expression!r} is neither cron(...) nor rate(number minutes|hours|days)")


def _unix_cron(expression: str, fields: Sequence[str]) -> str:
    """Write the six fields of AWS as the seven that croniter takes."""
    if len(fields) != len(_FIELDS):
        raise ValueError(f"{expression} has {len(fields)} fields, AWS has {len(_FIELDS)}")
    if (fields[2] == "?") == (fields[4] == "?"):
        raise ValueError(f"{expression}: exactly one of day-of-month and day-of-week has to be ?")
    minute, hour, day, month, weekday, year = (
        _unix_field(expression, field, text.upper()) for field, text in zip(_FIELDS, fields, strict=True)
    )
    return f"{minute} {hour} {day} {month} {weekday} 0 {year}"


def _unix_field(expression: str, field: _Field, text: str) -> str:
    if text == "*" or (text == "?" and field.name.startswith("day-of")):
        return "*"
    return ",".join(_unix_part(expression, field, part) for part in text.split(","))


def _unix_part(expression: str, field: _Field, part: str) -> str:
    if special := re.fullmatch(field.special, part):
        return _unix_special(expression, field, part, special)
    match = re.fullmatch(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?", part)
    if match is None or (part[0] != "*" and not match[1]):
        raise ValueError(f"{expression}: {part!r} in {field.name} is not understood")
    first, last, step = match.groups()
    low = _number(expression, field, first) if first else field.lowest
    # 5 is one value, 5/10 goes on to the end, 5-30/10 does not.
    high = _number(expression, field, last) if last else low if first and not step else field.highest
    if low > high:
        raise ValueError(f"{expression}: {part!r} in {field.name} runs backwards")
    if step is not None and int(step) == 0:
        raise ValueError(f"{expression}: {part!r} in {field.name} has a step of 0")
    span = f"{low + field.shift}-{high + field.shift}" if high > low else f"{low + field.shift}"
    return f"{span}/{step}" if step and high > low else span


def _unix_special(expression: str, field: _Field, part: str, match: re.Match[str]) -> str:
    if field.name == "day-of-month":
        return part
    if match["week"]:
        return f"{_number(expression, field, match['day']) + field.shift}#{match['week']}"
    # L alone is the last day of the week, 5L is the last Thursday of the month.
    return f"L{int(match['last']) + field.shift}" if match["last"] else f"{field.highest + field.shift}"


def _number(expression: str, field: _Field, text: str) -> int:
    value = field.names.index(text) + field.lowest if text in field.names else text
    if not str(value).isdecimal() or not field.lowest <= int(value) <= field.highest:
        raise ValueError(
            f"{expression}: {text!r} in {field.name} is not in {field.lowest} to {field.highest}"
        )
    return int(value)


# --- firing -----------------------------------------------------------------------------------------------


class Scheduler:
    """Calls functions at the times of their schedules.

    Args:
        schedules: The schedules.
        invoke: Calls a function by its name.
        clock: Says what time it is, with a time zone. It may be turned forward, and never back.
        catch_up: Fire each time that passed since the last look, once and in order, as it is wanted of a
            clock that is turned by days; otherwise the times that passed while this machine slept are left
            out but for the last one.
        is_enabled: Tells whether a schedule fires now.

    Raises:
        ValueError: A schedule's expression is not understood.
    """

    def __init__(
        self,
        schedules: Sequence[Schedule],
        invoke: Invoke,
        clock: Now,
        *,
        catch_up: bool = False,
        is_enabled: Callable[[Schedule], bool] = lambda _: True,
    ) -> None:
        self._schedules = list(schedules)
        self._catch_up, self._is_enabled = catch_up, is_enabled
        self._firing = threading.Lock()
        self._invoke = invoke
        self._clock = clock
        now = clock()
        self._due = [_next_or_never(schedule, now) for schedule in self._schedules]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Begin to look at the clock."""
        self._thread.start()

    def stop(self) -> None:
        """End after the invocation that is running."""
        self._stopped.set()
        self._thread.join()

    def tick(self, function: str) -> list[Result]:
        """Fire a function's schedules now, whatever the time is; when they fire next does not change.

        One that is disabled is not fired.

        Args:
            function: The function's name.

        Returns:
            The results.

        Raises:
            KeyError: The function has no schedule.
        """
        schedules = [schedule for schedule in self._schedules if schedule.function == function]
        if not schedules:
            raise KeyError(f"no schedule calls {function!r}")
        return [self._fire(schedule, self._clock()) for schedule in schedules if self._is_enabled(schedule)]

    def fire_due(self, turn: Callable[[], None] = lambda: None) -> list[Result]:
        """Fire what is due, and return when it is done; the thread does this twice a second.

        Args:
            turn: Is called first, while nothing else is fired: turns the clock.

        Returns:
            The results.
        """
        results = []
        with self._firing:
            turn()
            now = self._clock()
            while (first := self._first_due(now)) is not None:
                place, due = first
                schedule = self._schedules[place]
                following = _next_or_never(schedule, due)
                if not self._catch_up and following is not None and following <= now:
                    following = _next_or_never(schedule, now)
                # Before it is fired: one that cannot be called must not be called again and again.
                self._due[place] = following
                if self._is_enabled(schedule):
                    results.append(self._fire(schedule, due))
        return results

    def _first_due(self, now: datetime) -> tuple[int, datetime] | None:
        """Return the place and the time of the schedule that was due first, None if none is."""
        due = [(when, place) for place, when in enumerate(self._due) if when is not None and when <= now]
        if not due:
            return None
        when, place = min(due)
        return place, when

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_EVERY_S):
            try:
                self.fire_due()
            # One invocation that cannot be made must not end all schedules.
            except Exception:
                logger.exception("schedule")

    def _fire(self, schedule: Schedule, when: datetime) -> Result:
        result = self._invoke(schedule.function, _payload(schedule, when))
        if result.error:
            logger.warning("%s failed on its schedule: %.300r", schedule.function, result.payload)
        return result


def _next_or_never(schedule: Schedule, now: datetime) -> datetime | None:
    try:
        return next_after(schedule.expression, now)
    except NoMoreTimesError:
        return None


def _payload(schedule: Schedule, when: datetime) -> bytes:
    time = f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if schedule.payload:
        return schedule.payload.replace(SCHEDULED_TIME, time.encode())
    # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-run-lambda-schedule.html
    event = {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT_ID,
        "time": time,
        "region": DEFAULT_REGION,
        "resources": [
            f"arn:aws:events:{DEFAULT_REGION}:{ACCOUNT_ID}:rule/{schedule.name or schedule.function}"
        ],
        "detail": {},
    }
    return json.dumps(event).encode()


def _create(client: Client, resource: Resource) -> None:
    """Create a schedule, so that clients can read and disable it."""
    wanted = resource.properties
    target = {name: value for name, value in wanted["Target"].items() if name in {"Arn", "RoleArn", "Input"}}
    client("scheduler").create_schedule(
        Name=resource.name,
        ScheduleExpression=wanted["ScheduleExpression"],
        ScheduleExpressionTimezone=wanted.get("ScheduleExpressionTimezone", "UTC"),
        FlexibleTimeWindow=wanted["FlexibleTimeWindow"],
        Target=target,
        State=wanted.get("State", "ENABLED"),
    )


SCHEDULE = ResourceType(
    "AWS::Scheduler::Schedule",
    "Name",
    arn="scheduler:{region}:{account}:schedule/default/{name}",
    create=_create,
)


def is_enabled(schedule: Schedule) -> bool:
    """Tell whether a schedule fires: one of EventBridge Scheduler unless a client has disabled it."""
    of_default = scheduler_backends[ACCOUNT_ID][DEFAULT_REGION].schedule_groups["default"].schedules
    known = of_default.get(schedule.name)
    return known is None or known.state == "ENABLED"
