"""The access log of an HTTP API: a line for each request, in the format that the template gives.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from onemachine.functions import ACCOUNT_ID

_VARIABLE = re.compile(r"\$context\.([A-Za-z]+(?:\.[A-Za-z]+)*)")
# What a variable without a value is in a line.
NOTHING = "-"


@dataclass(frozen=True)
class Access:
    """A request that was answered.

    Attributes:
        at: When it came, with a time zone.
        route_key: The route that it took; `-` for none.
        method: Its method.
        path: Its path.
        protocol: Such as HTTP/1.1.
        source_ip: Where it came from.
        user_agent: Its header of that name.
        host: Its header of that name.
        status: The answer's status.
        response_bytes: How large the answer's body is.
        latency_ms: How long it took in milliseconds.
    """

    at: datetime
    route_key: str
    method: str
    path: str
    protocol: str
    source_ip: str
    user_agent: str
    host: str
    status: int
    response_bytes: int
    latency_ms: int


class AccessLog:
    """Writes a line for each request.

    Values are put into the format as they are: API Gateway is not documented to escape what callers choose.

    Args:
        template: The format, with variables such as `$context.status`. One that is not known here is `-`.
        ship: Puts an event, as milliseconds and text, into the log group.
        api_id: The API's id.
        stage: The stage's name.
    """

    def __init__(
        self, template: str, ship: Callable[[int, str], None], api_id: str, stage: str = "$default"
    ) -> None:
        self._template = template
        self._ship = ship
        self._api_id = api_id
        self._stage = stage

    def write(self, access: Access) -> None:
        """Write the line of a request."""
        values = self._values(access)
        line = _VARIABLE.sub(lambda found: values.get(found[1], NOTHING) or NOTHING, self._template)
        self._ship(int(access.at.timestamp() * 1000) + access.latency_ms, line)

    def _values(self, access: Access) -> Mapping[str, str]:
        identity = base64.b64encode(os.urandom(11)).decode("ascii")
        return {
            "accountId": ACCOUNT_ID,
            "apiId": self._api_id,
            "domainName": access.host,
            "extendedRequestId": identity,
            "httpMethod": access.method,
            "identity.sourceIp": access.source_ip,
            "identity.userAgent": access.user_agent,
            "path": access.path,
            "protocol": access.protocol,
            "requestId": identity,
            "requestTime": access.at.astimezone(UTC).strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "requestTimeEpoch": str(int(access.at.timestamp() * 1000)),
            "responseLatency": str(access.latency_ms),
            "responseLength": str(access.response_bytes),
            "routeKey": access.route_key,
            "resourcePath": access.route_key.partition(" ")[2],
            "stage": self._stage,
            "status": str(access.status),
        }
