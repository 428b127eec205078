"""An API Gateway HTTP API on one machine: an event of payload format 2.0 or 1.0 in, a function's answer out.

The upper half is pure: which route a request takes, what event it becomes, what an answer means. The formats
are those of https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl, unquote

from onemachine.access_logs import NOTHING, Access, AccessLog
from onemachine.clock import Now, real_time
from onemachine.functions import ACCOUNT_ID, MAX_PAYLOAD_BYTES, Invoke, Result, ThrottledError
from onemachine.http_messages import Request, Response, refusal
from onemachine.payload_one import Place, event_one

# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html
MAX_REQUEST_BYTES = 10 * 1024 * 1024
INTEGRATION_TIMEOUT_S = 30.0

AT_ONCE = 64
"""The requests that wait for functions at the same time; others wait for their turn."""

STOP_WITHIN_S = 0.02
"""How often a server looks whether it is to stop."""
_WITHOUT_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}

logger = logging.getLogger(__name__)


class RefusedError(Exception):
    """An authorizer does not let a request through.

    Attributes:
        response: What the client gets instead.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(f"{response.status} {response.body.decode()}")
        self.response = response


class Authorizer(Protocol):
    """What decides who may make a request: `onemachine.authorizers` has the service's own."""

    def authorize(self, request: Request, scopes: Sequence[str], now: datetime) -> Mapping[str, Any]:
        """Let a request through.

        Args:
            request: The request.
            scopes: The route's scopes.
            now: The time, with a time zone.

        Returns:
            What the event has in `requestContext.authorizer`.

        Raises:
            RefusedError: The request is not let through.
        """


@dataclass(frozen=True)
class AuthorizerSpec:
    """What lets requests to a route through.

    Attributes:
        kind: `iam` or `jwt`.
        issuer: The issuer of tokens.
        audience: What tokens are for.
        identity_source: Where a request has its token.
    """

    kind: str
    issuer: str = ""
    audience: tuple[str, ...] = ()
    identity_source: str = "$request.header.Authorization"


@dataclass(frozen=True)
class Route:
    """A route of the API.

    Attributes:
        method: `GET` and the like, or `ANY`.
        path: The path: its segments may be `{name}`, and the last one `{name+}` for all that follows.
            `$default`, with the method ANY, takes what no other route takes.
        function: The name of the function that answers.
        authorizer: What lets requests through, None for nothing; in a template, what describes it.
        scopes: What a token has to allow, one of them.
        payload: The format of events and answers, `2.0` or `1.0`.
        timeout_s: The longest that a client waits for the function, in seconds; None for the API's.
    """

    method: str
    path: str
    function: str
    authorizer: Authorizer | AuthorizerSpec | None = None
    scopes: tuple[str, ...] = ()
    payload: str = "2.0"
    timeout_s: float | None = None

    @property
    def key(self) -> str:
        """The route's name, as functions see it."""
        return DEFAULT_ROUTE if self.is_default else f"{self.method} {self.path}"

    @property
    def is_default(self) -> bool:
        """Whether it takes what no other route takes."""
        return self.path.removeprefix("/") == DEFAULT_ROUTE


@dataclass(frozen=True)
class Cors:
    """Which pages of other origins may call the API.

    Attributes:
        origins: `*`, `https://*`, or origins as browsers send them.
        methods: `*`, or methods.
        headers: `*`, or headers that a page may set.
        exposed: Headers that a page may read.
        max_age_s: How long a browser may keep the answer, in seconds.
        credentials: Whether a page may send cookies.

    Raises:
        ValueError: Credentials are allowed to any origin.

    See https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-cors.html.
    """

    origins: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    max_age_s: int | None = None
    credentials: bool = False

    def __post_init__(self) -> None:
        if self.credentials and "*" in self.origins:
            raise ValueError("AllowCredentials does not go with the origin *")


@dataclass(frozen=True)
class Throttle:
    """How many requests an API takes: a bucket of so many, refilled at so many in a second.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-throttling.html
    """

    rate_per_s: float
    burst: int


