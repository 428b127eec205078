"""Filter patterns of CloudWatch Logs: which messages they select, and which fields they take out. Pure.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html

The whole language: terms, regular expressions, JSON conditions and space-delimited fields. A pattern that the
page does not allow is refused, never guessed at; docs/reference/filter-patterns.md lists what the page leaves
open, and what was decided.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Literal, NoReturn

from onemachine.linear_regex import LinearRegex

# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutSubscriptionFilter.html
MAX_PATTERN_CHARACTERS = 1024

# "Quotas" of the page named above.
MAX_REGEXES = 2
MAX_WILDCARDS_PER_SELECTOR = 1
MAX_WILDCARDS = 3

Test = Callable[[Any], bool]


class InvalidPatternError(ValueError):
    """A pattern that the service refuses; the message begins as the service's does and names the part."""


@dataclass(frozen=True)
class Pattern:
    """A pattern, read once.

    Attributes:
        kind: Which of the page's kinds it is.
        regexes: How many regular expressions are in it; a log group's filters have 5 between them.
        selectors: What a metric filter can take values from: JSON selectors as written, `$field` names.
        matches: Tells whether it selects a message.
        fields: Returns a message's fields by name, `$` included, or None if it is not selected; without any
            when the pattern is not space-delimited.
    """

    kind: Literal["everything", "terms", "regex", "json", "fields"]
    regexes: int
    selectors: frozenset[str]
    matches: Callable[[str], bool]
    fields: Callable[[str], dict[str, str] | None]


def matches(pattern: str, message: str) -> bool:
    """Tell whether a pattern selects a message.

    Raises:
        InvalidPatternError: If the service would refuse the pattern.
    """
    return compiled(pattern).matches(message)


def extracted(pattern: str, message: str) -> dict[str, str]:
    """Return the fields that a space-delimited pattern finds in a message that it selects.

    https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_TestMetricFilter.html

    Returns:
        Values by `$name`, or `$1`, `$2`... where the pattern has no name; empty for any other pattern.

    Raises:
        InvalidPatternError: If the service would refuse the pattern.
    """
    return compiled(pattern).fields(message) or {}


def selected(selectors: Sequence[str], message: str) -> list[Any]:
    """Return the values in a JSON message that selectors without wildcards lead to; None where it has none.

    Raises:
        InvalidPatternError: If one is not such a selector.
    """
    ways = [_steps(selector) for selector in selectors]
    if any(isinstance(step, _Any) for way in ways for step in way):
        _refuse(f"a value cannot be taken from a wildcard: {', '.join(selectors)}")
    document = _document(message)
    return [next(_reached(document, way), None) for way in ways]


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Pattern:
    """Read a pattern; the same one is read once.

    Raises:
        InvalidPatternError: If the service would refuse the pattern.
    """
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        _refuse(f"it has {len(pattern)} characters, more than {MAX_PATTERN_CHARACTERS}")
    text = pattern.strip()
    if text.startswith("{"):
        return _json_pattern(text)
    if text.startswith("["):
        return _fields_pattern(text)
    if text.startswith("%"):
        return _regex_pattern(text)
    return _terms_pattern(text)


def _refuse(reason: str) -> NoReturn:
    raise InvalidPatternError(f"Invalid filter pattern: {reason}")


def _refuse_characters(term: str) -> NoReturn:
    # The service's own words, for a character that has to be quoted or is not supported.
    raise InvalidPatternError(f"Invalid character(s) in term '{term}'")


# ---- Terms -------------------------------------------------------------------------------------------------

_TERM = re.compile(r'([?-]?)(?:"((?:[^"\\]|\\.)*)"|([A-Za-z0-9_]+))(?=\s|$)', re.DOTALL)


