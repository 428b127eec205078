"""Rules of composite alarms: the states of other alarms, with AND, OR and NOT. Pure.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutCompositeAlarm.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

_TOKEN = re.compile(
    r"\s*(?:(?P<state>ALARM|OK|INSUFFICIENT_DATA)\s*\(\s*(?:\"(?P<quoted>[^\"]+)\"|(?P<bare>[^\s()\"]+))\s*\)"
    r"|(?P<word>AND|OR|NOT|TRUE|FALSE)(?!\w)|(?P<bracket>[()]))"
)
MAX_CHILDREN = 100

States = Mapping[str, str]


class InvalidRuleError(ValueError):
    """The rule is not valid."""


@dataclass(frozen=True)
class Rule:
    """A composite alarm's rule.

    Attributes:
        names: The alarms in it, by name, in their order.
        holds: Tells from the states of these alarms whether the composite alarm is in ALARM.
    """

    names: tuple[str, ...]
    holds: Callable[[States], bool]


@cache
def parse_rule(text: str) -> Rule:
    """Parse a rule.

    Raises:
        InvalidRuleError: If it is not valid, or names too many alarms.
    """
    tokens: list[re.Match[str]] = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise InvalidRuleError(f"the rule {text!r} cannot be read from {text[at:].strip()[:20]!r} on")
        tokens.append(match)
        at = match.end()
    parser = _Parser(text, tokens)
    holds = parser.either()
    if parser.tokens:
        raise InvalidRuleError(f"the rule {text!r} is over before {parser.tokens[0][0].strip()!r}")
    names = tuple(dict.fromkeys(parser.names))
    if len(names) > MAX_CHILDREN:
        raise InvalidRuleError(f"the rule names {len(names)} alarms, and may name {MAX_CHILDREN}")
    return Rule(names, holds)


class _Parser:
    def __init__(self, text: str, tokens: list[re.Match[str]]) -> None:
        self.text = text
        self.tokens = tokens
        self.names: list[str] = []

    def next_is(self, text: str) -> bool:
        if self.tokens and self.tokens[0][0].strip() == text:
            self.tokens.pop(0)
            return True
        return False

    def either(self) -> Callable[[States], bool]:
        parts = [self.both()]
        while self.next_is("OR"):
            parts.append(self.both())
        return lambda states: any(part(states) for part in parts)

    def both(self) -> Callable[[States], bool]:
        parts = [self.single()]
        while self.next_is("AND"):
            parts.append(self.single())
        return lambda states: all(part(states) for part in parts)

    def single(self) -> Callable[[States], bool]:
        if self.next_is("NOT"):
            inside = self.single()
            return lambda states: not inside(states)
        if self.next_is("("):
            inside = self.either()
            if not self.next_is(")"):
                raise InvalidRuleError(f"the rule {self.text!r} lacks a closing bracket")
            return inside
        for word, value in (("TRUE", True), ("FALSE", False)):
            if self.next_is(word):
                return lambda _, value=value: value  # type: ignore[misc]
        if not self.tokens or not self.tokens[0]["state"]:
            raise InvalidRuleError(f"the rule {self.text!r} lacks the state of an alarm")
        token = self.tokens.pop(0)
        name, wanted = (token["quoted"] or token["bare"]).rpartition(":alarm:")[2], token["state"]
        self.names.append(name)
        return lambda states: states[name] == wanted
