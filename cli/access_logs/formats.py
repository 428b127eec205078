"""The formats of access logs: a line -> the fields of its request. Pure.

Common and combined: https://httpd.apache.org/docs/2.4/logs.html
CloudFront: https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/standard-logs-reference.html
ALB: https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-access-logs.html
API Gateway: https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-logging.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

Fields = dict[str, Any]
"""What a record of the request has: `time`, and the fields of docs/how-to/try-your-access-log.md."""

_QUOTED = r'(?:[^"\\]|\\.)*'  # between quotes, in which a quote is escaped
_CLIENT = r'(?P<client>[^\s,"]+(?:, ?[^\s,"]+)*)'  # an address, or those of X-Forwarded-For
_REST = (
    r"(?P<ident>\S+) +(?P<user>[^\[\]:\"]+?) +\[(?P<time>[^\]]+)\] +"
    rf'"(?P<request>{_QUOTED})" +(?P<status>\d{{3}}|-) +(?P<bytes>\d{{1,18}}|-)'
    # Some servers write a duration here.
    r"(?: +[\d.]+| +-)*?"
    # Real logs hold lines whose last field was cut off, its quote with it.
    rf'(?: +"(?P<referrer>{_QUOTED})" +"(?P<user_agent>{_QUOTED})(?:"(?: .*)?|$)|(?: [^"]*)?)'
)
_COMBINED = re.compile(rf"{_CLIENT} +{_REST}")
_VHOST = re.compile(rf"[\w.-]+(?::\d+)? +(?P<client>[\w.-]*[.:][\w.:-]*) +{_REST}")
# https://www.rfc-editor.org/rfc/rfc9110#name-tokens
_REQUEST = re.compile(r"(?P<method>[!#$%&'*+.^_`|~\w-]+) (?P<path>\S.*?)(?: HTTP/[\d.]+)?", re.ASCII)
_ESCAPES = re.compile(r'(?P<bytes>(?:\\x[0-9A-Fa-f]{2})+)|\\(?P<quoted>["\\])')

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# What collectors write before a line.
_PREFIXES = {
    "syslog": re.compile(r"(?:<\d+>)?[A-Z][a-z]{2} [ \d]?\d \d\d:\d\d:\d\d \S+ [^\s:\[]+(?:\[\d+\])?: "),
    "syslog (RFC 5424)": re.compile(r"<\d+>1 (?:\S+ ){5}(?:-|\[.*?\]) "),
    "containerd": re.compile(r"\d{4}-\d\d-\d\dT\S+ (?:stdout|stderr) [FP] "),
    "rsyslog": re.compile(r"\d{4}-\d\d-\d\dT\S+ \S+ [^\s:\[]+(?:\[\d+\])?: "),
    "Docker": re.compile(r"\d{4}-\d\d-\d\dT\S+ (?=\S+ +\S+ +[^\[\]:]+? +\[)"),
    "Docker Compose": re.compile(r"\S+ +\| "),
}

_ALB = re.compile(
    r"(?:http|https|h2|grpcs|ws|wss) (?P<time>\S+) \S+ (?P<client>\S+):\d+ \S+ "
    r"(?P<times>-?[\d.]+ -?[\d.]+ -?[\d.]+) (?P<status>\d{3}|-) \S+ \d+ (?P<bytes>\d{1,18}) "
    rf'"(?P<request>{_QUOTED})" "(?P<user_agent>{_QUOTED})" .*'
)


class UnreadableLineError(ValueError):
    """A line is not of the log's format; the message names the problem."""


class Format(Protocol):
    """How the lines of a log are read."""

    @property
    def name(self) -> str:
        """What people call the format."""

    def read(self, line: str) -> Fields | None:
        """Return the fields of a line's request; None for a comment.

        Raises:
            UnreadableLineError: If the line is not of this format.
        """


