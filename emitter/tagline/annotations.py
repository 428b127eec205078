"""The names that annotations use, without importing `typing`: that would take longer than the whole emitter.

Type checkers see the real names. At run time `typing.get_type_hints` finds all of them as well: `Any` and the
aliases are `object` then, and `Optional` and `Union` import `typing` when something evaluates them.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any, Optional, Protocol, TypeVar, Union, overload

    Fields = Mapping[str, Any]
    Timestamp = Union[datetime, str, int, float]
    Unit = Union[str, tuple[str, int]]  # a metric's unit, or its unit and its resolution in seconds
    Function = TypeVar("Function", bound=Callable[..., Any])

    class Stream(Protocol):
        """Anything with `write`; `flush` is called if it is there."""

        def write(self, text: str, /) -> object:
            """Write some text."""
else:

    class _Typing:
        """Stands for a name of `typing`."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getitem__(self, parameters: object) -> object:
            import typing

            return getattr(typing, self._name)[parameters]

    Optional, Union = _Typing("Optional"), _Typing("Union")
    Any = Fields = Timestamp = Unit = Stream = object
    Function = Callable

    def overload(function: object) -> object:
        """Stand for `typing.overload`."""
        return function


__all__ = ["TYPE_CHECKING", "Any", "Callable", "Collection", "Fields", "Function", "Iterable", "Iterator"]
__all__ += ["Mapping", "Optional", "Sequence", "Stream", "Timestamp", "Union", "Unit", "overload"]
