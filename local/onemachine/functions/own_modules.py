"""Separate modules for each function that runs in this interpreter, as in separate processes.

What a function imports is looked for in its own folders first, whatever the interpreter has loaded under the
same name: a function's `cli` is not that of the program which runs it, and the `app`s of two functions are
two modules. The standard library and installed packages that are loaded already are everyone's.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import importlib.util
import site
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

# sys.modules is the whole interpreter's. Code keeps the modules that it has imported: they have to be in it
# only while something is imported.
_turn = threading.RLock()
# A process loads a compiled module once: what has one in it is everyone's.
_compiled: set[str] = set()
# Names of what is in functions' folders. While a function imports one, sys.modules has its module: whoever
# else imports one waits, or would get that.
_names: set[str] = set()
_import_of_python = builtins.__import__
_importlib = vars(sys.modules["_frozen_importlib"])
_import_by_name: Callable[[str, str | None, int], ModuleType] = _importlib[
    "_gcd_import"
]  # of `import_module`


class OwnModules:
    """The modules of one execution environment.

    Args:
        folders: Where they are looked for, the first first.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [str(folder) for folder in folders]
        self._loaded: dict[str, dict[str, ModuleType]] = {}
        self._is_own: dict[str, bool] = {}
        self._importing: list[str] = []
        _names.update(each.stem for folder in folders if folder.is_dir() for each in folder.iterdir())
        builtins.__import__ = _import_in_turn
        _importlib["_gcd_import"] = _import_by_name_in_turn
        self._builtins = {**vars(builtins), "__import__": self._import}
        self._importlib = ModuleType("importlib")
        vars(self._importlib).update(vars(importlib), import_module=self.import_module)

    def import_module(self, name: str, package: str | None = None) -> ModuleType:
        """Import a module as `importlib.import_module` does.

        Args:
            name: Its name.
            package: Where a name that begins with a dot is relative to.

        Raises:
            ImportError: It cannot be found, or imports what cannot be found.
        """
        name = importlib.util.resolve_name(name, package)
        with self._in_place(name.partition(".")[0]):
            return importlib.import_module(name)

    def find_spec(self, name: str, path: Sequence[str] | None = None, _: object = None) -> ModuleSpec | None:
        """Find one of the function's modules; Python's import system calls it."""
        if name.partition(".")[0] not in self._importing:
            return None
        spec = PathFinder.find_spec(name, self._folders if path is None else path)
        if spec and isinstance(spec.loader, SourceFileLoader) and spec.origin:
            spec.loader = _Loader(name, spec.origin, self._builtins)
        elif spec and spec.loader is None and spec.submodule_search_locations:
            # A package without __init__.py would look through sys.path again.
            spec.submodule_search_locations = list(spec.submodule_search_locations)
        return spec

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the names are Python's
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        """Carry out an import statement of the function."""
        if name == "importlib" and not level:
            return self._importlib
        top = (globals["__name__"] if level and globals else name).partition(".")[0]
        loaded = None if level else self._loaded.get(top, {}).get(name)
        if loaded and fromlist and all(hasattr(loaded, each) for each in fromlist):
            return loaded
        with self._in_place(top):
            return builtins.__import__(name, globals, locals, fromlist, level)

    @contextlib.contextmanager
    def _in_place(self, top: str) -> Iterator[None]:
        """Have the function's modules of one name in sys.modules, in place of everyone's."""
        with _turn:
            if top in self._importing or not self._own(top):
                yield
                return
            everyones = _taken_out(top)
            sys.modules.update(self._loaded.get(top, {}))
            sys.meta_path.insert(0, self)
            self._importing.append(top)
            try:
                yield
            finally:
                self._importing.remove(top)
                sys.meta_path.remove(self)
                own = _taken_out(top)
                if any(isinstance(each.__loader__, ExtensionFileLoader) for each in own.values()):
                    _compiled.add(top)
                    everyones = {**own, **everyones}
                else:
                    self._loaded[top] = own
                sys.modules.update(everyones)

    def _own(self, top: str) -> bool:
        """Say whether a name is that of a module in the function's folders, and not everyone's."""
        if top in _compiled:
            return False
        if top not in self._is_own:
            spec = None if top in sys.stdlib_module_names else PathFinder.find_spec(top, self._folders)
            place = "" if spec is None else _place(sys.modules.get(top))
            # A folder without __init__.py is a package only where no installed one has the name.
            self._is_own[top] = (
                spec is not None
                and place not in _installed()
                and (spec.loader is not None or PathFinder.find_spec(top, list(_installed())) is None)
            )
        return self._is_own[top]


def _import_in_turn(
    name: str,
    globals: Mapping[str, object] | None = None,  # noqa: A002 - the names are Python's
    locals: Mapping[str, object] | None = None,  # noqa: A002
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """Carry out an import statement, once no function imports something of this name."""
    with _turn_for(str(globals["__name__"]) if level and globals else name):
        return _import_of_python(name, globals, locals, fromlist, level)


def _import_by_name_in_turn(name: str, package: str | None = None, level: int = 0) -> ModuleType:
    with _turn_for(package if level and package else name):
        return _import_by_name(name, package, level)


def _turn_for(name: str) -> contextlib.AbstractContextManager[object]:
    return _turn if name.partition(".")[0] in _names else contextlib.nullcontext()


class _Loader(SourceFileLoader):
    """Gives a module the import statement of its function."""

    def __init__(self, name: str, path: str, names: Mapping[str, Any]) -> None:
        super().__init__(name, path)
        self._names = names

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = self._names
        super().exec_module(module)


def _taken_out(top: str) -> dict[str, ModuleType]:
    """Take a module and what is in it out of those that are loaded, and return them by name."""
    names = [name for name in list(sys.modules) if name == top or name.startswith(f"{top}.")]
    return {name: sys.modules.pop(name) for name in names}


def _place(module: ModuleType | None) -> str:
    """Return the folder in which a loaded module was found; empty if it is not known."""
    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    if not origin:
        return ""
    path = Path(origin)
    return str(path.parents[1] if path.stem == "__init__" else path.parent)


@cache
def _installed() -> frozenset[str]:
    """Return the folders of installed packages."""
    return frozenset([*site.getsitepackages(), site.getusersitepackages()])
