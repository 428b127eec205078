"""Who may call an HTTP API: the service's own authorizers, for signed requests and for JSON Web Tokens.

Beside them a key, which HTTP APIs do not have on AWS: it spares who tries them out the signing.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-access-control.html
"""

from __future__ import annotations

import base64
import hmac
import json
import threading
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from onemachine.functions import ACCOUNT_ID
from onemachine.http_api import RefusedError
from onemachine.http_messages import Request, Response, refusal
from onemachine.signatures import Keys, SignatureError, SignedRequest, verify_headers

# API Gateway takes RSA only:
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html
_HASHES: Mapping[str, Callable[[], hashes.HashAlgorithm]] = {
    "RS256": hashes.SHA256,
    "RS384": hashes.SHA384,
    "RS512": hashes.SHA512,
}
_FETCH_TIMEOUT_S = 1.5

API_KEY_HEADER = "x-api-key"

FORBIDDEN = refusal(403, "Forbidden")

PublicKeys = Mapping[str, RSAPublicKey]
"""An issuer's keys by their `kid`."""


# --- signed requests --------------------------------------------------------------------------------------


class IamAuthorizer:
    """Lets through what is signed with Signature Version 4 for `execute-api`; policies are not looked at.

    Args:
        keys: The key pairs.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def authorize(self, request: Request, scopes: Sequence[str], now: datetime) -> Mapping[str, Any]:  # noqa: ARG002 - an Authorizer's
        """Check the signature; see `http_api.Authorizer`."""
        signed = SignedRequest(request.method, request.target, request.headers, request.body)
        try:
            access_key = verify_headers(signed, self._keys, "execute-api", now)
        except SignatureError as error:
            raise RefusedError(FORBIDDEN) from error
        return _iam_caller(access_key)


class ApiKeyAuthorizer:
    """Lets through what has a key in its header `x-api-key`; what has none goes by another authorizer.

    Args:
        key: The key.
        otherwise: The other authorizer.
    """

    def __init__(self, key: str, otherwise: IamAuthorizer) -> None:
        self._key = key.encode()
        self._otherwise = otherwise

    def authorize(self, request: Request, scopes: Sequence[str], now: datetime) -> Mapping[str, Any]:
        """Compare the key; see `http_api.Authorizer`. Functions see a caller as of a signed request."""
        given = [value for name, value in request.headers if name.lower() == API_KEY_HEADER]
        if not given:
            return self._otherwise.authorize(request, scopes, now)
        # In a time that does not show how much of it is right.
        if len(given) > 1 or not hmac.compare_digest(given[0].encode(), self._key):
            raise RefusedError(FORBIDDEN)
        return _iam_caller("api-key")


def _iam_caller(access_key: str) -> Mapping[str, Any]:
    return {
        "iam": {
            "accessKey": access_key,
            "accountId": ACCOUNT_ID,
            "callerId": access_key,
            "cognitoIdentity": None,
            "principalOrgId": None,
            "userArn": f"arn:aws:iam::{ACCOUNT_ID}:user/{access_key}",
            "userId": access_key,
        }
    }


# --- tokens -----------------------------------------------------------------------------------------------


class InvalidTokenError(ValueError):
    """A token that is not let through; the client gets the message."""


class JwtAuthorizer:
    """Lets through who has a token of an issuer for an audience.

    Args:
        issuer: What the token's `iss` has to be.
        audience: What its `aud`, or without one its `client_id`, has to be one of; None for anything.
        read_keys: Gives the issuer's keys; it is called for the first token, and again for an unknown `kid`.
        identity_source: Where the token is: `$request.header.NAME` or `$request.querystring.NAME`.

    Raises:
        ValueError: The identity source is something else.
    """

    def __init__(
        self,
        issuer: str,
        audience: Sequence[str] | None,
        read_keys: Callable[[], PublicKeys],
        identity_source: str = "$request.header.Authorization",
    ) -> None:
        _, _, place = identity_source.partition("$request.")
        self._where, _, self._name = place.partition(".")
        if self._where not in {"header", "querystring"} or not self._name:
            raise ValueError(f"identity source {identity_source!r} is neither a header nor in the query")
        self._issuer = issuer
        self._audience = None if audience is None else tuple(audience)
        self._read_keys = read_keys
        self._keys: PublicKeys = {}
        self._lock = threading.Lock()

    def authorize(self, request: Request, scopes: Sequence[str], now: datetime) -> Mapping[str, Any]:
        """Check the token; see `http_api.Authorizer`."""
        token = self._token(request)
        if not token:
            raise RefusedError(_unauthorized("Bearer"))
        try:
            claims = read_token(token, self._key)
            check_claims(claims, self._issuer, self._audience, now)
        except InvalidTokenError as error:
            challenge = f'Bearer scope="" error="invalid_token" error_description="{error}"'
            raise RefusedError(_unauthorized(challenge)) from error
        allowed = [scope for scope in scopes if scope in token_scopes(claims)]
        if scopes and not allowed:
            challenge = f'Bearer scope="{" ".join(scopes)}" error="insufficient_scope"'
            raise RefusedError(_challenged(FORBIDDEN, challenge))
        texts = {name: claim_text(value) for name, value in claims.items()}
        return {"jwt": {"claims": texts, "scopes": allowed or None}}

    def _token(self, request: Request) -> str:
        if self._where == "header":
            value = request.header(self._name.lower()) or ""
        else:
            value = dict(parse_qsl(request.target.partition("?")[2])).get(self._name, "")
        return value.removeprefix("Bearer ").strip()

    def _key(self, kid: str) -> RSAPublicKey:
        with self._lock:
            if kid not in self._keys:
                try:
                    self._keys = self._read_keys()
                except (OSError, ValueError) as error:
                    raise InvalidTokenError("the issuer's keys cannot be read") from error
            if kid not in self._keys:
                raise InvalidTokenError("unable to find a key with the token's kid")
            return self._keys[kid]


def read_token(token: str, key: Callable[[str], RSAPublicKey]) -> dict[str, Any]:
    """Read a signed token.

    Args:
        token: The three parts of RFC 7519, joined by dots.
        key: Gives the key of a `kid`.

    Returns:
        Its claims.

    Raises:
        InvalidTokenError: It is malformed, or its signature is wrong.
    """
    parts = token.split(".")
    try:
        header, payload, signature = (
            base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts
        )
        head, claims = json.loads(header), json.loads(payload)
        algorithm, kid = head["alg"], head["kid"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidTokenError("the token is malformed") from error
    if not isinstance(claims, dict) or not isinstance(kid, str):
        raise InvalidTokenError("the token is malformed")
    if algorithm not in _HASHES:
        raise InvalidTokenError("signing method is not supported")
    try:
        signed = ".".join(parts[:2]).encode()
        key(kid).verify(signature, signed, PKCS1v15(), _HASHES[algorithm]())
    except InvalidSignature as error:
        raise InvalidTokenError("the token has an invalid signature") from error
    return claims


def check_claims(
    claims: Mapping[str, Any], issuer: str, audience: Sequence[str] | None, now: datetime
) -> None:
    """Check a token's claims about itself.

    Args:
        claims: Its claims.
        issuer: The issuer that it has to be of.
        audience: What it has to be for, one of them; None for anything.
        now: The time.

    Raises:
        InvalidTokenError: It is of or for somebody else, not valid yet or no more.
    """
    if claims.get("iss") != issuer:
        raise InvalidTokenError("the token does not have a valid issuer")
    given = claims["aud"] if "aud" in claims else claims.get("client_id")
    if audience is not None and not set(given if isinstance(given, list) else [given]) & set(audience):
        raise InvalidTokenError("the token does not have a valid audience")
    seconds = now.timestamp()
    if _seconds(claims, "exp") <= seconds:
        raise InvalidTokenError("the token has expired")
    if max(_seconds(claims, name) for name in ("nbf", "iat")) > seconds:
        raise InvalidTokenError("the token is not valid yet")


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidTokenError(f"the token's {name} is not a time")
    return value


def token_scopes(claims: Mapping[str, Any]) -> list[str]:
    """List the scopes of a token, from its claim `scope` or else `scp`.

    Args:
        claims: Its claims.

    Returns:
        The scopes.
    """
    given = claims["scope"] if "scope" in claims else claims.get("scp", "")
    return [str(scope) for scope in given] if isinstance(given, list) else str(given).split()


def claim_text(value: Any) -> str:
    """Write a claim as events have it: all are texts, and lists are in brackets, parted by spaces."""
    if isinstance(value, list):
        return f"[{' '.join(claim_text(each) for each in value)}]"
    return value if isinstance(value, str) else json.dumps(value)


def _unauthorized(challenge: str) -> Response:
    return _challenged(refusal(401, "Unauthorized"), challenge)


def _challenged(response: Response, challenge: str) -> Response:
    return replace(response, headers=[*response.headers, ("www-authenticate", challenge)])


# --- an issuer's keys -------------------------------------------------------------------------------------


def read_keys(place: str) -> PublicKeys:
    """Read an issuer's keys.

    Args:
        place: A file, or an address on this machine, of a JSON Web Key Set, or of an issuer, which has
            its keys at the address in its `/.well-known/openid-configuration`.

    Returns:
        Its RSA keys.

    Raises:
        OSError: It cannot be read.
        ValueError: The address is on another machine, or does not have a key set.
    """
    if urlsplit(place).scheme in {"http", "https"}:
        document = _fetch(place) if place.endswith(".json") else None
        if document is None:
            document = _fetch(_fetch(place.rstrip("/") + "/.well-known/openid-configuration")["jwks_uri"])
    else:
        document = json.loads(Path(place).read_text(encoding="utf-8"))
    if "keys" not in document:
        raise ValueError(f"{place} is not a key set: it has no keys")
    return {
        key["kid"]: RSAPublicNumbers(_integer(key["e"]), _integer(key["n"])).public_key()
        for key in document["keys"]
        if key.get("kty") == "RSA" and "kid" in key
    }


def _fetch(url: str) -> Any:
    if urlsplit(url).hostname not in {"127.0.0.1", "localhost", "::1"}:
        raise ValueError(f"{url} is not on this machine: give the issuer's keys as a file")
    with urllib.request.urlopen(url, timeout=_FETCH_TIMEOUT_S) as response:  # noqa: S310 - an address of this machine
        return json.load(response)


def _integer(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")
