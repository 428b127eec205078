"""Who is to be forgotten: clients by keyed hashes, so that nothing here says who they are. Pure.

The store cannot delete rows; until it has dropped them by itself, each export leaves these clients' rows out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache

from consumers.documents import load, stamped
from exporter.lake.manifest import STATE

_VERSION = 1
KEY = f"{STATE}forgotten.json"
HASH_BYTES = 16
CLIENT = "client"


def clients_of(client: str | None, said: str | None) -> tuple[str, ...]:
    """Return by which names a row is a client's.

    Args:
        client: What the row's column says; a schema may let it say `other`.
        said: The row's `_said`: what the record said in the place of that.
    """
    whole = None
    if said is not None and f'"{CLIENT}"' in said:
        with suppress(ValueError):  # it was cut
            whole = json.loads(said).get(CLIENT)
    return tuple(name for name in (client, whole) if name is not None)


# How many clients are cached by `is_forgotten_by`.
_CLIENTS = 10_000


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Who is to be forgotten.

    Attributes:
        key: What hashes are made with, in hex; of this lake alone, so that hashes of two lakes say nothing.
        clients: Their hashes, in hex.
    """

    key: str
    clients: frozenset[str] = frozenset()

    def hash_of(self, client: str) -> str:
        """Return a client's hash."""
        key = bytes.fromhex(self.key)
        return hashlib.blake2b(client.encode(), digest_size=HASH_BYTES, key=key).hexdigest()

    def __contains__(self, client: str) -> bool:
        """Tell whether a client is among them."""
        return self.hash_of(client) in self.clients

    def has_any(self, clients: Iterable[str]) -> bool:
        """Tell whether one of these is among them."""
        return any(client in self for client in clients)

    def having(self, client: str) -> Forgotten:
        """Return the same with a client more."""
        return replace(self, clients=self.clients | {self.hash_of(client)})

    @property
    def digest(self) -> str:
        """What changes with who is among them."""
        return hashlib.blake2b(self.to_json(), digest_size=8).hexdigest()

    def to_json(self) -> bytes:
        """Return the document that is kept."""
        document = stamped({"key": self.key, "clients": sorted(self.clients)}, _VERSION)
        return json.dumps(document, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, document: bytes) -> Forgotten:
        """Return the clients in a document.

        Raises:
            NewerDocumentError: If a newer Tagline wrote the document.
        """
        read = load(document, _VERSION, KEY)
        return cls(read["key"], frozenset(read["clients"]))


def is_forgotten_by(forgotten: Forgotten) -> Callable[[str | None, str | None], bool]:
    """Return what tells whether a row's client is forgotten: it hashes each client once, not for each row.

    Args:
        forgotten: The clients. The result takes the arguments of `clients_of`.
    """

    @lru_cache(_CLIENTS)
    def is_forgotten(client: str | None, said: str | None) -> bool:
        return forgotten.has_any(clients_of(client, said))

    return is_forgotten