DEFAULT_ROUTE = "$default"
NOT_FOUND = refusal(404, "Not Found")
TOO_LARGE = refusal(413, "Request Entity Too Large")
LENGTH_REQUIRED = refusal(411, "Length Required")
INTERNAL_SERVER_ERROR = refusal(500, "Internal Server Error")
TOO_MANY_REQUESTS = refusal(429, "Too Many Requests")
SERVICE_UNAVAILABLE = refusal(503, "Service Unavailable")


# --- routes -----------------------------------------------------------------------------------------------


def find_route(routes: Sequence[Route], method: str, raw_path: str) -> tuple[Route, dict[str, str]] | None:
    """Choose the most specific route: segments that are given before parameters before greedy ones.

    Args:
        routes: The API's routes.
        method: The request's method.
        raw_path: Its path, percent-encoded.

    Returns:
        The route and the values of its parameters, decoded; None if no route takes it. Between equals a route
        with the request's own method precedes `ANY`. See
        https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html.
    """
    best: tuple[tuple[tuple[int, ...], bool], Route, dict[str, str]] | None = None
    for route in routes:
        if route.method not in {method, "ANY"}:
            continue
        parameters = {} if route.is_default else _match(route.path, raw_path)
        if parameters is None:
            continue
        rank = (_generality(route.path), route.method == "ANY")
        if best is None or rank < best[0]:
            best = (rank, route, parameters)
    return (best[1], best[2]) if best else None


def _match(template: str, raw_path: str) -> dict[str, str] | None:
    wanted, given = template.split("/"), raw_path.split("/")
    parameters: dict[str, str] = {}
    for place, segment in enumerate(wanted):
        if segment.startswith("{") and segment.endswith("+}"):
            rest = "/".join(given[place:])
            if not rest:
                return None
            return {**parameters, segment[1:-2]: unquote(rest)}
        if place >= len(given):
            return None
        value = unquote(given[place])
        if segment.startswith("{") and segment.endswith("}") and value:
            parameters[segment[1:-1]] = value
        elif segment != value:
            return None
    return parameters if len(given) == len(wanted) else None


def _generality(template: str) -> tuple[int, ...]:
    """Rank a path, segment by segment: 0 is a given one, 1 a parameter, 2 a greedy one, 3 no path at all."""
    if template.removeprefix("/") == DEFAULT_ROUTE:
        return (3,)
    return tuple(
        0 if not segment.startswith("{") else 2 if segment.endswith("+}") else 1
        for segment in template.split("/")
    )


# --- the event --------------------------------------------------------------------------------------------


