"""What must not reach the line. docs/how-to/privacy.md has the table of what is masked."""

from __future__ import annotations

import re

from .annotations import Any, Callable, Iterable, Optional
from .values import MAX_DEPTH, drop, encode, field_key, repr_of, to_json

# Values under these names are masked, and under names that end with one: `db_password`, `authtoken`.
MASKED_NAMES = (
    *("authorization", "cookie", "cookies", "password", "passwords", "passwd", "pwd", "passphrase"),
    *("secret", "secrets", "token", "jwt", "api-key", "access-key", "private-key", "secret-key"),
    *("credential", "credentials", "signature"),
)
# These end with a masked name and are no secrets: they mark where the next page begins.
UNMASKED_NAMES = ("next-token", "page-token", "continuation-token", "pagination-token")
MIN_NAME_END = 5  # a shorter name (`jwt`) has to be a whole word: too many words end with so few letters
MASK = "***"
MIN_KEY_BYTES = 16

_MAX_NAMES = 1_000  # known to be harmless; then all are forgotten, because some of them are ids
_NUMBERS = frozenset([int, float, bool, type(None)])
_SCALARS = _NUMBERS | {str}
# A name and its value in a query string: at the beginning of a text, or after ? & # or ;
_PARAMETER = r"(?:^|(?<=[?&#;]))([^?&#;=\s]+)=([^&#;\s]*)"


class Privacy:
    """What must not reach the line. Names match in any case and spelling: `api_key`, `Api-Key`, `apikey`.

    Args:
        mask: Values under these names, and under names that end with one (`db_password`), become `***`: in
            fields, in objects at any depth, in pairs of a name and a value, and in query strings. Numbers
            under a plural (`cookies=3`) are counts and stay.
        allow: The only fields that are written, by their exact names; default all.
        deny: Names that are left out, at any depth.
        truncate: Names of IP addresses: IPv4 keeps its first three bytes, IPv6 its first six. A value that is
            no address is masked.
        pseudonyms: Names whose values are replaced by a keyed digest (HMAC-SHA-256, 32 hex digits): the same
            value gives the same pseudonym, and without the key nobody can find the value by trying.
        key: The pseudonyms' key, of at least 16 bytes.
        text: Also mask `name=value`, `name: value` and `"name": "value"` anywhere in a text.

    Raises:
        ValueError: If there are pseudonyms without a key, the key is too short, or names are one text.
    """

    def __init__(
        self,
        *,
        mask: Iterable[str] = MASKED_NAMES,
        allow: Optional[Iterable[str]] = None,
        deny: Iterable[str] = (),
        truncate: Iterable[str] = (),
        pseudonyms: Iterable[str] = (),
        key: bytes = b"",
        text: bool = False,
    ) -> None:
        for names in (mask, allow, deny, truncate, pseudonyms):
            if isinstance(names, str):  # each of its letters would be a name
                raise ValueError(f"{names!r} is a text, not a list of names")  # noqa: TRY004 - as all here
        rules = [(pseudonyms, self._pseudonym), (truncate, _truncate), (deny, drop)]
        self._rules = {_letters(name): rule for names, rule in rules for name in names}
        self._masked = [_words(name) for name in mask]
        self._ends = tuple(_letters(name) for name in self._masked)
        self._unmasked = tuple(_letters(name) for name in UNMASKED_NAMES)
        self._allowed = None if allow is None else frozenset(allow)
        self._key = key
        self.searches_texts = text and bool(self._masked)
        self._pattern = _pattern(self._masked) if self.searches_texts else None
        self._harmless: set[str] = set()
        if self._pseudonym in self._rules.values():
            if not isinstance(key, bytes):
                raise ValueError(f"the pseudonyms' key is bytes, not {type(key).__name__}")
            if len(key) < MIN_KEY_BYTES:
                raise ValueError(f"pseudonyms need a key of at least {MIN_KEY_BYTES} bytes, not {len(key)}")

    def is_clean(self, fields: dict[Any, Any], *, texts: bool) -> bool:
        """Return whether fields can be written as they are: plain JSON values, and nothing to mask.

        May return False for harmless input. It is much quicker than `clean`, which copies every value.

        Args:
            fields: The user's fields.
            texts: Whether to look into texts; without `=` in them, that is needed only if `searches_texts`.
        """
        if self._allowed is not None and not self._allowed.issuperset(fields):
            return False
        is_known = self._harmless.issuperset(fields) or self._learn(fields)
        return is_known and self._are_clean(fields.values(), 1, _NUMBERS if texts else _SCALARS)

    def _are_clean(self, values: Iterable[Any], depth: int, clean_types: frozenset[object]) -> bool:
        for value in values:
            kind = type(value)
            if kind in clean_types:
                continue
            if kind is str:
                if self.text(value) != value:
                    return False
                continue
            if kind is dict:
                if not (self._harmless.issuperset(value) or self._learn(value)):
                    return False
                value = value.values()  # noqa: PLW2901
            elif kind is not list or self.pair_rule(value):
                return False
            if depth > MAX_DEPTH or not self._are_clean(value, depth + 1, clean_types):
                return False
        return True

    def _learn(self, names: Iterable[Any]) -> bool:
        """Return whether names are harmless, and remember them if so.

        A name that `field_key` changes is not: the emitter writes clean fields without renaming them.
        """
        for name in names:
            if type(name) is not str or "=" in name or field_key(name) != name or self.rule(name):
                return False
        if len(self._harmless) >= _MAX_NAMES:
            self._harmless.clear()
        self._harmless.update(names)
        return True

    def clean(self, fields: dict[Any, Any]) -> dict[str, Any]:
        """Return fields as plain JSON values, without what must not reach the line."""
        kept: dict[str, Any] = to_json(fields, self)
        return kept if self._allowed is None else {name: kept[name] for name in kept if name in self._allowed}

    def rule(self, name: Any) -> Optional[Callable[[Any], Any]]:
        """Return the function that changes the values of a name, or None."""
        if type(name) is str and name in self._harmless:
            return None
        text = name.decode("latin-1") if isinstance(name, bytes) else repr_of(name, str)
        letters = _letters(text)
        if letters in self._rules or not letters.endswith(self._ends):
            return self._rules.get(letters)
        words = "-" + _words(text)
        found = [
            len(end)
            for end, name in zip(self._ends, self._masked)
            if letters.endswith(end) and (len(end) >= MIN_NAME_END or words.endswith("-" + name))
        ]
        # The longest end decides: `next-token` is not a secret, although it ends with `token`.
        if not found or max(found) < max(map(len, filter(letters.endswith, self._unmasked)), default=0):
            return None
        return _mask_unless_count if letters.endswith("s") else _mask

    def pair_rule(self, pair: list[Any]) -> Optional[Callable[[Any], Any]]:
        """Return the rule for a list that is a name and its value, such as a header; None for other lists."""
        return self.rule(pair[0]) if len(pair) == 2 and isinstance(pair[0], (str, bytes)) else None  # noqa: PLR2004

    def text(self, text: str) -> str:
        """Return a text with the values of masked parameters in its query string masked.

        With `Privacy(text=True)`, values behind masked names are masked wherever they stand in the text.
        """
        if self._pattern is not None:
            text = self._pattern.sub(rf"\g<1>{MASK}", text)
        return re.sub(_PARAMETER, self._parameter, text) if "=" in text else text

    def _parameter(self, found: re.Match[str]) -> str:
        name, value = _unescaped(found[1]), _unescaped(found[2])
        # A value may be another address with a query string.
        is_secret = self.rule(name) or (value != found[2] and self.text(value) != value)
        return f"{found[1]}={MASK}" if is_secret and value else found[0]

    def _pseudonym(self, value: Any) -> Any:
        import hmac

        plain = to_json(value)
        text = plain if isinstance(plain, str) else encode(plain)
        digest = hmac.new(self._key, text.encode("utf-8", "surrogatepass"), "sha256").hexdigest()[:32]
        return None if plain is None else digest


