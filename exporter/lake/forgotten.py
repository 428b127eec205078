"""Who is to be forgotten: clients by keyed hashes, so that nothing here names them. Pure.

The store cannot delete rows; until it has dropped them, each export leaves these clients' rows out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache

from consumers.documents import VERSION, load, stamped
from consumers.errors import TaglineError
from exporter.lake.manifest import STATE

# Version 1 had no times. Until version 2, the document contained the key of its hashes.
_VERSION = 3
KEY = f"{STATE}forgotten.json"
HASH_BYTES = 16
CLIENT = "client"


def clients_of(client: str | None, said: str | None) -> tuple[str, ...]:
    """Return by which names a row is a client's.

    Args:
        client: The value of the row's column; a schema may make it `other`.
        said: The row's `_said`: what the record said in the place of that.
    """
    whole = None
    if said is not None and f'"{CLIENT}"' in said:
        with suppress(ValueError):  # it was cut
            whole = json.loads(said).get(CLIENT)
    return tuple(name for name in (client, whole) if name is not None)


# How many clients are cached by `forgotten_until`.
_CLIENTS = 10_000
# In nanoseconds since 1970: later than any row.
EVER = 2**63 - 1
_KEY_INSIDE = 2
# The document has the hash of this, so that a wrong key is noticed. Names are hashed twice, this once.
_CHECKED = "key"


class WrongKeyError(TaglineError, ValueError):
    """The list of forgotten clients was written with another key; the message tells what to do."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Who is to be forgotten, and up to when.

    Attributes:
        key: What hashes are made with. It is not in the document, so a reader of it cannot try names.
        clients: When each was erased, by their hashes in hex: later rows are kept. None for an entry of an
            earlier release, which is for rows of any time.
        salt: What clients are hashed with first, in hex: the key of an earlier release, which is in the
            document. So its entries, hashed once more, are like all others.
    """

    key: bytes = field(repr=False)
    clients: Mapping[str, datetime | None] = field(default_factory=dict)
    salt: str = ""

    def hash_of(self, client: str) -> str:
        """Return a client's hash."""
        return _hash(self.key, _hash(bytes.fromhex(self.salt), client))

    def until(self, client: str) -> int:
        """Return the time of a client's last row to be forgotten, in nanoseconds since 1970; 0 for no row."""
        client_hash = self.hash_of(client)
        if client_hash not in self.clients:
            return 0
        erased = self.clients[client_hash]
        return EVER if erased is None else _nanoseconds(erased)

    def having(self, client: str, erased: datetime) -> Forgotten:
        """Return the same with a client that is erased at a time, or again."""
        client_hash = self.hash_of(client)
        known = self.clients.get(client_hash)
        return replace(
            self, clients={**self.clients, client_hash: erased if known is None else max(known, erased)}
        )

    def without(self, client: str) -> Forgotten:
        """Return the same without a client."""
        client_hash = self.hash_of(client)
        return replace(self, clients={each: at for each, at in self.clients.items() if each != client_hash})

    def since(self, oldest: datetime, now: datetime) -> Forgotten:
        """Return the same without the clients that were erased before a time.

        Args:
            oldest: The time.
            now: From now on, entries of an earlier release have this as the time of their erasure.
        """
        dated = {each: at or now for each, at in self.clients.items()}
        return replace(self, clients={each: at for each, at in dated.items() if at >= oldest})

    @property
    def digest(self) -> str:
        """What changes with who is among them."""
        return hashlib.blake2b(self.to_json(), digest_size=8).hexdigest()

    def to_json(self) -> bytes:
        """Return the document that is kept."""
        clients = [
            {"client_hash": each, "erased": at and at.isoformat()}
            for each, at in sorted(self.clients.items())
        ]
        document = stamped(
            {"salt": self.salt, "key_check": _hash(self.key, _CHECKED), "clients": clients}, _VERSION
        )
        return json.dumps(document, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, document: bytes, key: bytes) -> Forgotten:
        """Return the clients in a document; version 1 was a list of hashes.

        Args:
            document: The document.
            key: The key.

        Raises:
            NewerDocumentError: If a newer Tagline wrote the document.
            WrongKeyError: If the document was written with another key.
        """
        read = load(document, _VERSION, KEY)
        clients: dict[str, datetime | None] = {}
        for each in read["clients"]:
            if isinstance(each, str):
                clients[each] = None
            else:
                erased = each["erased"]
                clients[each["client_hash"]] = erased and datetime.fromisoformat(erased)
        if read.get(VERSION, 1) <= _KEY_INSIDE:
            return cls(key, {_hash(key, each): at for each, at in clients.items()}, read["key"])
        if read["key_check"] != _hash(key, _CHECKED):
            raise WrongKeyError(
                f"{KEY} was written with another key than the secret has now: restore the secret's version "
                "of that time. Until then it is unknown whose rows to leave out"
            )
        return cls(key, clients, read["salt"])


def _hash(key: bytes, text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=HASH_BYTES, key=key).hexdigest()


def forgotten_until(forgotten: Forgotten) -> Callable[[str | None, str | None], int]:
    """Return a function that gives the time of the last row to be forgotten of a row's client, or 0.

    It hashes each client once, not for each row.

    Args:
        forgotten: The clients. The result takes the arguments of `clients_of`.
    """

    @lru_cache(_CLIENTS)
    def until(client: str | None, said: str | None) -> int:
        return max(map(forgotten.until, clients_of(client, said)), default=0)

    return until


def is_before(time: str | None, until: int) -> bool:
    """Tell whether a row's time, as the store writes it, is not after a time in nanoseconds since 1970."""
    return until == EVER or _nanoseconds(datetime.fromisoformat(f"{(time or '')[:26]}+00:00")) <= until


def _nanoseconds(time: datetime) -> int:
    return round(time.timestamp() * 1_000_000) * 1_000
