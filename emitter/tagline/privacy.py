"""What must not reach the line. docs/how-to/privacy.md has the table of what is masked."""

from __future__ import annotations

import re

from .annotations import Any, Callable, Iterable, Optional
from .names import field_key
from .values import MAX_DEPTH, drop, encode, repr_of, to_json_value

# Values under these names are masked, and under names that end with one: `db_password`, `authtoken`.
MASKED_NAMES = (
    *("authorization", "cookie", "cookies", "password", "passwords", "passwd", "pwd", "passphrase"),
    *("secret", "secrets", "token", "jwt", "api-key", "access-key", "private-key", "secret-key"),
    *("credential", "credentials", "signature"),
)
# These end with a masked name and are no secrets: they say where the next page begins.
UNMASKED_NAMES = ("next-token", "page-token", "continuation-token", "pagination-token")
# A shorter name has to be a word of its own: many words end with `pwd` or `ip`.
MIN_NAME_END = 5
MASK = "***"
MIN_KEY_BYTES = 16

_MAX_NAMES = 1_000  # known to be harmless; then all are forgotten, because some of them are ids
_NUMBERS = frozenset([int, float, bool, type(None)])
_WORD_ENDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\W_]+")
_NO_LETTERS = re.compile(r"[\W_]+")
_PARAMETER = re.compile(r"(?:^|(?<=[?&#;]))([^?&#;=\s]+)=([^&#;\s]*)")
_ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")


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
        text: Also mask `name=value`, `name: value` and `"name": "value"` anywhere in a text, to the end of the
            value or of the line. It takes several microseconds per text.

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
        self._masked = tuple(_words(name) for name in mask)
        self._ends = tuple(_letters(name) for name in self._masked)
        self._unmasked = tuple(_letters(name) for name in UNMASKED_NAMES)
        self._allowed = None if allow is None else frozenset(allow)
        self._key = key
        self._pattern = _pattern(self._masked) if text and self._masked else None
        if self._pseudonym in self._rules.values():
            if not isinstance(key, bytes):
                raise ValueError(f"the pseudonyms' key is bytes, not {type(key).__name__}")
            if len(key) < MIN_KEY_BYTES:
                raise ValueError(f"pseudonyms need a key of at least {MIN_KEY_BYTES} bytes, not {len(key)}")
        self._harmless: set[str] = set()

    def is_clean(self, fields: dict[Any, Any]) -> bool:
        """Return whether fields can be written as they are: plain JSON values, and nothing to mask.

        May return False for harmless input. This decides in a few microseconds for nearly every record;
        `clean` takes several times as long.
        """
        if self._allowed is not None and not self._allowed.issuperset(fields):
            return False
        return self._has_clean_names(fields) and self._are_clean(fields.values(), 1)

    def _are_clean(self, values: Iterable[Any], depth: int) -> bool:
        if depth > MAX_DEPTH:
            return False
        for value in values:
            kind = type(value)
            if kind is str:
                if ("=" in value or "%" in value or self._pattern) and self.text(value) != value:
                    return False
            elif kind is dict:
                if not (self._has_clean_names(value) and self._are_clean(value.values(), depth + 1)):
                    return False
            elif kind is list:
                if self._is_secret_pair(value) or not self._are_clean(value, depth + 1):
                    return False
            elif kind not in _NUMBERS:
                return False
        return True

    def _has_clean_names(self, value: dict[Any, Any]) -> bool:
        return self._harmless.issuperset(value) or self._learn(value)

    def _is_secret_pair(self, value: list[Any]) -> bool:
        """Return whether a list is a masked name and its value, as in a list of headers."""
        return len(value) == 2 and type(value[0]) is str and self.rule(value[0]) is not None  # noqa: PLR2004

    def _learn(self, names: Iterable[Any]) -> bool:
        """Return whether names are harmless, and remember them if so."""
        names = list(names)
        for name in names:
            if type(name) is not str or field_key(name) != name or "=" in name or self.rule(name):
                return False
        if len(self._harmless) + len(names) > _MAX_NAMES:
            self._harmless.clear()
        self._harmless.update(names)
        return True

    def clean(self, fields: Any) -> dict[str, Any]:
        """Return fields as plain JSON values, without what must not reach the line."""
        kept: dict[str, Any] = to_json_value(fields, self)
        return kept if self._allowed is None else {name: kept[name] for name in kept if name in self._allowed}

    def rule(self, name: Any) -> Optional[Callable[[Any], Any]]:
        """Return what is done to the value of a name, or None."""
        text = name.decode("latin-1") if isinstance(name, bytes) else repr_of(name, str)
        letters = _letters(text)
        rule = self._rules.get(letters)
        if rule is not None or not letters.endswith(self._ends):
            return rule
        words = "-" + _words(text)
        ends = [
            len(end)
            for end, name in zip(self._ends, self._masked)
            if letters.endswith(end) and (len(end) >= MIN_NAME_END or words.endswith("-" + name))
        ]
        longest_unmasked = max(map(len, filter(letters.endswith, self._unmasked)), default=0)
        if not ends or max(ends) < longest_unmasked:
            return None
        return _mask_unless_count if letters.endswith("s") else _mask

    def text(self, text: str) -> str:
        """Return text with the secrets in its query string masked, or those anywhere in it if that was asked for."""
        if self._pattern is not None:
            text = self._pattern.sub(rf"\g<1>{MASK}", text)
        if "=" in text:
            return _PARAMETER.sub(self._parameter, text)
        return MASK if "%" in text and self._is_secret_escaped(text) else text

    def _parameter(self, found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        secret = self.rule(_unescaped(name)) or ("%" in value and self._is_secret_escaped(value))
        return f"{name}={MASK}" if secret and value else found[0]

    def _is_secret_escaped(self, text: str) -> bool:
        """Return whether a percent-encoded text has secrets: an address in another one's query string."""
        unescaped = _unescaped(text)
        return unescaped != text and self.text(unescaped) != unescaped

    def _pseudonym(self, value: Any) -> Any:
        import hmac

        plain = to_json_value(value)
        text = plain if isinstance(plain, str) else encode(plain)
        digest = hmac.new(self._key, text.encode("utf-8", "surrogatepass"), "sha256").hexdigest()[:32]
        return None if plain is None else digest


def _words(name: str) -> str:
    """Return a name in lower case, its words joined by hyphens."""
    return _WORD_ENDS.sub("-", name).strip("-").lower()


def _letters(name: str) -> str:
    """Return a name in lower case, without anything between its words."""
    return _NO_LETTERS.sub("", name).lower()


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


def _pattern(masked: tuple[str, ...]) -> re.Pattern[str]:
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
