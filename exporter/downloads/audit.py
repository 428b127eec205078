"""The audit line: who asked for which records, who got a link to them, and who deleted them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from exporter.downloads.jobs import Job
from exporter.downloads.links import Link


class Action(StrEnum):
    """What a caller did."""

    REQUEST = "request"
    LINK = "link"
    DELETE = "delete"


def audit_line(
    action: Action, event: Mapping[str, Any], job: Job, now: datetime, link: Link | None = None
) -> dict[str, Any]:
    """Return the audit line of a request to the API. It has no secret: neither the link nor a token.

    Args:
        action: What the caller did.
        event: The request's event.
        job: The download.
        now: The time.
        link: The link that the answer has.
    """
    context = event["requestContext"]
    request = job.request
    return {
        "time": now.isoformat(),
        "action": action,
        "caller": _caller(context.get("authorizer") or {}),
        "tenant": request.tenant,
        "source_ip": context.get("http", {}).get("sourceIp"),
        "request_id": context.get("requestId"),
        "job": job.id,
        "start_date": request.days.first.isoformat(),
        "end_date": request.days.last.isoformat(),
        "format": request.format,
        "cells": request.cells,
        "columns": list(request.columns or request.allowed) or None,
        "filters": request.values,
        "expires_at": None if link is None else link.expires_at.isoformat(),
    }


def _caller(authorizer: Mapping[str, Any]) -> str | None:
    """Return the caller's ARN, or the subject of the token."""
    arn: str | None = (authorizer.get("iam") or {}).get("userArn")
    subject: str | None = (authorizer.get("jwt") or {}).get("claims", {}).get("sub")
    return arn or subject


class AuditLog:
    """A log group of CloudWatch Logs that audit lines are written to.

    Args:
        client: A boto3 client for CloudWatch Logs.
        group: The log group's name.
    """

    def __init__(self, client: Any, group: str) -> None:
        self._client = client
        self._group = group
        self._stream = ""

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line. It is in the log group when this returns.

        Args:
            line: The line; `time` has a time zone.

        Raises:
            OSError: If the log group refused the line.
        """
        if not self._stream:
            stream = f"{line['time'][:10]}/{uuid.uuid4().hex}"
            self._client.create_log_stream(logGroupName=self._group, logStreamName=stream)
            self._stream = stream
        at = round(datetime.fromisoformat(line["time"]).timestamp() * 1000)
        answer = self._client.put_log_events(
            logGroupName=self._group,
            logStreamName=self._stream,
            logEvents=[{"timestamp": at, "message": json.dumps(line)}],
        )
        if refused := answer.get("rejectedLogEventsInfo"):
            raise OSError(f"the audit line was refused: {refused}")
