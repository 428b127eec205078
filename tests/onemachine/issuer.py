"""An issuer of JSON Web Tokens on this machine: it signs them, and shows its keys where OpenID issuers do."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "RS256": hashes.SHA256,
    "RS384": hashes.SHA384,
    "RS512": hashes.SHA512,
}


@cache
def private_key() -> RSAPrivateKey:
    """Return the issuer's key: one for all tests, since it takes long to make."""
    return generate_private_key(65537, 2048)


def text(data: bytes) -> str:
    """Return bytes as tokens and key sets write them."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int) -> str:
    """Return a number as key sets write it."""
    return text(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def token(key: RSAPrivateKey, claims: Any, algorithm: str = "RS256", kid: str = "one") -> str:
    """Return a token, signed."""
    head = text(json.dumps({"alg": algorithm, "kid": kid}).encode())
    part = f"{head}.{text(json.dumps(claims).encode())}"
    return f"{part}.{text(key.sign(part.encode(), PKCS1v15(), HASHES.get(algorithm, hashes.SHA256)()))}"


def key_set(key: RSAPrivateKey) -> bytes:
    """Return the JSON Web Key Set of a key, which has one of another type beside it."""
    public = key.public_key().public_numbers()
    own = {"kty": "RSA", "kid": "one", "alg": "RS256", "n": number(public.n), "e": number(public.e)}
    return json.dumps({"keys": [{"kty": "EC", "kid": "other"}, own]}).encode()


class Issuer:
    """An issuer, from the start of the `with` block to its end.

    Attributes:
        url: Its address.
    """

    def __enter__(self) -> Self:
        """Begin to show the keys."""
        keys = key_set(private_key())

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = keys
                if self.path.endswith("/.well-known/openid-configuration"):
                    body = json.dumps({"jwks_uri": f"http://{self.headers['host']}/keys"}).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
