"""What distinguishes rows of one identity and version: a hash of their values. Pure.

XXH3 takes a twentieth of the time of a cryptographic hash, and is the same in every version of its library:
https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import orjson

Value = bool | float | str

_SIGNED, _MODULUS = 2**63, 2**64


def digest(values: Mapping[str, Value], fields: bytes = b"") -> int:
    """Return the digest of a row.

    Args:
        values: The row's values in columns, without those of its identity: a BIGINT is an int, a DOUBLE
            a float.
        fields: Its other values, as one JSON object sorted by name; empty without any.

    Returns:
        64 bits with a sign.
    """
    names = sorted(values)
    return digester(names)(orjson.dumps([values[name] for name in names]) + fields)


def digester(names: Sequence[str]) -> Callable[[bytes], int]:
    """Return what makes digests of rows with values in the same columns.

    It takes the JSON of a row's values in the order of these names, and then the JSON object of the others.

    Args:
        names: The columns' names, sorted.
    """
    # Imported for a fragment alone: a function that writes none does not ship it.
    from xxhash import xxh3_64_intdigest  # noqa: PLC0415 - see above

    seed = xxh3_64_intdigest(orjson.dumps(names))

    def digest_of(text: bytes) -> int:
        found = xxh3_64_intdigest(text, seed)
        return found if found < _SIGNED else found - _MODULUS

    return digest_of
