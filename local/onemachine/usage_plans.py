"""Usage plans of REST APIs: which API keys let requests through, how often and how many.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-api-usage-plans.html
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

from onemachine.http_api import Bucket, Throttle
from onemachine.rest_api import INVALID_API_KEY, QUOTA_EXCEEDED, THROTTLED, GatewayError, Method


@dataclass(frozen=True, slots=True)
class Quota:
    """How many requests a key may make in a period.

    https://docs.aws.amazon.com/apigateway/latest/api/API_QuotaSettings.html

    Attributes:
        limit: The number.
        period: `DAY`, `WEEK` or `MONTH`, in UTC; a week begins on Sunday.
        offset: By how many requests the first period has fewer.
    """

    limit: int
    period: str
    offset: int = 0

    def began(self, now: datetime) -> date:
        """Return the first day of the period that a time is in."""
        day = now.astimezone(UTC).date()
        back = {"DAY": 0, "WEEK": day.isoweekday() % 7, "MONTH": day.day - 1}
        return day - timedelta(days=back[self.period])


@dataclass(frozen=True, slots=True)
class UsagePlan:
    """A usage plan, with its keys.

    Attributes:
        stages: The logical id of the API and the stage's name of each stage that it is for.
        keys: The ids of its keys, by the key. An empty key is the one that stands for all without a value.
        throttle: How many requests a key may make at once and in a second; None for any number.
        method_throttles: The same of methods that have their own limits, by the API's logical id, the
            stage's name, and the method with its path.
        quota: How many requests a key may make in a period; None for any number.
    """

    stages: frozenset[tuple[str, str]]
    keys: Mapping[str, str]
    throttle: Throttle | None = None
    method_throttles: Mapping[tuple[str, str, str], Throttle] = field(default_factory=dict)
    quota: Quota | None = None


class UsagePlans:
    """The usage plans of a stack, and what their keys have used.

    Args:
        plans: The plans.
        own_key: The key of this machine: it stands for keys to which the template gives no value, and is
            enough for stages that are in no plan.
        limits: Whether requests are counted.
        clock_s: Returns the time for throttles, in seconds.
    """

    def __init__(
        self,
        plans: Sequence[UsagePlan],
        own_key: str | None,
        *,
        limits: bool = True,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plans = [
            replace(plan, keys={key or own_key or "": name for key, name in plan.keys.items()})
            for plan in plans
        ]
        self._own_key = own_key
        self._limits = limits
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._buckets: dict[tuple[int, str, str], Bucket] = {}
        self._first_days: dict[int, date] = {}
        self._used: Counter[tuple[int, str, date]] = Counter()

    def admit(self, key: str | None, stage: tuple[str, str], method: Method, now: datetime) -> str | None:
        """Count a request of a method that needs a key.

        Args:
            key: The request's key.
            stage: The API's logical id and the stage's name.
            method: The method.
            now: The time.

        Returns:
            The key's id; None for the machine's key where the stage is in no plan.

        Raises:
            GatewayError: The key is not of a plan of the stage, or has used what the plan allows.
        """
        of_stage = [place for place, plan in enumerate(self._plans) if stage in plan.stages]
        place = next((each for each in of_stage if key in self._plans[each].keys), None)
        if key is None or (place is None and (of_stage or key != self._own_key)):
            raise GatewayError(INVALID_API_KEY)
        if place is None:
            return None
        if self._limits:
            self._count(place, key, (*stage, f"{method.route.method} {method.route.path}"), now)
        return self._plans[place].keys[key]

    def _count(self, place: int, key: str, method: tuple[str, str, str], now: datetime) -> None:
        plan = self._plans[place]
        own = plan.method_throttles.get(method)
        quota = plan.quota
        with self._lock:
            if throttle := own or plan.throttle:
                name = place, key, " ".join(method) if own else ""
                bucket = self._buckets.setdefault(name, Bucket(throttle, self._clock_s))
                if not bucket.take():
                    raise GatewayError(THROTTLED)
            if quota:
                began = quota.began(now)
                first = self._first_days.setdefault(place, began)
                used = place, key, began
                if self._used[used] >= quota.limit - (quota.offset if began == first else 0):
                    raise GatewayError(QUOTA_EXCEEDED)
                self._used[used] += 1
