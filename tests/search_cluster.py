"""Elasticsearch or OpenSearch in memory, over HTTP, as strict as their documentation.

It has what the pipeline and its operators use: `_bulk`, index templates, lifecycle policies, documents by id,
counts, and searches of a term.
https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk
https://docs.opensearch.org/latest/api-reference/document-apis/bulk/
"""

import fnmatch
import json
import re
import threading
from collections import Counter, deque
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

Product = Literal["elasticsearch", "opensearch"]
Answer = tuple[int, Any]

ACTIONS = {"create", "index", "delete", "update"}
METADATA = {
    *("_index", "_id", "_source", "routing", "version", "version_type", "if_seq_no", "if_primary_term"),
    *("retry_on_conflict", "pipeline", "dynamic_templates", "require_alias", "require_data_stream"),
}
MAX_ID_BYTES, MAX_INDEX_BYTES, MAX_TERM_BYTES, MAX_DEPTH = 512, 255, 32_766, 20
# https://docs.opensearch.org/latest/mappings/supported-field-types/flat-object/
MAX_FLAT_BYTES = 2**24 - 1
LONG: Final = range(-(2**63), 2**63)
FLAT: Final = {"elasticsearch": "flattened", "opensearch": "flat_object"}
MAPPINGS: Final = {"keyword": {"ignore_above"}, "text": set(), "long": set(), "date": set(), "boolean": set()}


