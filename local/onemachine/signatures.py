"""AWS Signature Version 4 of a request, checked with the signer that makes it: botocore's.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from botocore.auth import SIGV4_TIMESTAMP, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

ALGORITHM = "AWS4-HMAC-SHA256"
# https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
MAX_EXPIRES_S = 604_800
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html
MAX_SKEW = timedelta(minutes=5)
MAX_S3_SKEW = timedelta(minutes=15)

_QUERY_NAMES = ("Algorithm", "Credential", "Signature", "Date", "SignedHeaders", "Expires")


@dataclass(frozen=True)
class SignedRequest:
    """A request as it came over the wire.

    Attributes:
        method: For instance `GET`.
        target: Its path and query, percent-encoded as the client wrote them.
        headers: Its headers.
        body: Its body.
    """

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes = b""


@dataclass(frozen=True)
class Keys:
    """The key pairs that signatures are checked with.

    Attributes:
        secrets: The secret access key by access key id.
        region: The region that a signature has to be for.
    """

    secrets: Mapping[str, str]
    region: str


class SignatureError(Exception):
    """A request is not signed, or not as it should be.

    Attributes:
        code: The service's word for it, for instance `SignatureDoesNotMatch`.
        status: The HTTP status that S3 answers with it.
        more: Further elements of the service's answer, by name.
    """

    def __init__(
        self, code: str, message: str, status: int = 403, more: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.more = dict(more or {})


def verify_headers(request: SignedRequest, keys: Keys, service: str, now: datetime) -> str:
    """Check the signature in the Authorization header.

    Args:
        request: The request.
        keys: The key pairs.
        service: The service that it has to be for, for instance `execute-api`.
        now: The time, with a time zone.

    Returns:
        The access key id.

    Raises:
        SignatureError: The signature is missing, wrong, too old, or for something else.
    """
    headers = {name.lower(): value for name, value in request.headers}
    match = re.fullmatch(
        rf"{ALGORITHM}\s+Credential=(?P<credential>[^,\s]+),\s*SignedHeaders=(?P<names>[^,\s]+),"
        r"\s*Signature=(?P<signature>[0-9a-f]{64})",
        headers.get("authorization", ""),
    )
    if match is None:
        raise SignatureError("MissingAuthenticationToken", "Missing Authentication Token")
    stamp = headers.get("x-amz-date", "")
    signed_at = _time(stamp)
    if signed_at is None or abs(now - signed_at) > MAX_SKEW:
        raise SignatureError("InvalidSignatureException", f"Signature expired: {stamp!r} is not near {now}")
    access_key, secret = _credential(match["credential"], keys, service, stamp)
    claimed = headers.get("x-amz-content-sha256")
    if claimed is not None and claimed != hashlib.sha256(request.body).hexdigest():
        raise SignatureError("InvalidSignatureException", "X-Amz-Content-SHA256 is not that of the body")
    names = match["names"].split(";")
    signer = SigV4Auth(Credentials(access_key, secret), service, keys.region)
    _compare(signer, _signed_part(request, names, request.target, stamp), match["signature"])
    return access_key


def is_presigned(target: str) -> bool:
    """Say whether a request carries a signature in its query, of Version 4 or of Version 2."""
    names = {name for name, _ in parse_qsl(target.partition("?")[2], keep_blank_values=True)}
    return bool(
        names & {"X-Amz-Signature", "X-Amz-Algorithm", "X-Amz-Credential", "Signature", "AWSAccessKeyId"}
    )


def verify_presigned(request: SignedRequest, keys: Keys, now: datetime) -> str:
    """Check the signature in the query of a request to S3.

    Args:
        request: The request.
        keys: The key pairs.
        now: The time, with a time zone.

    Returns:
        The access key id.

    Raises:
        SignatureError: As S3 refuses the request:
            https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    """
    path, _, query = request.target.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    if "X-Amz-Algorithm" not in given and "Signature" in given:
        # Buckets that were made after June 2020 take no Signature Version 2.
        raise SignatureError(
            "InvalidRequest",
            f"The authorization mechanism you have provided is not supported. Please use {ALGORITHM}.",
            400,
        )
    values = {name: given.get(f"X-Amz-{name}", "") for name in _QUERY_NAMES}
    stamp = values["Date"]
    signed_at = _time(stamp)
    if not all(values.values()) or signed_at is None or values["Algorithm"] != ALGORITHM:
        names = ", ".join(f"X-Amz-{name}" for name in _QUERY_NAMES)
        raise _query_error(f"Query-string authentication version 4 requires the {names} parameters.")
    if not values["Expires"].isdecimal():
        raise _query_error("X-Amz-Expires should be a number")
    if int(values["Expires"]) > MAX_EXPIRES_S:
        raise _query_error(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be"
            f" less than {MAX_EXPIRES_S} seconds"
        )
    access_key, secret = _credential(values["Credential"], keys, "s3", stamp)
    if signed_at - now > MAX_S3_SKEW:
        raise SignatureError("AccessDenied", "Request is not valid yet")
    expires = signed_at + timedelta(seconds=int(values["Expires"]))
    if now > expires:
        raise SignatureError(
            "AccessDenied",
            "Request has expired",
            more={"X-Amz-Expires": values["Expires"], "Expires": _utc(expires), "ServerTime": _utc(now)},
        )
    unsigned = "&".join(part for part in query.split("&") if not part.startswith("X-Amz-Signature="))
    signer = S3SigV4QueryAuth(Credentials(access_key, secret), "s3", keys.region)
    part = _signed_part(request, values["SignedHeaders"].split(";"), f"{path}?{unsigned}", stamp)
    _compare(signer, part, values["Signature"])
    return access_key


def _query_error(message: str) -> SignatureError:
    return SignatureError("AuthorizationQueryParametersError", message, 400)


def _credential(text: str, keys: Keys, service: str, stamp: str) -> tuple[str, str]:
    access_key, *scope = text.rsplit("/", 4)
    if scope != [stamp[:8], keys.region, service, "aws4_request"]:
        wanted = "/".join((stamp[:8], keys.region, service, "aws4_request"))
        raise SignatureError(
            "AuthorizationQueryParametersError" if service == "s3" else "InvalidSignatureException",
            f"Error parsing the X-Amz-Credential parameter; the scope {'/'.join(scope)!r} is wrong;"
            f" expecting {wanted!r}",
            400,
        )
    if access_key not in keys.secrets:
        raise SignatureError(
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
            more={"AWSAccessKeyId": access_key},
        )
    return access_key, keys.secrets[access_key]


def _signed_part(request: SignedRequest, names: Sequence[str], target: str, stamp: str) -> AWSRequest:
    """Return the request as its signer saw it: the headers that it names, and nothing else."""
    headers = {name.lower(): value for name, value in request.headers}
    signed = {name: headers.get(name, "") for name in names}
    part = AWSRequest(
        request.method, f"http://{headers.get('host', '')}{target}", headers=signed, data=request.body
    )
    part.context["timestamp"] = stamp
    return part


def _compare(signer: Any, part: AWSRequest, signature: str) -> None:
    if "host" not in part.headers:
        raise SignatureError(
            "AccessDenied", "There were headers present in the request which were not signed"
        )
    canonical = signer.canonical_request(part)
    to_sign = signer.string_to_sign(part, canonical)
    if not hmac.compare_digest(signer.signature(to_sign, part), signature):
        raise SignatureError(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided."
            " Check your key and signing method.",
            more={
                "AWSAccessKeyId": signer.credentials.access_key,
                "StringToSign": to_sign,
                "SignatureProvided": signature,
                "CanonicalRequest": canonical,
            },
        )


def _time(stamp: str) -> datetime | None:
    try:
        return datetime.strptime(stamp, SIGV4_TIMESTAMP).replace(tzinfo=UTC)
    except ValueError:
        return None


def _utc(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