def _terms_pattern(text: str) -> Pattern:
    required: list[str] = []
    optional: list[str] = []
    excluded: list[str] = []
    position = 0
    while position < len(text):
        term = _TERM.match(text, position)
        if term is None:
            _refuse_characters(text[position:].split(maxsplit=1)[0])
        kind = {"": required, "?": optional, "-": excluded}[term[1]]
        phrase = term[3] if term[2] is None else _unescaped(term[2])
        if phrase.strip() or kind is not required:  # the page: `" "` returns all log events
            kind.append(phrase)
        position = len(text) - len(text[term.end() :].lstrip())
    if required or excluded:
        optional = []  # the page: combined with other terms, all question mark terms are ignored
    if not (required or optional or excluded):
        return Pattern("everything", 0, frozenset(), lambda _: True, lambda _: {})
    return Pattern(
        "terms",
        0,
        frozenset(),
        *_with_no_fields(_term_test(tuple(required), tuple(optional), tuple(excluded))),
    )


def _term_test(
    required: Sequence[str], optional: Sequence[str], excluded: Sequence[str]
) -> Callable[[str], bool]:
    if len(required) == 1 and not excluded:
        only = required[0]
        return lambda message: only in message  # the common case, at twice the speed

    def select(message: str) -> bool:
        return (
            all(term in message for term in required)
            and (not optional or any(term in message for term in optional))
            and not any(term in message for term in excluded)
        )

    return select


def _with_no_fields(
    select: Callable[[str], bool],
) -> tuple[Callable[[str], bool], Callable[[str], dict[str, str] | None]]:
    return select, lambda message: {} if select(message) else None


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


# ---- Regular expressions -----------------------------------------------------------------------------------

# "Supported regular expressions (regex) syntax": alphanumerics, ten symbols (the space is in an example of
# the page), operators, and what a backslash may stand before. Parentheses are refused, escaped or not.
_CLASS_MEMBER = (
    r"\\x[0-7][0-9A-Fa-f]|\\[dDsSwW]|\\[\^$?\[\]{}|\\*+.:_#=@/;,-]|[A-Za-z0-9:_#=@/;, \-^$?\[{}|*+.]"
)
_REGEX_PIECE = re.compile(
    r"(?P<escape>\\x[0-7][0-9A-Fa-f]|\\[dDsSwW]|\\[\^$?\[\]{}|\\*+.:_#=@/;,-])"
    rf"|\[(?P<inverse>\^?)(?P<members>(?:{_CLASS_MEMBER})+)\]"
    r"|(?P<quantifier>[?*+]|\{\s?(?=[\d,\s]*\d)\d*\s?(?:,\s?\d*\s?)?\})"
    r"|(?P<operator>[\^$|])"
    r"|(?P<literal>\.|[A-Za-z0-9:_#=@/;, -])"
)
_CLASS_PIECE = re.compile(
    rf"(?P<first>{_CLASS_MEMBER})-(?P<last>{_CLASS_MEMBER})|(?P<single>{_CLASS_MEMBER})"
)


def _regex(text: str) -> LinearRegex:
    """Read the expression between two percent signs."""
    if not text:
        _refuse("a regular expression without a character")
    pieces: list[str] = []
    repeatable = False
    position = 0
    while position < len(text):
        piece = _REGEX_PIECE.match(text, position)
        if piece is None:
            _refuse_characters(text[position:])
        if piece["quantifier"]:
            if not repeatable:
                _refuse(f"nothing to repeat before {text[position:]!r}")
            pieces.append(re.sub(r"^\{,", "{0,", piece["quantifier"].replace(" ", "")))
        elif piece["members"]:
            pieces.append(f"[{piece['inverse']}{_class_members(piece['members'])}]")
        else:
            pieces.append(piece[0])
        repeatable = bool(piece["escape"] or piece["members"] or piece["literal"])
        position = piece.end()
    try:
        return LinearRegex("".join(pieces))
    except ValueError as error:
        _refuse(f"%{text}%: {error}")


def _class_members(members: str) -> str:
    # RE2 reads `[[:a` as the beginning of a class with a name: characters are escaped, ranges are kept.
    def escaped(member: str) -> str:
        return member if member.startswith("\\") else re.escape(member)

    return "".join(
        escaped(piece["single"]) if piece["single"] else f"{escaped(piece['first'])}-{escaped(piece['last'])}"
        for piece in _CLASS_PIECE.finditer(members)
    )