class RefusedError(Exception):
    """An error of the API.

    Args:
        status: The HTTP status.
        type_: The error's type.
        reason: Its reason.
    """

    def __init__(self, status: int, type_: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.error = {"type": type_, "reason": reason}

    def answer(self) -> Answer:
        return self.status, {"error": {"root_cause": [self.error], **self.error}, "status": self.status}


class Cluster:
    """A cluster with one node.

    Args:
        product: Which of the two it is.
        max_bytes: The largest request: `http.max_content_length`.

    Attributes:
        indices: The documents of each index, by their ids.
        authorizations: The headers `Authorization` that it takes.
        answers: The statuses of the next answers to `_bulk`; what comes after them is as it should be.
        faults: The next errors of a document, by its record's id.
        bulks: How many documents each request to `_bulk` had.
    """

    def __init__(self, product: Product, max_bytes: int = 100 * 1024 * 1024) -> None:
        self.product: Product = product
        self.max_bytes = max_bytes
        self.indices: dict[str, dict[str, dict[str, Any]]] = {}
        self.authorizations = {"ApiKey secret"}
        self.answers: deque[int] = deque()
        self.faults: dict[str, deque[RefusedError]] = {}
        self.bulks: list[int] = []
        self.templates: dict[str, dict[str, Any]] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer in one piece: in two, the second waits for the first's acknowledgement

            def do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, answered = cluster.respond(self.command, urlsplit(self.path).path, headers, body)
                text = b"" if answered is None else json.dumps(answered).encode()
                self.send_response(status)
                accepted = headers.get("accept", "")
                is_versioned = "vnd.elasticsearch" in accepted
                self.send_header(
                    "Content-Type", accepted.split(",")[0] if is_versioned else "application/json"
                )
                if cluster.product == "elasticsearch":
                    self.send_header("X-Elastic-Product", "Elasticsearch")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else text)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def documents(self) -> dict[str, dict[str, Any]]:
        """Return all documents by their records' ids."""
        return {source["event"]["id"]: source for index in self.indices.values() for source in index.values()}

    def respond(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Answer a request."""
        parts = [unquote(part) for part in path.strip("/").split("/") if part]
        with self._lock:
            try:
                if len(body) > self.max_bytes:
                    return 413, None
                self._check_headers(headers, parts, body)
                return self._route(method, parts, body)
            except RefusedError as error:
                return error.answer()

    def _check_headers(self, headers: dict[str, str], parts: list[str], body: bytes) -> None:
        if headers.get("authorization") not in self.authorizations:
            raise RefusedError(401, "security_exception", "unable to authenticate")
        given = headers.get("content-type", "").split(";")[0].strip()
        lines = {"application/x-ndjson", "application/vnd.elasticsearch+x-ndjson"}
        taken = {"application/json", "application/vnd.elasticsearch+json"}
        if body and given not in (taken | lines if parts[-1:] == ["_bulk"] else taken):
            raise RefusedError(
                406, "media_type_header_exception", f"Content-Type header [{given}] is not supported"
            )

    def _route(self, method: str, parts: list[str], body: bytes) -> Answer:
        lifecycle = (
            ["_ilm", "policy"] if self.product == "elasticsearch" else ["_plugins", "_ism", "policies"]
        )
        match method, parts:
            case "GET" | "HEAD", []:
                return 200, {"version": {"number": "9.1.0" if self.product == "elasticsearch" else "2.19.0"}}
            case "POST" | "PUT", ["_bulk"] | [_, "_bulk"]:
                return self._bulk(body, parts[0] if len(parts) > 1 else None)
            case "PUT", ["_index_template", name]:
                self.templates[name] = checked_template(read_object(body), FLAT[self.product])
                return 200, {"acknowledged": True}
            case "GET", ["_index_template", name]:
                if name not in self.templates:
                    raise RefusedError(404, "resource_not_found_exception", f"no template [{name}]")
                found_template = {"name": name, "index_template": self.templates[name]}
                return 200, {"index_templates": [found_template]}
            case "PUT", [*folder, name] if folder == lifecycle:
                check = checked_ilm if self.product == "elasticsearch" else checked_ism
                self.policies[name] = check(read_object(body))
                return 200, {"acknowledged": True} if self.product == "elasticsearch" else {"_id": name}
            case "GET", [index, "_doc", identity]:
                found = self.indices.get(index, {}).get(identity)
                answer = {"_index": index, "_id": identity, "found": found is not None}
                return (404, answer) if found is None else (200, {**answer, "_source": found})
            case "GET" | "POST", [pattern, "_count" | "_search" as operation]:
                hits = [
                    {"_index": index, "_id": identity, "_source": source}
                    for index, documents in self.indices.items()
                    if fnmatch.fnmatch(index, pattern)
                    for identity, source in documents.items()
                    if matches(
                        source,
                        read_object(body).get("query", {"match_all": {}}) if body else {"match_all": {}},
                    )
                ]
                total = {"value": len(hits), "relation": "eq"}
                return 200, {"count": len(hits)} if operation == "_count" else {
                    "hits": {"total": total, "hits": hits}
                }
        raise RefusedError(405, "illegal_argument_exception", f"no handler for [{method} /{'/'.join(parts)}]")

    def _bulk(self, body: bytes, default_index: str | None) -> Answer:
        if self.answers and (status := self.answers.popleft()) != 200:
            raise RefusedError(status, "es_rejected_execution_exception", "as told")
        operations = list(read_operations(body, default_index))
        self.bulks.append(len(operations))
        items = [{action: self._execute(action, *operation)} for action, *operation in operations]
        failed = any("error" in result for item in items for result in item.values())
        return 200, {"took": 1, "errors": failed, "items": items}

    def _execute(self, action: str, index: str, identity: str, source: str) -> dict[str, Any]:
        named = {"_index": index, "_id": identity}
        try:
            self._check_operation(action, index, identity)
            document = self._parsed(index, identity, source)
            if errors := self.faults.get(document.get("event", {}).get("id", "")):
                raise errors.popleft()
        except RefusedError as error:
            return {**named, "status": error.status, "error": error.error}
        self.indices.setdefault(index, {})[identity] = document
        return {**named, "_version": 1, "result": "created", "status": 201}

    def _check_operation(self, action: str, index: str, identity: str) -> None:
        check_index_name(index)
        if action not in {"create", "index"}:
            raise RefusedError(400, "illegal_argument_exception", "only create and index are simulated")
        if action == "create" and identity in self.indices.get(index, {}):
            reason = f"[{identity}]: version conflict, document already exists (current version [1])"
            raise RefusedError(409, "version_conflict_engine_exception", reason)

    def _parsed(self, index: str, identity: str, source: str) -> dict[str, Any]:
        """Return a document that fits the mappings of its index."""
        type_ = (
            "document_parsing_exception" if self.product == "elasticsearch" else "mapper_parsing_exception"
        )
        try:
            document = json.loads(source, parse_constant=fail_at_constant)
            source.encode()
            if not isinstance(document, dict):
                raise ValueError("not an object")  # noqa: TRY301, TRY004 - one way out
            fitting = [
                template
                for template in self.templates.values()
                if any(fnmatch.fnmatch(index, pattern) for pattern in template["index_patterns"])
            ]
            if fitting:
                best = max(fitting, key=lambda template: int(template.get("priority", 0)))
                check_object(document, best["template"]["mappings"], "")
        except ValueError as error:
            raise RefusedError(400, type_, f"[1:1] {error} in document with id '{identity}'") from None
        return document


def read_object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError as error:
        raise RefusedError(400, "parse_exception", str(error)) from None
    if not isinstance(found, dict):
        raise RefusedError(400, "parse_exception", "not an object")
    return found


def fail_at_constant(name: str) -> None:
    raise ValueError(f"Non-standard token '{name}'")


def read_operations(body: bytes, default_index: str | None) -> Any:
    """Yield action, index, id and source of each operation.

    Raises:
        RefusedError: If one is malformed: then none is carried out.
    """
    if not body:
        raise RefusedError(400, "parse_exception", "request body is required")
    if not body.endswith(b"\n"):
        reason = "The bulk request must be terminated by a newline [\\n]"
        raise RefusedError(400, "illegal_argument_exception", reason)
    lines = iter(enumerate(body.decode().removesuffix("\n").split("\n"), 1))
    for number, line in lines:
        place = f"ction/metadata line [{number}]"
        found = read_object(line.encode())
        action, metadata = next(iter(found.items()), ("", None))
        if len(found) != 1 or action not in ACTIONS or not isinstance(metadata, dict):
            expected = "[create], [delete], [index] or [update]"
            reason = f"Malformed a{place}, expected field {expected} but found [{action}]"
            raise RefusedError(400, "illegal_argument_exception", reason)
        if unknown := metadata.keys() - METADATA:
            reason = f"A{place} contains an unknown parameter [{min(unknown)}]"
            raise RefusedError(400, "illegal_argument_exception", reason)
        index, identity = metadata.get("_index", default_index), metadata.get("_id")
        if not index or not identity:
            raise RefusedError(
                400, "action_request_validation_exception", "Validation Failed: 1: index is missing;"
            )
        if (size := len(identity.encode())) > MAX_ID_BYTES:
            reason = (
                f"id [{identity}] is too long, must be no longer than {MAX_ID_BYTES} bytes but was: {size}"
            )
            raise RefusedError(400, "action_request_validation_exception", reason)
        yield action, index, identity, "" if action == "delete" else next(lines, (0, ""))[1]


def check_index_name(name: str) -> None:
    """Check a name: https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-indices-create ."""
    if (
        name != name.lower()
        or re.search(r'[\\/*?"<>| ,#:]', name)
        or name.startswith(("-", "_", "+"))
        or len(name.encode()) > MAX_INDEX_BYTES
    ):
        raise RefusedError(400, "invalid_index_name_exception", f"Invalid index name [{name}]")


def check_object(value: Any, mapping: dict[str, Any], path: str) -> None:
    """Check a value against the mapping of its field.

    Raises:
        ValueError: If it does not fit.
    """
    if "properties" in mapping:
        if not isinstance(value, dict):
            raise ValueError(
                f"object mapping for [{path}] tried to parse field [{path}] as object, but found a value"
            )
        for name, inner in value.items():
            if name in mapping["properties"]:
                check_object(inner, mapping["properties"][name], f"{path}.{name}".strip("."))
            elif mapping.get("dynamic") == "strict":
                raise ValueError(f"mapping set to strict, dynamic introduction of [{name}] within [{path}]")
    elif not fits(value, mapping):
        raise ValueError(f"failed to parse field [{path}] of type [{mapping['type']}]")


def fits(value: Any, mapping: dict[str, Any]) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match mapping["type"]:
        case "long":
            return is_number and int(value) in LONG
        case "boolean":
            return isinstance(value, bool) or value in {"true", "false", ""}
        case "date":
            return isinstance(value, str) and bool(datetime.fromisoformat(value))
        case "keyword":
            is_short = len(str(value).encode()) <= MAX_TERM_BYTES or "ignore_above" in mapping
            return is_short and not isinstance(value, dict)
        case "text":
            return not isinstance(value, dict)
    return isinstance(value, dict) and fits_flat(value, mapping, 1)


def fits_flat(value: Any, mapping: dict[str, Any], depth: int) -> bool:
    if isinstance(value, dict):
        names = all(name and "\0" not in name for name in value)
        return (
            names
            and depth <= MAX_DEPTH
            and all(fits_flat(inner, mapping, depth + 1) for inner in value.values())
        )
    if isinstance(value, list):
        return all(fits_flat(inner, mapping, depth) for inner in value)
    return "ignore_above" in mapping or len(json.dumps(value)) <= MAX_FLAT_BYTES


def only(found: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return an object that has no other keys.

    Raises:
        RefusedError: If it has.
    """
    if unknown := found.keys() - set(names):
        raise RefusedError(400, "x_content_parse_exception", f"[1:1] unknown field [{min(unknown)}]")
    return found


def checked_template(found: dict[str, Any], flat: str) -> dict[str, Any]:
    names = ("index_patterns", "template", "priority", "version", "_meta", "composed_of", "data_stream")
    only(found, *names, "allow_auto_create", "ignore_missing_component_templates", "deprecated")
    only(found["template"], "settings", "mappings", "aliases")
    only(found["template"]["mappings"], "dynamic", "properties")

    def check(properties: dict[str, Any]) -> None:
        for mapping in properties.values():
            if "properties" in mapping:
                check(only(mapping, "properties", "dynamic")["properties"])
                continue
            known = {**MAPPINGS, flat: {"ignore_above"} if flat == "flattened" else set()}
            if mapping["type"] not in known:
                reason = f"No handler for type [{mapping['type']}]"
                raise RefusedError(400, "mapper_parsing_exception", reason)
            only(mapping, "type", *known[mapping["type"]])

    check(found["template"]["mappings"]["properties"])
    return found


def checked_ilm(found: dict[str, Any]) -> dict[str, Any]:
    """Return a policy as https://www.elastic.co/docs/api/doc/elasticsearch/ (ilm-put-lifecycle) has it."""
    phases = only(only(found, "policy")["policy"], "phases", "_meta", "deprecated")["phases"]
    for phase in only(phases, "hot", "warm", "cold", "frozen", "delete").values():
        check_age(only(phase, "min_age", "actions").get("min_age", "0ms"))
        actions = (
            "delete",
            "wait_for_snapshot",
            "rollover",
            "set_priority",
            "forcemerge",
            "readonly",
            "shrink",
        )
        only(phase["actions"], *actions)
    return found


def checked_ism(found: dict[str, Any]) -> dict[str, Any]:
    """Return a policy as https://docs.opensearch.org/latest/im-plugin/ism/policies/ has it."""
    names = ("description", "default_state", "states", "ism_template", "error_notification")
    policy = only(only(found, "policy")["policy"], *names)
    states = Counter(state["name"] for state in policy["states"])
    targets = [policy["default_state"]]
    for state in policy["states"]:
        only(state, "name", "actions", "transitions")
        for action in state["actions"]:
            only(action, "delete", "rollover", "read_only", "force_merge", "retry", "timeout")
        for transition in state["transitions"]:
            targets.append(only(transition, "state_name", "conditions")["state_name"])
            conditions = only(transition["conditions"], "min_index_age", "min_doc_count", "min_size", "cron")
            check_age(conditions.get("min_index_age", "0ms"))
    if set(targets) - set(states) or max(states.values()) > 1:
        raise RefusedError(400, "illegal_argument_exception", f"no state for one of {targets}")
    for template in policy.get("ism_template", []):
        only(template, "index_patterns", "priority")
    return found


def check_age(age: str) -> None:
    if not re.fullmatch(r"\d+(d|h|m|s|ms)", age):
        raise RefusedError(400, "illegal_argument_exception", f"failed to parse [{age}]")


def matches(source: dict[str, Any], query: dict[str, Any]) -> bool:
    """Tell whether a document is found by `match_all` or a `term`."""
    ((kind, body),) = query.items()
    if kind == "match_all":
        return True
    if kind != "term":
        raise RefusedError(400, "parsing_exception", f"unknown query [{kind}]")
    ((path, wanted),) = body.items()
    found: Any = source
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return bool(found == (wanted["value"] if isinstance(wanted, dict) else wanted))