class Combined:
    """Common and combined format, and combined behind the name of a virtual host.

    The parser is ours because those from PyPI take one exact format for a whole file, and refuse a line that
    was cut off or has a list of addresses.
    """

    def __init__(self, name: str, pattern: re.Pattern[str]) -> None:
        self.name = name
        self._pattern = pattern

    def read(self, line: str) -> Fields | None:
        """Return the fields of a line's request.

        Raises:
            UnreadableLineError: If the line is not of this format.
        """
        found = self._pattern.fullmatch(_without_quotes(line))
        if found is None:
            raise UnreadableLineError(f"not in {self.name} format")
        client, *_ = found["client"].split(",")
        return {
            "time": _time(found["time"], _http_time),
            "client": client.removeprefix("[").removesuffix("]"),
            **_request(found["request"]),
            "status": _number(found["status"]),
            "bytes": _number(found["bytes"]),
            "referrer": _plain(found["referrer"]),
            "user_agent": _plain(found["user_agent"]),
        }


class LoadBalancer:
    """The log of an Application Load Balancer."""

    name = "Application Load Balancer"

    def read(self, line: str) -> Fields | None:
        """Return the fields of a line's request.

        Raises:
            UnreadableLineError: If the line is not of this format.
        """
        found = _ALB.fullmatch(line)
        if found is None:
            raise UnreadableLineError(f"not in {self.name} format")
        times = [float(text) for text in found["times"].split()]
        return {
            "time": _time(found["time"], datetime.fromisoformat),
            "client": found["client"].removeprefix("[").removesuffix("]"),
            **_request(found["request"]),
            "status": _number(found["status"]),
            "bytes": _number(found["bytes"]),
            "user_agent": _plain(found["user_agent"]),
            # -1 for a part that did not happen.
            "duration_ms": None if min(times) < 0 else round(sum(times) * 1000, 3),
        }


class Extended:
    """The W3C's extended format, as CloudFront writes it: `#Fields` names the columns, tabs separate them.

    https://www.w3.org/TR/WD-logfile.html
    """

    name = "CloudFront (W3C extended)"

    def __init__(self) -> None:
        self._columns: list[str] = []

    def read(self, line: str) -> Fields | None:
        """Return the fields of a line's request; None for a directive.

        Raises:
            UnreadableLineError: If the line has not the columns that `#Fields` names.
        """
        if line.startswith("#"):
            if line.startswith("#Fields:"):
                self._columns = line.removeprefix("#Fields:").split()
            return None
        values = line.split("\t") if "\t" in line else line.split(" ")
        if not self._columns or len(values) != len(self._columns):
            raise UnreadableLineError(
                f"not in {self.name} format: {len(values)} values for the {len(self._columns)} of #Fields"
            )
        found = {
            name: unquote(value) for name, value in zip(self._columns, values, strict=True) if value != "-"
        }
        stem, query = found.get("cs-uri-stem", ""), found.get("cs-uri-query")
        seconds = found.get("time-taken") if "x-edge-location" in found else None
        return {
            "time": _time(f"{found.get('date')} {found.get('time')}", datetime.fromisoformat),
            "client": found.get("c-ip"),
            **_request(f"{found.get('cs-method', '')} {stem}{f'?{query}' if query else ''}"),
            "status": _number(found.get("sc-status", "-")),
            "bytes": _number(found.get("sc-bytes", "-")),
            "referrer": found.get("cs(Referer)"),
            # Escaped twice: https://repost.aws/questions answers that CloudFront encodes `%` once more.
            "user_agent": unquote(found["cs(User-Agent)"]) if "cs(User-Agent)" in found else None,
            "duration_ms": _milliseconds(seconds, 1000),
        }


class GatewayJson:
    """API Gateway's access log in JSON, with the names that its documentation gives the fields."""

    name = "API Gateway (JSON)"

    def read(self, line: str) -> Fields | None:
        """Return the fields of a line's request.

        Raises:
            UnreadableLineError: If the line is no JSON object, or has no time, method or status.
        """
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not {"requestTime", "httpMethod", "status"} <= found.keys():
            raise UnreadableLineError(
                f"not in {self.name} format: requestTime, httpMethod and status are needed"
            )
        text = {name: value for name, value in found.items() if isinstance(value, str) and value != "-"}
        # `GET /pets/{id}` of an HTTP API, `/pets/{id}` of a REST API.
        route = text.get("resourcePath") or text.get("routeKey", "").rpartition(" ")[2] or None
        path = text.get("path") or route
        return {
            "time": _time(text.get("requestTime", ""), _http_time),
            "client": text.get("ip"),
            **_request(f"{text.get('httpMethod', '')} {path or ''}"),
            **({"route": route} if route else {}),
            "status": _number(str(found["status"])),
            "bytes": _number(str(found.get("responseLength", "-"))),
            "user_agent": text.get("userAgent"),
            "duration_ms": _milliseconds(str(found.get("responseLatency", "-")), 1),
        }