def _words(name: str) -> str:
    """Return a name in lower case, its words joined by hyphens."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\W_]+", "-", name).strip("-").lower()


def _letters(name: str) -> str:
    """Return a name in lower case, without anything between its words."""
    return (name if name.isalnum() else re.sub(r"[\W_]+", "", name)).lower()


def _unescaped(text: str) -> str:
    """Return text without percent-encoding, up to three layers of it."""
    for _ in range(3):
        if "%" not in text:
            break
        text = re.sub("%([0-9A-Fa-f]{2})", lambda found: chr(int(found[1], 16)), text)
    return text


def _pattern(masked: list[str]) -> re.Pattern[str]:
    """Return what finds a masked name with its value anywhere in a text."""
    names = "|".join(re.escape(name).replace("\\-", "[-_]?") for name in masked)
    # A quoted value ends with its quote. Another one may contain spaces and semicolons (a header's value), so
    # it ends with the next parameter of a query or with the line; one quoted in quoted text, with the line.
    value = r""""(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|\\[^\r\n]*|[^&\r\n]+"""
    between = r"""(?:[\s\\"'\[\]]|%5b|%5d)*"""
    return re.compile(rf"((?:{names}){between}(?:[=:]|%3D)\s*)(?:{value})", re.IGNORECASE | re.DOTALL)


def _mask(value: Any) -> Any:
    return None if value is None else MASK


def _mask_unless_count(value: Any) -> Any:
    return value if type(value) in _NUMBERS else MASK


def _truncate(value: Any) -> Any:
    """Return the network of an address, or of each in a list that commas divide (X-Forwarded-For)."""
    from ipaddress import ip_network

    if isinstance(value, list):
        return [_truncate(item) for item in value]
    networks = []
    for address in value.split(",") if isinstance(value, str) else ():
        try:
            network = ip_network(f"{address.strip()}/{48 if ':' in address else 24}", strict=False)
            networks.append(str(network.network_address))
        except ValueError:  # noqa: PERF203 - each for itself
            networks.append(MASK)
    return ", ".join(networks) or _mask(value)
