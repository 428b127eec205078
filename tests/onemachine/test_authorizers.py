"""Signed requests as botocore signs them, and tokens as an issuer signs them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from onemachine.authorizers import ApiKeyAuthorizer, IamAuthorizer, JwtAuthorizer, claim_text, read_keys
from onemachine.functions import Result
from onemachine.http_api import HttpApi, Route
from onemachine.http_messages import Request, Response
from onemachine.signatures import Keys

from tests.onemachine.issuer import Issuer, key_set, private_key, text, token

KEYS = Keys({"local": "secret"}, "us-east-1")


class Echo:
    """A function that answers with who called it."""

    def __call__(self, _: str, payload: bytes) -> Result:
        body = json.dumps(json.loads(payload)["requestContext"].get("authorizer"))
        return Result(json.dumps({"statusCode": 200, "body": body}).encode(), None, "id")


def answered(response: Response) -> tuple[int, Any]:
    return response.status, json.loads(response.body)


# --- signed requests --------------------------------------------------------------------------------------


def signed(
    *,
    target: str = "/orders/a%20b?x=1&y=%2F",
    method: str = "POST",
    body: bytes = b'{"a":1}',
    service: str = "execute-api",
    key: str = "local",
    secret: str = "secret",
    region: str = "us-east-1",
    headers: dict[str, str] | None = None,
) -> Request:
    request = AWSRequest(method, f"http://127.0.0.1:8080{target}", headers=headers or {}, data=body)
    SigV4Auth(Credentials(key, secret), service, region).add_auth(request)
    given = [("Host", "127.0.0.1:8080"), ("User-Agent", "x"), *request.headers.items()]
    return Request(method, target, given, body, "127.0.0.1")


@pytest.fixture
def api() -> HttpApi:
    return HttpApi([Route("ANY", "/{proxy+}", "echo", IamAuthorizer(KEYS))], Echo())


# A signature is good for five minutes: signed in the test, not when the tests are collected.
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"method": "GET", "body": b"", "target": "/a"},
        {"target": "/a//b/../c"},
        {"headers": {"X-Own": "  two   words ", "Content-Type": "application/json"}},
    ],
)
def test_a_signed_request_passes_and_names_its_caller(api: HttpApi, parts: dict[str, Any]) -> None:
    status, authorizer = answered(api.answer(signed(**parts)))
    assert status == 200
    assert authorizer["iam"]["accessKey"] == "local"
    assert authorizer["iam"]["accountId"] == "123456789012"


def changed(request: Request, **values: Any) -> Request:
    return Request(**{**request.__dict__, **values})


def without(request: Request, header: str) -> Request:
    return changed(request, headers=[pair for pair in request.headers if pair[0].lower() != header])


def with_another_header() -> Request:
    request = signed(headers={"x-own": "1"})
    headers = [(name, "2" if name.lower() == "x-own" else value) for name, value in request.headers]
    return changed(request, headers=headers)


FORBIDDEN: list[tuple[str, Callable[[], Request]]] = [
    ("not signed", lambda: without(signed(), "authorization")),
    ("another path", lambda: changed(signed(), target="/orders/other")),
    ("another query", lambda: changed(signed(), target="/orders/a%20b?x=2&y=%2F")),
    ("another method", lambda: changed(signed(), method="DELETE")),
    ("another body", lambda: changed(signed(), body=b'{"a":2}')),
    ("another secret", lambda: signed(secret="guess")),
    ("nobody's key", lambda: signed(key="stranger")),
    ("another service", lambda: signed(service="s3")),
    ("another region", lambda: signed(region="eu-west-1")),
    ("without a date", lambda: without(signed(), "x-amz-date")),
    ("another header", with_another_header),
]


@pytest.mark.parametrize("request_", [case[1] for case in FORBIDDEN], ids=[case[0] for case in FORBIDDEN])
def test_what_was_signed_otherwise_is_forbidden(api: HttpApi, request_: Callable[[], Request]) -> None:
    assert answered(api.answer(request_())) == (403, {"message": "Forbidden"})


@pytest.mark.parametrize(("minutes", "status"), [(4, 200), (-4, 200), (6, 403), (-6, 403)])
def test_a_signature_holds_for_five_minutes(minutes: int, status: int) -> None:
    later = datetime.now(UTC) + timedelta(minutes=minutes)
    api = HttpApi([Route("ANY", "/{p+}", "echo", IamAuthorizer(KEYS))], Echo(), clock=lambda: later)
    assert api.answer(signed()).status == status


# --- a key ------------------------------------------------------------------------------------------------


@pytest.fixture
def keyed() -> HttpApi:
    authorizer = ApiKeyAuthorizer("the key", IamAuthorizer(KEYS))
    return HttpApi([Route("ANY", "/{proxy+}", "echo", authorizer)], Echo())


@pytest.mark.parametrize("name", ["x-api-key", "X-Api-Key"])
def test_a_key_stands_for_a_signature(keyed: HttpApi, name: str) -> None:
    status, authorizer = answered(keyed.answer(Request("GET", "/a", [(name, "the key")], b"", "127.0.0.1")))

    assert (status, authorizer["iam"]["userId"]) == (200, "api-key")


@pytest.mark.parametrize(
    "keys",
    [[], [""], ["the ke"], ["the key "], ["The key"], ["é"], ["the key", "the key"], ["the key", "x"]],
)
def test_another_key_or_none_is_forbidden(keyed: HttpApi, keys: list[str]) -> None:
    given = [("x-api-key", key) for key in keys]

    assert answered(keyed.answer(Request("GET", "/a", given, b"", "127.0.0.1"))) == (
        403,
        {"message": "Forbidden"},
    )


def test_who_signs_needs_no_key_and_a_wrong_key_is_not_made_up_for(keyed: HttpApi, api: HttpApi) -> None:
    assert keyed.answer(signed()).status == 200
    wrong = signed(headers={"x-api-key": "wrong"})
    assert (keyed.answer(wrong).status, api.answer(wrong).status) == (403, 200)


# --- tokens -----------------------------------------------------------------------------------------------

ISSUER = "https://issuer.example.com/pool"
NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
CLAIMS = {"iss": ISSUER, "aud": "api", "exp": SECONDS + 60, "nbf": SECONDS, "iat": SECONDS, "sub": "ada"}


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return private_key()


@pytest.fixture(scope="module")
def keys_file(key: RSAPrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "jwks.json"
    path.write_bytes(key_set(key))
    return path


def ask(keys_file: Path, given: str | None, *scopes: str, prefix: str = "Bearer ") -> Response:
    authorizer = JwtAuthorizer(ISSUER, ["api", "other"], lambda: read_keys(str(keys_file)))
    api = HttpApi([Route("GET", "/", "echo", authorizer, scopes)], Echo(), clock=lambda: NOW)
    headers = [] if given is None else [("authorization", prefix + given)]
    return api.answer(Request("GET", "/", headers, b"", "127.0.0.1"))


# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html
ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("the plain one", {}),
    ("one of several audiences", {"aud": ["x", "other"]}),
    ("client_id where there is no aud", {"aud": None, "client_id": "api"}),
    ("no nbf and no iat", {"nbf": None, "iat": None}),
    ("a moment before its end", {"exp": SECONDS + 1}),
]
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("another issuer", {"iss": "https://other"}, "issuer"),
    ("another audience", {"aud": "x"}, "audience"),
    ("aud counts before client_id", {"aud": "x", "client_id": "api"}, "audience"),
    ("no audience", {"aud": None}, "audience"),
    ("expired", {"exp": SECONDS}, "expired"),
    ("without an end", {"exp": None}, "expired"),
    ("an end that is no time", {"exp": "tomorrow"}, "exp is not a time"),
    ("not yet", {"nbf": SECONDS + 1}, "not valid yet"),
    ("issued tomorrow", {"iat": SECONDS + 86_400}, "not valid yet"),
]


def claims_with(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}


@pytest.mark.parametrize("changes", [case[1] for case in ACCEPTED], ids=[case[0] for case in ACCEPTED])
def test_a_valid_token_passes(key: RSAPrivateKey, keys_file: Path, changes: dict[str, Any]) -> None:
    claims = claims_with(changes)
    status, authorizer = answered(ask(keys_file, token(key, claims)))
    assert status == 200
    assert authorizer["jwt"]["scopes"] is None
    assert authorizer["jwt"]["claims"] == {name: claim_text(value) for name, value in claims.items()}


@pytest.mark.parametrize(
    ("changes", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_an_invalid_token_is_unauthorized(
    key: RSAPrivateKey, keys_file: Path, changes: dict[str, Any], reason: str
) -> None:
    response = ask(keys_file, token(key, claims_with(changes)))
    assert answered(response) == (401, {"message": "Unauthorized"})
    challenge = dict(response.headers)["www-authenticate"]
    assert challenge.startswith('Bearer scope="" error="invalid_token" error_description="')
    assert reason in challenge


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512"])
def test_every_rsa_signature_is_read(key: RSAPrivateKey, keys_file: Path, algorithm: str) -> None:
    assert ask(keys_file, token(key, CLAIMS, algorithm)).status == 200
    assert ask(keys_file, token(key, CLAIMS, algorithm), prefix="").status == 200


def test_forged_and_malformed_tokens_are_unauthorized(key: RSAPrivateKey, keys_file: Path) -> None:
    good = token(key, CLAIMS)
    head, claims, signature = good.split(".")
    other = text(json.dumps({**CLAIMS, "sub": "eve"}).encode())
    none = text(b'{"alg":"none","kid":"one"}')
    forged = [
        f"{head}.{other}.{signature}",
        f"{none}.{claims}.",
        token(key, CLAIMS, "HS256"),
        token(key, CLAIMS, kid="two"),
        token(key, [1]),
        token(generate_private_key(65537, 2048), CLAIMS),
        f"{head}.{claims}",
        "not a token",
        "a.b.c",
        f"{good}.more",
    ]
    assert [ask(keys_file, each).status for each in forged] == [401] * len(forged)
    missing = ask(keys_file, None)
    assert (missing.status, dict(missing.headers)["www-authenticate"]) == (401, "Bearer")


SCOPES = [
    ({"scope": "orders/read orders/write"}, ["orders/write"], 200),
    ({"scope": "orders/read"}, ["orders/write", "orders/read"], 200),
    ({"scp": ["orders/write"]}, ["orders/write"], 200),
    ({"scope": "orders/read"}, ["orders/write"], 403),
    ({}, ["orders/write"], 403),
    ({"scope": "orders/write2"}, ["orders/write"], 403),
]


@pytest.mark.parametrize(("changes", "scopes", "status"), SCOPES)
def test_one_of_the_routes_scopes_is_needed(
    key: RSAPrivateKey, keys_file: Path, changes: dict[str, Any], scopes: list[str], status: int
) -> None:
    response = ask(keys_file, token(key, claims_with(changes)), *scopes)
    assert response.status == status
    if status == 403:
        assert json.loads(response.body) == {"message": "Forbidden"}


def test_claims_are_texts() -> None:
    values = ["a", 7, True, ["x", "y"], {"b": None}]
    assert [claim_text(value) for value in values] == ["a", "7", "true", "[x y]", '{"b": null}']


def test_a_token_may_be_in_the_query(key: RSAPrivateKey, keys_file: Path) -> None:
    source = "$request.querystring.token"
    authorizer = JwtAuthorizer(ISSUER, ["api"], lambda: read_keys(str(keys_file)), source)
    request = Request("GET", f"/?token={token(key, CLAIMS)}", [], b"", "127.0.0.1")
    assert "jwt" in authorizer.authorize(request, (), NOW)
    with pytest.raises(ValueError, match="neither a header"):
        JwtAuthorizer(ISSUER, ["api"], dict, "$context.x")


# --- an issuer's keys -------------------------------------------------------------------------------------


@pytest.fixture
def issuer() -> Iterator[str]:
    with Issuer() as issuer:
        yield issuer.url


def test_keys_are_read_from_a_file_an_address_and_an_issuer(issuer: str, keys_file: Path) -> None:
    places = [str(keys_file), f"{issuer}/jwks.json", issuer, f"{issuer}/"]
    assert [list(read_keys(place)) for place in places] == [["one"]] * 4


def test_keys_are_not_fetched_from_other_machines(tmp_path: Path, key: RSAPrivateKey) -> None:
    with pytest.raises(ValueError, match="not on this machine"):
        read_keys("https://issuer.example.com")
    empty = tmp_path / "empty.json"
    empty.write_text("{}")
    with pytest.raises(ValueError, match="not a key set"):
        read_keys(str(empty))
    response = ask(tmp_path / "missing", token(key, CLAIMS))
    assert response.status == 401
    assert "cannot be read" in dict(response.headers)["www-authenticate"]