def formats() -> list[Format]:
    """Return a reader of each format: the stricter before those that would read its lines as well."""
    return [
        Extended(),
        LoadBalancer(),
        GatewayJson(),
        Combined("combined, behind a virtual host's name", _VHOST),
        Combined("common or combined", _COMBINED),
    ]


def detect(lines: Iterable[str]) -> Format | None:
    """Return the format that most of these lines have; None if no line has any."""
    sample = list(lines)
    counts = {each.name: _readable(each, sample) for each in formats()}
    best = max(counts, key=lambda name: counts[name])
    # A fresh one: reading has a state.
    return next(each for each in formats() if each.name == best) if counts[best] else None


def unwrap(line: str) -> tuple[str | None, str]:
    """Return who collected a line, if it shows that, and the line as the server wrote it."""
    if line.startswith('{"log":'):  # Docker's file
        try:
            return "Docker's", json.loads(line)["log"].rstrip("\r\n")
        except (ValueError, RecursionError, AttributeError):
            return None, line
    for name, pattern in _PREFIXES.items():
        if found := pattern.match(line):
            return f"{name}'s", line[found.end() :]
    return None, line


def route_of(path: str) -> str:
    """Return what stands for a path in counts: its first part, as a log does not have the template."""
    path = path.split("?", 1)[0]
    if path == "*":  # of the server as a whole
        return path
    first, slash, rest = path.lstrip("/").partition("/")
    return f"/{first}/*" if slash and rest else f"/{first}{slash}"


def _readable(reader: Format, lines: list[str]) -> int:
    count = 0
    for line in lines:
        try:
            count += reader.read(line) is not None
        except UnreadableLineError:
            continue
    return count


def _request(text: str) -> Fields:
    found = _REQUEST.fullmatch(_plain(text) or "")
    if found is None:
        return {"method": None, "route": "unreadable", "path": _plain(text.strip())}
    path = found["path"]
    if "://" in path.split("?", 1)[0]:  # as proxies and load balancers write it
        try:
            parts = urlsplit(path)
        except ValueError:
            return {"method": found["method"], "route": "unreadable", "path": path}
        path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    return {"method": found["method"], "route": route_of(path), "path": path}


def _http_time(text: str) -> datetime:
    return datetime.strptime(text, "%d/%b/%Y:%H:%M:%S %z")


def _time(text: str, read: Callable[[str], datetime]) -> datetime:
    try:
        time = read(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        raise UnreadableLineError(f"the time is {text[:40]!r}, outside of the calendar") from None
    except ValueError:
        raise UnreadableLineError(f"the time is {text[:40]!r}, not like 17/May/2015:10:05:03 +0000") from None
    if time < _EPOCH:
        raise UnreadableLineError(f"the time is {text[:40]!r}, before 1970")
    return time


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _milliseconds(text: str | None, factor: int) -> float | None:
    return round(float(text) * factor, 3) if text and re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text) else None


def _without_quotes(line: str) -> str:
    """Return a line without the quotes that a spreadsheet or an export put around the whole of it."""
    return line[1:-1] if line.startswith('"') and line.endswith('"') and not line.startswith('"-') else line


def _plain(text: str | None) -> str | None:
    r"""Return a field as it was sent: `-` is nothing, `\"`, `\\` and `\xC3\xA9` are what they stand for.

    What would be a control character, or is not UTF-8, stays escaped.
    """
    return None if text is None or text in {"", "-"} else _ESCAPES.sub(_unescaped, text)


def _unescaped(found: re.Match[str]) -> str:
    if found["quoted"]:
        return found["quoted"]
    try:
        text = bytes.fromhex(found["bytes"].replace("\\x", "")).decode()
    except UnicodeDecodeError:
        return found[0]
    return text if text.isprintable() else found[0]