def _regex_pattern(text: str) -> Pattern:
    if text.find("%", 1) != len(text) - 1:
        _refuse("a regular expression stands between two percent signs, and alone")
    return Pattern("regex", 1, frozenset(), *_with_no_fields(_regex(text[1:-1]).is_in))


# ---- Conditions: what JSON and space-delimited patterns share ----------------------------------------------

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>"(?:[^"\\]|\\.)*")
    |(?P<regex>%[^%]*%)
    |(?P<operator>&&|\|\||!=|<=|>=|=|<|>)
    |(?P<mark>[(),])
    |(?P<selector>\$[^\s=!<>&|()"%']*(?:'[^']*'[^\s=!<>&|()"%']*)*)
    |(?P<word>[A-Za-z0-9_.*+-]+)
    )""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_NUMERIC = re.compile(r"[0-9.eE+-]*")
_WORD = re.compile(r"[A-Za-z0-9_.*]+")
_ORDER: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    ">=": lambda value, limit: value >= limit,
}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str


@dataclass(frozen=True)
class _Condition:
    """A test of a document, and characters without which no message can pass it."""

    test: Test
    needs: frozenset[str] = frozenset()


class _Tokens:
    """A pattern's tokens, taken from the left."""

    def __init__(self, text: str) -> None:
        self._tokens: list[_Token] = []
        self._next = 0
        self.regexes = 0
        self.wildcards = 0
        position = 0
        while position < len(text.rstrip()):
            token = _TOKEN.match(text, position)
            if token is None or token.lastgroup is None:
                _refuse_characters(text[position:].strip())
            self._tokens.append(_Token(token.lastgroup, token[token.lastgroup]))
            position = token.end()

    @property
    def ended(self) -> bool:
        return self._next == len(self._tokens)

    def peek(self) -> str:
        """Return the next token's text; empty at the end."""
        return "" if self.ended else self._tokens[self._next].text

    def take(self) -> _Token:
        if self.ended:
            _refuse("it ends early")
        self._next += 1
        return self._tokens[self._next - 1]

    def took(self, text: str) -> bool:
        """Take the next token if it is this one."""
        found = self.peek() == text
        self._next += found
        return found

    def expect(self, text: str) -> None:
        if not self.took(text):
            _refuse(f"{text!r} was expected, not {self.peek()!r}")


def _either(tokens: _Tokens, single: Callable[[_Tokens], _Condition]) -> _Condition:
    """Read conditions with `||` between them; `&&` binds tighter."""
    conditions = [_both(tokens, single)]
    while tokens.took("||"):
        conditions.append(_both(tokens, single))
    if len(conditions) == 1:
        return conditions[0]
    tests = [condition.test for condition in conditions]
    needs = frozenset.intersection(*(condition.needs for condition in conditions))
    return _Condition(lambda value: any(test(value) for test in tests), needs)


def _both(tokens: _Tokens, single: Callable[[_Tokens], _Condition]) -> _Condition:
    conditions = [single(tokens)]
    while tokens.took("&&"):
        conditions.append(single(tokens))
    if len(conditions) == 1:
        return conditions[0]
    tests = [condition.test for condition in conditions]
    needs = frozenset.union(*(condition.needs for condition in conditions))
    return _Condition(lambda value: all(test(value) for test in tests), needs)


def _comparison(tokens: _Tokens, number_in: Callable[[Any], float | None]) -> _Condition:
    """Read an operator and a value; `number_in` tells which number a value to be tested is."""
    operator = tokens.take()
    if operator.kind != "operator" or operator.text in ("&&", "||"):
        _refuse(f"an operator was expected, not {operator.text!r}")
    value = tokens.take()
    if operator.text in _ORDER:
        if value.kind != "word" or not _NUMBER.fullmatch(value.text):
            _refuse(f"{operator.text} takes a number, not {value.text!r}")
        in_order, limit = _ORDER[operator.text], _number(value.text)

        def ordered(found: Any) -> bool:
            number = number_in(found)
            return number is not None and in_order(number, limit)

        return _Condition(ordered)
    equal, needs = _equality(tokens, value, number_in)
    if operator.text == "=":
        return _Condition(equal, needs)
    return _Condition(lambda found: _is_value(found) and not equal(found))


