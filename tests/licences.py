"""The licences of pinned packages, as their metadata declare them, in SPDX's words."""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
# Licences that let us ship a package beside Apache-2.0 code, on the condition that its notice stays with it.
ALLOWED = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-0"),
    *("PSF-2.0", "Zlib"),
    "MPL-2.0",  # its condition is for changed files of the package, and none is changed
}
# What metadata write instead of SPDX's identifiers: classifiers, and the field License.
SPDX = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd license": "BSD-3-Clause",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mit no attribution license (mit-0)": "MIT-0",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}
# Read by a person, because the metadata name more than what is installed.
READ = {
    "docutils": "BSD-2-Clause",  # its GPL is for a mode of Emacs, which no wheel has
}
PIN = re.compile(r"(?m)^(?P<name>[a-z0-9._-]+)(?:\[.*?\])?==(?P<version>\S+)(?: ; (?P<marker>.*?))? \\$")

INNERMOST = re.compile(r"\(([^()]*)\)")


class Pinned(NamedTuple):
    """A package of a list.

    Attributes:
        name: Its name.
        version: Its version.
        sometimes: Whether only some systems or versions of Python install it.
    """

    name: str
    version: str
    sometimes: bool


def pinned(list_name: str) -> Iterator[Pinned]:
    """Yield the packages of a list in requirements/."""
    text = (ROOT / "requirements" / f"{list_name}.txt").read_text()
    for pin in PIN.finditer(text):
        yield Pinned(pin["name"], pin["version"], pin["marker"] is not None)


def licence(package: Distribution) -> str:
    """Return a package's licence as an expression of SPDX, or what its metadata write, if that is unknown."""
    metadata = package.metadata
    for expression in (READ.get(metadata["Name"]), *metadata.get_all("License-Expression", [])):
        if expression:
            return str(expression)
    classifiers = [each for each in metadata.get_all("Classifier", []) if each.startswith("License ::")]
    names = [each.rpartition(" :: ")[2] for each in classifiers] or metadata.get_all("License", ["unknown"])
    return " AND ".join(SPDX.get(each.lower(), each) for each in names)


def is_allowed(expression: str) -> bool:
    """Return whether one way to read an expression has allowed licences only. AND binds more than OR."""
    while (simpler := INNERMOST.sub(_decided, expression)) != expression:
        expression = simpler
    return any(
        all(each.strip() in ALLOWED for each in choice.split(" AND ")) for choice in expression.split(" OR ")
    )


def _decided(inner: re.Match[str]) -> str:
    return "MIT" if is_allowed(inner[1]) else "not allowed"
