"""The values of a template's parameters, held against what the template allows."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from onemachine.template.stack import ParameterError

Parameter = str | int | float | list[str]


def parameter_values(declared: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Parameter]:
    """Return the values of declared parameters: those given, then the defaults; or raise ParameterError."""
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise ParameterError(f"parameter {unknown[0]} is unknown; the template has {', '.join(declared)}")
    values: dict[str, Parameter] = {}
    for name, declaration in declared.items():
        if name not in given and "Default" not in declaration:
            raise ParameterError(f"parameter {name} has no default and was not given")
        text = str(given.get(name, declaration.get("Default")))
        # CloudFormation trims the members, and holds each against the constraints.
        members = [member.strip() for member in text.split(",")]
        is_list = declaration["Type"] == "CommaDelimitedList"
        for member in members if is_list else [text]:
            broken = next(_broken_constraints(declaration, member), None)
            if broken:
                why = declaration.get("ConstraintDescription")
                raise ParameterError(f"parameter {name} = {member!r} {broken}" + (f": {why}" if why else ""))
        if is_list:
            values[name] = members
        else:
            values[name] = _number(text) if declaration["Type"] == "Number" else text
    return values


def _broken_constraints(declaration: Mapping[str, Any], text: str) -> Iterator[str]:
    if declaration["Type"] not in {"String", "Number", "CommaDelimitedList"}:
        yield f"is of type {declaration['Type']}; String, Number and CommaDelimitedList can be resolved"
    if "AllowedValues" in declaration:
        allowed = [str(value) for value in declaration["AllowedValues"]]
        if text not in allowed:
            yield f"is not one of {', '.join(allowed)}"
    # CloudFormation compares the whole value with the pattern.
    if "AllowedPattern" in declaration and not re.fullmatch(declaration["AllowedPattern"], text):
        yield f"does not match AllowedPattern {declaration['AllowedPattern']}"
    if declaration["Type"] == "Number" and not re.fullmatch(r"-?\d+(\.\d+)?", text):
        yield "is not a number"
    elif declaration["Type"] == "Number":
        yield from _broken_bounds(declaration, "Value", _number(text))
    else:
        yield from _broken_bounds(declaration, "Length", len(text))


def _broken_bounds(declaration: Mapping[str, Any], of: str, size: float) -> Iterator[str]:
    if f"Min{of}" in declaration and size < float(declaration[f"Min{of}"]):
        yield f"is below Min{of} {declaration[f'Min{of}']}"
    if f"Max{of}" in declaration and size > float(declaration[f"Max{of}"]):
        yield f"is above Max{of} {declaration[f'Max{of}']}"


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)