def _equality(
    tokens: _Tokens, value: _Token, number_in: Callable[[Any], float | None]
) -> tuple[Test, frozenset[str]]:
    if value.kind == "regex":
        tokens.regexes += 1
        is_in = _regex(value.text[1:-1]).is_in
        return lambda found: _is_value(found) and is_in(_text(found)), frozenset()
    if value.kind == "word" and _NUMBER.fullmatch(value.text):
        wanted_number = _number(value.text)
        return lambda found: number_in(found) == wanted_number or found == value.text, frozenset()
    if value.kind == "text":
        wanted = _unescaped(value.text[1:-1])
    elif value.kind == "word" and _WORD.fullmatch(value.text):
        wanted = value.text
    else:
        _refuse_characters(value.text)
    return _text_equality(wanted)


def _text_equality(wanted: str) -> tuple[Test, frozenset[str]]:
    # A wildcard stands before or after a term; "Ev*ent" means these six characters. Said by the page's
    # edition of 2018 (awsdocs/amazon-cloudwatch-logs-user-guide) and by no later one.
    if wanted and not wanted.strip("*"):
        return lambda found: _is_value(found) or isinstance(found, bool), frozenset()
    inner = wanted.strip("*") if wanted else ""
    ahead, behind = wanted.startswith("*"), wanted.endswith("*")
    needs = frozenset([inner]) if inner else frozenset[str]()
    if ahead and behind:
        return lambda found: _is_value(found) and inner in _text(found), needs
    if ahead:
        return lambda found: _is_value(found) and _text(found).endswith(inner), needs
    if behind:
        return lambda found: _is_value(found) and _text(found).startswith(inner), needs
    return lambda found: found == wanted or (_is_number(found) and _text(found) == wanted), needs


def _number(text: str) -> float:
    # A whole number of more than 15 digits is not rounded: it may be somebody's id.
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def _number_in_text(value: str) -> float | None:
    return _number(value) if _NUMBER.fullmatch(value) else None


