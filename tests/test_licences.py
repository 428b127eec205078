"""Every package that is pinned for functions, the command and the tests has an allowed licence."""

from importlib.metadata import PackageNotFoundError, PathDistribution, distribution
from pathlib import Path

import pytest

from tests.licences import is_allowed, licence, pinned
from tests.supply import FUNCTIONS, list_of

LISTS = sorted({"run", "test", *map(list_of, FUNCTIONS)})


@pytest.mark.parametrize("name", LISTS)
def test_every_package_of_a_list_has_an_allowed_licence(name: str) -> None:
    found, absent = {}, []
    for package in pinned(name):
        try:
            found[package.name] = licence(distribution(package.name))
        except PackageNotFoundError:
            absent.append(package)
    assert all(package.sometimes for package in absent)
    assert len(found) >= 3
    assert {package: each for package, each in found.items() if not is_allowed(each)} == {}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["License-Expression: MIT OR Apache-2.0", "License: other"], "MIT OR Apache-2.0"),
        (["Classifier: License :: OSI Approved :: BSD License", "License: BSD"], "BSD-3-Clause"),
        (
            ["Classifier: License :: OSI Approved", "Classifier: License :: OSI Approved :: MIT License"],
            "OSI Approved AND MIT",
        ),
        (
            ["Classifier: License :: OSI Approved :: GNU General Public License (GPL)", "License: MIT"],
            "GNU General Public License (GPL)",
        ),
        (["License: Apache-2.0"], "Apache-2.0"),
        (["Classifier: Typing :: Typed"], "unknown"),
    ],
)
def test_a_licence_is_the_expression_then_the_classifiers_then_the_field(
    lines: list[str], expected: str, tmp_path: Path
) -> None:
    metadata = ["Metadata-Version: 2.4", "Name: example", "Version: 1", *lines, "", ""]
    (tmp_path / "METADATA").write_text("\n".join(metadata))
    assert licence(PathDistribution(tmp_path)) == expected


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("unknown", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT AND Apache-2.0", True),
        ("MPL-2.0 AND (Apache-2.0 OR GPL-3.0-only)", True),
        ("(GPL-3.0-only OR AGPL-3.0-only) AND MIT", False),
        ("MIT AND (Apache-2.0 AND (ISC OR GPL-2.0-only))", True),
        ("GNU General Public License (MIT)", False),
        ("Apache-2.0 WITH LLVM-exception", False),
        ("((", False),
        ("", False),
    ],
)
def test_an_expression_is_allowed_if_one_choice_has_allowed_licences_only(
    expression: str, allowed: bool
) -> None:
    assert is_allowed(expression) is allowed
