"""Requests to the download API: their parameters, parsed and checked. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any, TypeVar

from consumers.errors import TaglineError
from exporter.downloads import openapi
from exporter.downloads.jobs import Cells, Request
from exporter.lake.formats import ZipFormat
from exporter.store import Days

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SHOWN = 40
# The claim that stands for all records: without it, tokens that name no client would have them by mistake.
EVERYONE = "*"
Choice = TypeVar("Choice", ZipFormat, Cells)


def shown(value: Any) -> str:
    """Return the beginning of a value, as messages name it."""
    return str(value)[:_SHOWN]


class InvalidParameterError(TaglineError, ValueError):
    """A parameter that cannot be used; the message names its value and the limit."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class ForbiddenError(TaglineError):
    """A caller may not have what they ask for; the message has the reason."""


def parse_request(
    given: Mapping[str, Any],
    *,
    tenant: str | None,
    today: date,
    max_days: int,
    tenant_columns: tuple[str, ...] = (),
) -> Request:
    """Return the request that parameters describe.

    Args:
        given: The parameters.
        tenant: The client that the caller is; None for a caller that may have all rows.
        today: The day in UTC.
        max_days: The longest range of one request, in days.
        tenant_columns: The columns that a tenant may have; empty for all.

    Raises:
        InvalidParameterError: If a parameter is missing, unknown or cannot be used.
        ForbiddenError: If another client's rows are requested, or a column that a tenant may not have.
    """
    for name in given:
        if name not in openapi.PARAMETERS:
            known = ", ".join(openapi.PARAMETERS)
            raise InvalidParameterError(
                shown(name), f"{shown(name)!r} is not a parameter; the parameters are {known}"
            )
    client, route = _text(given, "client"), _text(given, "route")
    if tenant is not None and client not in (None, tenant):
        raise ForbiddenError(f"client is {client!r}, and you may have the rows of {tenant!r} only")
    allowed = () if tenant is None else tenant_columns
    columns = _columns(given)
    for name in columns:
        if allowed and name not in allowed:
            raise ForbiddenError(f"columns has {shown(name)!r}, and you may have {', '.join(allowed)} only")
    return Request(
        parse_days(given, today=today, max_days=max_days),
        _choice(given, "format", ZipFormat.CSV),
        columns,
        client if tenant is None else None,
        route,
        tenant,
        _choice(given, "cells", Cells.SAFE),
        allowed,
    )


def parse_days(given: Mapping[str, Any], *, today: date, max_days: int) -> Days:
    """Return the range of days that parameters describe.

    Raises:
        InvalidParameterError: If a date is missing, not a date or in the future, or if the range is empty or
            longer than `max_days`.
    """
    first, last = (_day(given, name) for name in ("start_date", "end_date"))
    if last < first:
        raise InvalidParameterError("end_date", f"end_date {last} is before start_date {first}")
    if last > today:
        raise InvalidParameterError("end_date", f"end_date {last} is in the future: today is {today} (UTC)")
    days = Days(first, last)
    if len(days) > max_days:
        raise InvalidParameterError(
            "end_date", f"{first} to {last} are {len(days)} days; at most {max_days} can be asked for at once"
        )
    return days


def _day(given: Mapping[str, Any], name: str) -> date:
    value = given.get(name)
    if not value:
        raise InvalidParameterError(name, f"{name} is missing: give a date such as {name}=2026-11-19")
    try:
        if isinstance(value, str) and _DATE.fullmatch(value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise InvalidParameterError(name, f"{name} is {shown(value)!r}, not a date such as 2026-11-19")


def _choice(given: Mapping[str, Any], name: str, default: Choice) -> Choice:
    value, choices = given.get(name, default), type(default)
    try:
        return choices(value)
    except ValueError:
        raise InvalidParameterError(
            name, f"{name} is {shown(value)!r}, not one of {', '.join(choices)}"
        ) from None


def _text(given: Mapping[str, Any], name: str) -> str | None:
    if name not in given:
        return None
    value = given[name]
    if not _is_text(value):
        raise InvalidParameterError(
            name, f"{name} is {shown(value)!r}, not a text of 1 to {openapi.MAX_VALUE} characters"
        )
    return str(value)


def _columns(given: Mapping[str, Any]) -> tuple[str, ...]:
    if "columns" not in given:
        return ()
    value = given["columns"]
    if not isinstance(value, list) or not 0 < len(value) <= openapi.MAX_COLUMNS:
        raise InvalidParameterError(
            "columns", f"columns is not a list of 1 to {openapi.MAX_COLUMNS} names of columns"
        )
    for name in value:
        if not _is_text(name):
            raise InvalidParameterError(
                "columns",
                f"columns has {shown(name)!r}, not a name of 1 to {openapi.MAX_VALUE} characters",
            )
    if len(set(value)) < len(value):
        twice = next(name for name in value if value.count(name) > 1)
        raise InvalidParameterError("columns", f"columns has {shown(twice)!r} twice")
    return tuple(value)


def _is_text(value: Any) -> bool:
    # A lone surrogate is not valid in UTF-8, so no row has it.
    whole = isinstance(value, str) and not re.search("[\ud800-\udfff]", value)
    return whole and 0 < len(value) <= openapi.MAX_VALUE


def tenant_of(event: Mapping[str, Any], claim: str) -> str | None:
    """Return the client that a claim of the caller's token names.

    Args:
        event: The request's event.
        claim: The claim's name; `*` if every token may have all rows, empty if callers sign their requests.

    Raises:
        ForbiddenError: If the claim is missing, or is not text that a row could have.
    """
    authorizer = event["requestContext"].get("authorizer") or {}
    if claim == EVERYONE:
        return None
    if not claim:
        if "jwt" in authorizer:
            raise ForbiddenError("tokens give no records here: the operator has to set TenantClaim")
        return None
    tenant: str | None = authorizer.get("jwt", {}).get("claims", {}).get(claim)
    if not _is_text(tenant):
        raise ForbiddenError(
            f"your token has no claim {claim!r} of 1 to {openapi.MAX_VALUE} characters,"
            " which names the client whose rows you may have"
        )
    return tenant