def _number_in_json(value: Any) -> float | None:
    return value if _is_number(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_value(value: Any) -> bool:
    """Say whether it is what the page calls a value node: a string or a number."""
    return isinstance(value, str) or _is_number(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


# ---- JSON --------------------------------------------------------------------------------------------------


class _Any(Enum):
    FIELD = "any field of an object"
    ELEMENT = "any element of an array"


_Step = str | int | _Any

_STEP = re.compile(
    r"\.(?P<name>[A-Za-z0-9_-]+)|\.\['(?P<quoted>[^']+)'\]|(?P<field>\.\*)|\[(?:(?P<index>\d+)|\*)\]",
    re.ASCII,
)
_IS = {"NULL": None, "TRUE": True, "FALSE": False}


def _json_pattern(text: str) -> Pattern:
    if not text.endswith("}"):
        _refuse("no } at its end")
    tokens = _Tokens(text[1:-1])
    selectors: set[str] = set()
    try:
        condition = _either(tokens, lambda tokens: _json_condition(tokens, selectors))
    except RecursionError:
        _refuse("its parentheses are too deep")
    if not tokens.ended:
        _refuse(f"unexpected {tokens.peek()!r}")
    _within_quotas(tokens)
    test = condition.test
    # Most messages can be excluded by a search in their text: reading JSON is what takes the time. A
    # backslash may hide what is looked for behind an escape.
    needs = tuple(sorted((need for need in condition.needs if _is_plain(need)), key=len, reverse=True))

    def select(message: str) -> bool:
        for need in needs:
            if need not in message and "\\" not in message:
                return False
        document = _document(message)
        return isinstance(document, dict) and test(document)

    return Pattern("json", tokens.regexes, frozenset(selectors), *_with_no_fields(select))


def _is_plain(need: str) -> bool:
    """Say whether JSON without a backslash can only hold this as it stands; a number has other forms."""
    return need.isascii() and need.isprintable() and '"' not in need and not _NUMERIC.fullmatch(need)


def _within_quotas(tokens: _Tokens) -> None:
    if tokens.regexes > MAX_REGEXES:
        _refuse(f"{tokens.regexes} regular expressions, more than {MAX_REGEXES}")
    if tokens.wildcards > MAX_WILDCARDS:
        _refuse(f"{tokens.wildcards} wildcard selectors, more than {MAX_WILDCARDS}")


def _json_condition(tokens: _Tokens, selectors: set[str]) -> _Condition:
    if tokens.took("("):
        condition = _either(tokens, lambda tokens: _json_condition(tokens, selectors))
        tokens.expect(")")
        return condition
    selector = tokens.take()
    if selector.kind != "selector":
        _refuse(f"a property selector was expected, not {selector.text!r}")
    steps = _steps(selector.text)
    tokens.wildcards += sum(isinstance(step, _Any) for step in steps)
    selectors.add(selector.text)
    names = frozenset(step for step in steps if isinstance(step, str))
    if tokens.took("NOT"):
        tokens.expect("EXISTS")
        return _Condition(lambda document: next(_reached(document, steps), _MISSING) is _MISSING)
    if tokens.took("IS"):
        name = tokens.take().text
        if name not in _IS:
            _refuse(f"IS takes NULL, TRUE or FALSE, not {name!r}")
        wanted = _IS[name]
        return _Condition(lambda document: any(value is wanted for value in _reached(document, steps)), names)
    comparison = _comparison(tokens, _number_in_json)
    test = comparison.test
    if len(steps) == 1 and isinstance(steps[0], str):
        only = steps[0]
        return _Condition(lambda document: test(document.get(only)), names | comparison.needs)
    return _Condition(
        lambda document: any(test(value) for value in _reached(document, steps)), names | comparison.needs
    )


_MISSING = object()


@lru_cache(maxsize=256)
def _steps(selector: str) -> tuple[_Step, ...]:
    """Return the way that a selector goes from a document's root."""
    steps: list[_Step] = []
    position = 1
    while position < len(selector):
        step = _STEP.match(selector, position)
        if step is None or (not steps and step[0].startswith("[")):
            _refuse(f"not a property selector: {selector!r}")
        if step["index"]:
            steps.append(int(step["index"]))
        else:
            wildcard = _Any.FIELD if step["field"] else _Any.ELEMENT
            steps.append(step["name"] or step["quoted"] or wildcard)
        position = step.end()
    wildcards = sum(isinstance(step, _Any) for step in steps)
    if not steps or wildcards > MAX_WILDCARDS_PER_SELECTOR:
        _refuse(f"a property selector has a property and at most one wildcard: {selector!r}")
    return tuple(steps)


def _reached(value: Any, steps: Sequence[_Step]) -> Iterator[Any]:
    """Yield the values that a selector leads to: one, none, or with a wildcard several."""
    for position, step in enumerate(steps):
        if isinstance(step, _Any):
            children: Sequence[Any] = ()
            if step is _Any.FIELD and isinstance(value, dict):
                children = list(value.values())
            elif step is _Any.ELEMENT and isinstance(value, list):
                children = value
            for child in children:
                yield from _reached(child, steps[position + 1 :])
            return
        if isinstance(step, int):
            if not (isinstance(value, list) and step < len(value)):
                return
        elif not (isinstance(value, dict) and step in value):
            return
        value = value[step]
    yield value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


# Several filters look at the same lines, one after the other; longer lines are not kept.
_KEPT_LINES, _KEPT_CHARACTERS = 1_000, 4_096


def _document(message: str) -> Any:
    """Return the JSON that a whole message is; None if it is not. Nobody may change it."""
    return _kept_document(message) if len(message) <= _KEPT_CHARACTERS else _read_document(message)


@lru_cache(maxsize=_KEPT_LINES)
def _kept_document(message: str) -> Any:
    return _read_document(message)


def _read_document(message: str) -> Any:
    try:
        return _decode(message)
    except (ValueError, RecursionError):
        return None


# ---- Space-delimited fields --------------------------------------------------------------------------------

# What is between brackets or double quotes is one field.
_FIELD = re.compile(r'"(?P<quoted>[^"]*)"(?=\s|$)|\[(?P<bracketed>[^\]]*)\](?=\s|$)|\S+')
_FIELD_NAME = re.compile(r"[A-Za-z0-9_]+")
_ELLIPSIS = "..."


@dataclass(frozen=True)
class _Slot:
    """A place in a space-delimited pattern; `...` is None in a list of them."""

    name: str
    test: Test | None


def _fields_pattern(text: str) -> Pattern:
    if not text.endswith("]"):
        _refuse("no ] at its end")
    tokens = _Tokens(text[1:-1])
    slots: list[_Slot | None] = [None] if tokens.ended else [_slot(tokens)]  # `[]` is any number of fields
    while tokens.took(","):
        slots.append(_slot(tokens))
    if not tokens.ended:
        _refuse(f"unexpected {tokens.peek()!r}")
    _within_quotas(tokens)
    names = [slot.name for slot in slots if slot and slot.name]
    if len(set(names)) < len(names) or slots.count(None) > 1:
        _refuse(f"each field once, and at most one {_ELLIPSIS}")

    def fields(message: str) -> dict[str, str] | None:
        found = _fields(message, slots)
        if found is None:
            return None
        return {f"${name}": value for name, value in found}

    def select(message: str) -> bool:
        return fields(message) is not None

    return Pattern("fields", tokens.regexes, frozenset(f"${name}" for name in names), select, fields)


def _slot(tokens: _Tokens) -> _Slot | None:
    if tokens.took(_ELLIPSIS):
        return None
    if tokens.ended or tokens.peek() == ",":
        return _Slot("", None)
    name = tokens.peek()

    def condition(tokens: _Tokens) -> _Condition:
        field = tokens.take()
        # An older edition of the page set a condition on another field; the service refused that:
        # https://github.com/awsdocs/amazon-cloudwatch-logs-user-guide/issues/21
        if field.kind != "word" or field.text != name or not _FIELD_NAME.fullmatch(name):
            _refuse(f"a condition on the field itself was expected, not {field.text!r}")
        if tokens.ended or tokens.peek() == ",":
            return _Condition(lambda _: True)
        return _comparison(tokens, _number_in_text)

    return _Slot(name, _either(tokens, condition).test)


def _fields(message: str, slots: Sequence[_Slot | None]) -> list[tuple[str, str]] | None:
    """Return names and values of a message's fields; None if it has too few or a condition fails."""
    found = list(_FIELD.finditer(message))
    values = [field[field.lastgroup or 0] for field in found]
    if None in slots:
        room = len(values) - (len(slots) - 1)
        if room < 0:
            return None
        at = slots.index(None)
        unnamed: list[_Slot | None] = [_Slot("", None)] * room
        slots = [*slots[:at], *unnamed, *slots[at + 1 :]]
    elif len(values) < len(slots):
        return None
    elif len(values) > len(slots):
        # The last field takes the rest, as AWS's own `[timestamp=*Z, request_id="*-*", event]` needs it:
        # aws-lambda-log-example.json in github.com/amazon-archives/cloudwatch-logs-subscription-consumer
        values[len(slots) - 1 :] = [message[found[len(slots) - 1].start() :].rstrip()]
    pairs = []
    for number, (slot, value) in enumerate(zip(slots, values, strict=True), 1):
        if slot and slot.test and not slot.test(value):
            return None
        pairs.append((slot.name if slot and slot.name else str(number), value))
    return pairs
