"""JSON documents that Tagline stores: each carries the version of its format. Pure.

Readers ignore keys that they do not know, so that a newer Tagline can add some. A change that older readers
would misunderstand raises the version, and they refuse the document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from consumers.errors import TaglineError

VERSION: Final = "format_version"
Kind = TypeVar("Kind")


class NewerDocumentError(TaglineError, ValueError):
    """A newer Tagline wrote the document; the message names it, its version, and the newest that is read."""


def stamped(document: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Return a document with the version of its format."""
    return {VERSION: version, **document}


def check_version(document: Mapping[str, Any], newest: int, what: str = "the document") -> int:
    """Return a document's version; a document without one has version 1.

    Args:
        document: The document's keys.
        newest: The newest version that the caller reads.
        what: What an error message calls the document, such as "the manifest".

    Raises:
        NewerDocumentError: If the document's version is higher.
    """
    version = document.get(VERSION, 1)
    if not isinstance(version, int) or version > newest:
        raise NewerDocumentError(
            f"{what} has {VERSION} {version!r}, and this Tagline reads versions up to {newest}: deploy the "
            "Tagline that wrote it, or a newer one"
        )
    return version


def load(body: bytes | str, newest: int, what: str) -> dict[str, Any]:
    """Return a stored document.

    Args:
        body: The document.
        newest: The newest version that the caller reads.
        what: What an error message calls the document, such as "the manifest".

    Raises:
        NewerDocumentError: If the document's version is higher.
        ValueError: If it is not a JSON object.
    """
    read = json.loads(body)
    if not isinstance(read, dict):
        raise ValueError(f"{what} is not a JSON object")  # noqa: TRY004 - damaged, as text that is not JSON
    check_version(read, newest, what)
    return read


def known(kind: type[Kind], read: Mapping[str, Any]) -> Kind:
    """Return a dataclass or a named tuple made of an object's keys, without those that are not its fields."""
    names: tuple[str, ...] = kind.__match_args__  # type: ignore[attr-defined]  # both have it
    return kind(**{name: read[name] for name in names if name in read})