def request_event(
    request: Request,
    route: Route,
    parameters: Mapping[str, str],
    api_id: str,
    now: datetime,
    *,
    authorized: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a request as an event of payload format 2.0.

    Args:
        request: The request.
        route: The route that it takes.
        parameters: The values of the route's parameters.
        api_id: The API's id.
        now: The time.
        authorized: The answer of the route's authorizer about the caller.

    Returns:
        The event. As in the service, `rawPath` is decoded, repeated headers and query parameters are joined
        by commas, cookies have their own list, and what is empty is left out.
    """
    raw_path, _, query = request.target.partition("?")
    path = unquote(raw_path)
    headers, cookies = _headers_and_cookies(request)
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route.key,
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": _context(request, route, headers, api_id, now),
        "isBase64Encoded": False,
    }
    if authorized is not None:
        event["requestContext"]["authorizer"] = dict(authorized)
    if cookies:
        event["cookies"] = cookies
    if query:
        event["queryStringParameters"] = _joined(parse_qsl(query, keep_blank_values=True))
    if parameters:
        event["pathParameters"] = dict(parameters)
    if request.body:
        event["body"], event["isBase64Encoded"] = _body(request.body, headers.get("content-type", ""))
    return event


def _context(
    request: Request, route: Route, headers: Mapping[str, str], api_id: str, now: datetime
) -> dict[str, Any]:
    return {
        "accountId": ACCOUNT_ID,
        "apiId": api_id,
        # The address that the client used, so that links that a function builds on it lead back here.
        "domainName": headers.get("host", ""),
        "domainPrefix": api_id,
        "http": {
            "method": request.method,
            "path": unquote(request.target.partition("?")[0]),
            "protocol": request.protocol,
            "sourceIp": request.source_ip,
            "userAgent": headers.get("user-agent", ""),
        },
        "requestId": base64.b64encode(os.urandom(11)).decode("ascii"),
        "routeKey": route.key,
        "stage": "$default",
        "time": now.astimezone(UTC).strftime("%d/%b/%Y:%H:%M:%S +0000"),
        "timeEpoch": int(now.timestamp() * 1000),
    }


def _event_one(
    request: Request,
    route: Route,
    parameters: Mapping[str, str],
    api_id: str,
    now: datetime,
    *,
    authorized: Mapping[str, Any] | None,
) -> dict[str, Any]:
    path = unquote(request.target.partition("?")[0])
    place = Place(api_id, "$default", route.path, path, path, parameters)
    kind = request.header("content-type") or ""
    body = _body(request.body, kind) if request.body else (None, False)
    event = {"version": "1.0", **event_one(request, place, now, body, authorized)}
    tokens = (authorized or {}).get("jwt", {})
    event["requestContext"]["authorizer"] = {"claims": tokens.get("claims"), "scopes": tokens.get("scopes")}
    return event


def _headers_and_cookies(request: Request) -> tuple[dict[str, str], list[str]]:
    headers = _joined([(name.lower(), value) for name, value in request.headers if name.lower() != "cookie"])
    cookies = [
        cookie.strip()
        for name, value in request.headers
        if name.lower() == "cookie"
        for cookie in value.split(";")
        if cookie.strip()
    ]
    forwarded = [value for name, value in request.headers if name.lower() == "x-forwarded-for"]
    headers["x-forwarded-for"] = ", ".join([*forwarded, request.source_ip])
    headers["x-forwarded-proto"] = "http"
    headers["x-forwarded-port"] = headers.get("host", "").rpartition(":")[2]
    headers.setdefault("x-amzn-trace-id", f"Root=1-{int(time.time()):08x}-{os.urandom(12).hex()}")
    return headers, cookies


def _joined(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _body(body: bytes, content_type: str) -> tuple[str, bool]:
    """Return the body and whether it is base64: the service passes on as text only what it takes for text."""
    kind = content_type.partition(";")[0].strip().lower()
    text_types = ("", "application/json", "application/xml", "application/javascript")
    if kind in text_types or kind.startswith("text/") or kind.endswith(("+json", "+xml")):
        try:
            return body.decode("utf-8"), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(body).decode("ascii"), True


# --- the answer -------------------------------------------------------------------------------------------


def response_of(result: Result, payload: str = "2.0") -> Response:
    """Turn a function's answer into a response.

    Args:
        result: The answer.
        payload: Its format.

    Returns:
        What an answer with a `statusCode` describes; in format 2.0, any other JSON as a body with status 200;
        status 500 where the function failed or its answer is malformed.
    """
    if result.error:
        return INTERNAL_SERVER_ERROR
    try:
        answer = json.loads(result.payload)
        if isinstance(answer, dict) and "statusCode" in answer:
            return _described(answer)
    except (ValueError, TypeError, AttributeError):
        return INTERNAL_SERVER_ERROR
    if payload == "1.0":
        return INTERNAL_SERVER_ERROR
    body = answer.encode() if isinstance(answer, str) else result.payload
    return Response(200, [("content-type", "application/json")], body)


def _described(answer: Mapping[str, Any]) -> Response:
    body = answer.get("body")
    if body is not None and not isinstance(body, str):
        raise TypeError("body is not a string")
    content = (body or "").encode()
    if answer.get("isBase64Encoded"):
        content = base64.b64decode(content, validate=True)
    headers = answer_headers(answer)
    if "content-type" not in dict(headers):
        headers.append(("content-type", "text/plain;charset=UTF-8"))
    headers += [("set-cookie", header_value(cookie)) for cookie in answer.get("cookies") or []]
    status = int(answer["statusCode"])
    if not 100 <= status <= 599:  # noqa: PLR2004 - what HTTP has
        raise ValueError(f"statusCode {status} is not one of HTTP's")
    return Response(status, headers, content)


def answer_headers(answer: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the headers of a function's answer; those in `multiValueHeaders` take precedence.

    Raises:
        ValueError: A value would break the response.
    """
    several = {str(name).lower(): values for name, values in (answer.get("multiValueHeaders") or {}).items()}
    single = {str(name).lower(): value for name, value in (answer.get("headers") or {}).items()}
    return [(name, header_value(value)) for name, value in single.items() if name not in several] + [
        (name, header_value(value)) for name, values in several.items() for value in values
    ]


def header_value(value: object) -> str:
    """Return a header's value as text.

    Raises:
        ValueError: It would break the response.
    """
    text = value if isinstance(value, str) else json.dumps(value)
    if not text.isprintable():
        raise ValueError(f"header value {text!r} would break the response")
    return text


# --- other origins ----------------------------------------------------------------------------------------


def preflight(cors: Cors, request: Request) -> Response | None:
    """Answer a browser that asks whether a page may make a request.

    Args:
        cors: The API's configuration.
        request: The request.

    Returns:
        Status 204, with headers if the page may; None if the request does not ask.
    """
    given = {name.lower(): value for name, value in request.headers}
    method = given.get("access-control-request-method")
    if request.method != "OPTIONS" or "origin" not in given or method is None:
        return None
    asked = [name.strip().lower() for name in given.get("access-control-request-headers", "").split(",")]
    allowed = {name.lower() for name in cors.headers}
    if (
        not _origin_allowed(cors, given["origin"])
        or not {method, "*"} & set(cors.methods)
        or not ("*" in allowed or set(filter(None, asked)) <= allowed)
    ):
        return Response(204, [], b"")
    headers = _origin_headers(cors, given["origin"])
    headers.append(("access-control-allow-methods", ",".join(cors.methods)))
    if cors.headers:
        headers.append(("access-control-allow-headers", ",".join(cors.headers)))
    if cors.max_age_s is not None:
        headers.append(("access-control-max-age", str(cors.max_age_s)))
    return Response(204, headers, b"")


def with_cors(cors: Cors, request: Request, response: Response) -> Response:
    """Give a response the headers of the API's configuration, in place of those of the function.

    Args:
        cors: The API's configuration.
        request: The request.
        response: The response.

    Returns:
        The response that the client gets.
    """
    origin = request.header("origin")
    headers = [(name, value) for name, value in response.headers if not name.startswith("access-control-")]
    if origin is not None and _origin_allowed(cors, origin):
        headers += _origin_headers(cors, origin)
    return Response(response.status, headers, response.body)


def _origin_allowed(cors: Cors, origin: str) -> bool:
    return any(
        allowed in {"*", origin} or (allowed.endswith("://*") and origin.startswith(allowed[:-1]))
        for allowed in cors.origins
    )


def _origin_headers(cors: Cors, origin: str) -> list[tuple[str, str]]:
    headers = [("access-control-allow-origin", "*" if "*" in cors.origins else origin)]
    if cors.credentials:
        headers.append(("access-control-allow-credentials", "true"))
    if cors.exposed:
        headers.append(("access-control-expose-headers", ",".join(cors.exposed)))
    return headers


class Bucket:
    """Counts requests against a throttle.

    Args:
        throttle: The throttle.
        clock_s: Says what time it is, in seconds.
    """

    def __init__(self, throttle: Throttle, clock_s: Callable[[], float]) -> None:
        self._throttle = throttle
        self._clock_s = clock_s
        self._left = float(throttle.burst)
        self._last_s = clock_s()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Return whether another request is let through, and count it."""
        with self._lock:
            now_s = self._clock_s()
            gained = (now_s - self._last_s) * self._throttle.rate_per_s
            self._left = min(self._throttle.burst, self._left + gained)
            self._last_s = now_s
            if self._left < 1:
                return False
            self._left -= 1
            return True


# --- the server -------------------------------------------------------------------------------------------


class HttpApi:
    """An HTTP API on a port of this machine; several can run side by side.

    Args:
        routes: Its routes.
        invoke: Calls a function by its name.
        port: The port on 127.0.0.1; 0 takes a free one.
        api_id: The API's id, as functions see it.
        cors: Which other origins may call it; None leaves that to the functions.
        throttle: How many requests it takes; None for any number.
        route_throttles: How many requests routes take that do not count for the others, by the route's key.
        timeout_s: The longest that a client waits for a function, in seconds.
        access_log: Gets a line for each request; None for no log.
        observe: Called with each request that was answered, whether there is a log or not.
        clock: Says what time it is, with a time zone.
        clock_s: Says what time it is for the throttle, in seconds.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        invoke: Invoke,
        port: int = 0,
        api_id: str = "local",
        *,
        cors: Cors | None = None,
        throttle: Throttle | None = None,
        route_throttles: Mapping[str, Throttle] = MappingProxyType({}),
        timeout_s: float = INTEGRATION_TIMEOUT_S,
        access_log: AccessLog | None = None,
        observe: Callable[[Access], None] | None = None,
        clock: Now = real_time,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.routes = list(routes)
        self._invoke = invoke
        self._port = port
        self.api_id = api_id
        self._cors = cors
        self._bucket = Bucket(throttle, clock_s) if throttle else None
        self._route_buckets = {key: Bucket(each, clock_s) for key, each in route_throttles.items()}
        self._timeout_s = timeout_s
        self._observers = [each for each in (access_log and access_log.write, observe) if each]
        self.clock = clock
        self._invocations = ThreadPoolExecutor(AT_ONCE, thread_name_prefix=f"api {api_id}")
        self._server: _Server | None = None

    def start(self) -> int:
        """Listen.

        Returns:
            The port.

        Raises:
            OSError: The port is taken.
        """
        try:
            self._server = _Server(("127.0.0.1", self._port), self.answer, self.too_large())
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}: port {self._port} on 127.0.0.1") from error
        threading.Thread(
            target=self._server.serve_forever, args=(STOP_WITHIN_S,), name=f"api {self.api_id}", daemon=True
        ).start()
        return self._server.server_port

    def stop(self) -> None:
        """Close the port and every connection."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server.close_connections()
            self._server = None
        self._invocations.shutdown(wait=False, cancel_futures=True)

    def answer(self, request: Request) -> Response:
        """Answer one request, as the server does.

        Args:
            request: The request.

        Returns:
            The response; never an exception, whatever the function does.
        """
        if self._cors is None:
            return self._answer(request)
        return preflight(self._cors, request) or with_cors(self._cors, request, self._answer(request))

    def _answer(self, request: Request) -> Response:
        found = self.find(request)
        if not self._observers:
            return self.routed(request, found)
        at, began_s = self.clock(), time.perf_counter()
        response = self.routed(request, found)
        access = Access(
            at=at,
            route_key=found[0].key if found else NOTHING,
            method=request.method,
            path=request.target.partition("?")[0],
            protocol=request.protocol,
            source_ip=request.source_ip,
            user_agent=request.header("user-agent") or "",
            host=request.header("host") or "",
            status=response.status,
            response_bytes=len(response.body),
            latency_ms=round((time.perf_counter() - began_s) * 1_000),
        )
        for observe in self._observers:
            try:
                observe(access)
            # A line that cannot be written does not cost the client the answer.
            except Exception:
                logger.exception("access log of %s %s", request.method, request.target)
        return response

    def too_large(self) -> Response:
        """Return the answer to a request of more than `MAX_REQUEST_BYTES`."""
        return TOO_LARGE

    def find(self, request: Request) -> tuple[Route, dict[str, str]] | None:
        """Return the route that a request takes, with the values of its parameters; None if it takes none."""
        return find_route(self.routes, request.method, request.target.partition("?")[0])

    def has_room(self, route: Route) -> bool:
        """Return whether the throttles let another request of a route through, and count it."""
        bucket = self._route_buckets.get(f"{route.method} {route.path}", self._bucket)
        return bucket is None or bucket.take()

    def call(self, route: Route, event: Mapping[str, Any]) -> Result | None:
        """Call a route's function and return its answer; None if the event is too large for it.

        Raises:
            TimeoutError: The answer takes too long.
            ThrottledError: The function runs as often as it may already.
        """
        payload = json.dumps(event).encode()
        if len(payload) > MAX_PAYLOAD_BYTES:
            return None
        timeout_s = self._timeout_s if route.timeout_s is None else route.timeout_s
        return self._invocations.submit(self._invoke, route.function, payload).result(timeout_s)

    def routed(self, request: Request, found: tuple[Route, dict[str, str]] | None) -> Response:
        """Answer a request of a route, or of none."""
        if found is None:
            return NOT_FOUND
        route, parameters = found
        if not self.has_room(route):
            return TOO_MANY_REQUESTS
        now = self.clock()
        try:
            authorizer = cast("Authorizer | None", route.authorizer)
            authorized = authorizer.authorize(request, route.scopes, now) if authorizer else None
            if route.payload == "1.0":
                event = _event_one(request, route, parameters, self.api_id, now, authorized=authorized)
            else:
                event = request_event(request, route, parameters, self.api_id, now, authorized=authorized)
            result = self.call(route, event)
            return TOO_LARGE if result is None else response_of(result, route.payload)
        except RefusedError as refused:
            return refused.response
        except (TimeoutError, ThrottledError) as error:
            logger.warning("%s %s: %r", request.method, request.target, error)
            return SERVICE_UNAVAILABLE
        # The client must get an answer, and the service has one for everything that goes wrong behind it.
        except Exception:
            logger.exception("%s %s", request.method, request.target)
            return INTERNAL_SERVER_ERROR


class _Server(ThreadingHTTPServer):
    def __init__(
        self, address: tuple[str, int], answer: Callable[[Request], Response], too_large: Response
    ) -> None:
        self.answer, self.too_large = answer, too_large
        self._connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        # A client that keeps its connection open would otherwise keep a thread here.
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's
        # socketserver calls this inside its own except.
        logger.debug("connection from %s", client_address, exc_info=True)  # noqa: LOG014


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # the head and the body of a response leave together
    server: _Server

    def do_any(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        if "transfer-encoding" in self.headers:
            self._refuse(LENGTH_REQUIRED)
        elif length > MAX_REQUEST_BYTES:
            self._refuse(self.server.too_large)
        else:
            request = Request(
                method=self.command,
                target=self.path,
                headers=list(self.headers.items()),
                body=self.rfile.read(length),
                source_ip=self.client_address[0],
                protocol=self.request_version,
            )
            self._respond(self.server.answer(request))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_QUERY = do_any  # noqa: N815 - http.server's

    def _refuse(self, response: Response) -> None:
        # The body is not read, so that nothing can follow it.
        self.close_connection = True
        self._respond(response)

    def _respond(self, response: Response) -> None:
        self.send_response_only(response.status)
        for name, value in response.headers:
            # Lengths and connections are the server's own business.
            if name not in {"content-length", "connection", "transfer-encoding"}:
                self.send_header(name, value)
        self.send_header("date", self.date_time_string())
        if self.close_connection:
            self.send_header("connection", "close")
        empty = response.status < HTTPStatus.OK or response.status in _WITHOUT_BODY
        if not empty:
            self.send_header("content-length", str(len(response.body)))
        self.end_headers()
        if not empty and self.command != "HEAD":
            self.wfile.write(response.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Write nothing: the functions have logs."""
