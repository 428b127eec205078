"""What is shipped, for reviewers: `make supply` builds each function for Lambda and writes what is in it.

It writes the components of each to build/sbom/ (CycloneDX, with the hash of each wheel), and prints sizes,
imports and licences beside their limits. `make advisories` asks for known vulnerabilities.

    python -m tests.supply components .venv-supply/bin
    python -m tests.supply advisories .venv-supply/bin
"""

import argparse
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NamedTuple

from tests.licences import is_allowed, licence, pinned

ROOT = Path(__file__).parents[1]
SBOM = ROOT / "build" / "sbom"


class Shipped(NamedTuple):
    """A function, and what its artifact may come to.

    Attributes:
        handler: The module that Lambda imports.
        megabytes: Limit of its artifact's size, with byte code, in 1,000,000 bytes. Lambda's is 262:
            https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
        modules: Limit of the modules in a process that has imported the handler: most of a cold start.
    """

    handler: str
    megabytes: int
    modules: int


FUNCTIONS = {
    "RowConsumer": Shipped("consumers.rows.handler", 55, 540),
    "MeterConsumer": Shipped("consumers.meters.handler", 14, 525),
    "Reconciler": Shipped("consumers.accounts.handler", 14, 525),
    "DailyExporter": Shipped("exporter.export.handler", 195, 540),
    "Upkeep": Shipped("exporter.upkeep.handler", 195, 540),
    "UsageRoller": Shipped("exporter.usage.handler", 195, 635),
    "UsageApi": Shipped("exporter.usage_api.handler", 14, 710),
    "DownloadApi": Shipped("exporter.downloads.handler", 12, 635),
    "DownloadWorker": Shipped("exporter.zips.handler", 14, 525),
}
# Processor time is the best of so many processes.
STARTS = 3
VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(wrong and str(wrong))
"""
IMPORT = """
import sys, time
sys.path[:0] = {folders}
began = time.process_time()
import {module}
took, count = time.process_time() - began, len(sys.modules)
{then}
ours = {{name.partition(".")[0] for name, module in sys.modules.items() if getattr(module, "__file__", None)}}
print(count, took * 1000, *ours & {{"consumers", "exporter", "tagline"}})
"""


def list_of(function: str) -> str:
    """Return the name of the list that a function's rule in the Makefile installs."""
    rule = re.search(rf"(?m)^build-{function}:\n\t\$\(call ship,(\w+),", (ROOT / "Makefile").read_text())
    assert rule is not None, function
    return rule[1]


def megabytes(folder: Path) -> float:
    """Return the size of all files in a folder, in 1,000,000 bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def build(function: str, artifact: Path, report: Path | None = None, **settings: str) -> None:
    """Make a function's artifact, as `sam build` does.

    Args:
        function: The function's name.
        artifact: The folder to fill.
        report: Where pip writes what it installed, if anywhere.
        settings: Variables of the Makefile.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    if report:
        environment["PIP_REPORT"] = str(report)
    settings = {"ARTIFACTS_DIR": str(artifact), "PYTHON": sys.executable, **settings}
    command = ["make", "-s", f"build-{function}", *(f"{name}={value}" for name, value in settings.items())]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)


class Imported(NamedTuple):
    """What a new process did to import a module.

    Attributes:
        modules: How many modules it has then.
        milliseconds: Processor time of the import.
        ours: The packages of ours among them.
    """

    modules: int
    milliseconds: float
    ours: set[str]


def imported(module: str, *folders: Path, then: str = "") -> Imported:
    """Import a module in a new process, which finds packages in these folders and Python's library only."""
    script = IMPORT.format(folders=[str(each) for each in folders], module=module, then=then)
    # -I and -S: neither this checkout nor the virtual environment can be reached.
    command = [sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules, milliseconds, *ours = done.stdout.split()
    return Imported(int(modules), float(milliseconds), set(ours))


def components(function: str, artifact: Path, report: Path, tools: Path) -> dict[str, Any]:
    """Return the CycloneDX document of an artifact.

    Args:
        function: The function's name.
        artifact: The folder that is shipped.
        report: What pip installed there, with hashes.
        tools: The folder with cyclonedx-py.
    """
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=False)  # has the artifact alone
        (packages,) = Path(folder).glob("lib/python*/site-packages")
        (packages / "artifact.pth").write_text(str(artifact))
        command = [f"{tools}/cyclonedx-py", "environment", "--pyproject", f"{ROOT}/pyproject.toml"]
        options = ["--output-reproducible", "--short-PURLs", "-o", "-", f"{folder}/bin/python"]
        done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    document: dict[str, Any] = json.loads(done.stdout)
    document["metadata"]["component"] |= {"group": "tagline-pipeline", "name": function}
    wheels = {
        _normal(each["metadata"]["name"]): each["download_info"]["archive_info"]["hashes"]["sha256"]
        for each in json.loads(report.read_text())["install"]
    }
    for component in document["components"]:
        component["hashes"] = [{"alg": "SHA-256", "content": wheels.pop(_normal(component["name"]))}]
    assert wheels == {}, f"{function}: the document lacks {', '.join(wheels)}"
    return document


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def write_components(tools: Path) -> None:
    """Build all functions for Lambda, write what is in them to build/sbom/, and print sizes and imports."""
    SBOM.mkdir(parents=True, exist_ok=True)
    packages = Path(sysconfig.get_path("purelib"))
    here = (ROOT, ROOT / "emitter", packages)
    boto3 = min(imported("boto3", packages).milliseconds for _ in range(STARTS))
    say(f"{'function':16}{'components':>11}{'MB':>8}{'limit':>7}{'import, ms':>12}{'/ boto3':>9}")
    for function, limits in FUNCTIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            artifact, report = Path(folder) / "artifact", Path(folder) / "report.json"
            build(function, artifact, report)
            document = components(function, artifact, report, tools)
            size = megabytes(artifact)
        text = json.dumps(document, indent=1, sort_keys=True)
        subprocess.run([tools / "python", "-c", VALIDATE], input=text, check=True, text=True)
        (SBOM / f"{function}.json").write_text(f"{text}\n")
        took = min(imported(limits.handler, *here).milliseconds for _ in range(STARTS))
        number = len(document["components"])
        say(f"{function:16}{number:11}{size:8.1f}{limits.megabytes:7}{took:12.0f}{took / boto3:9.2f}")
        if size > limits.megabytes:
            sys.exit(f"{function} is larger than its limit in tests/supply.py.")
    say(f"written to {SBOM.relative_to(ROOT)}/")


def print_licences() -> None:
    """Print the licences of all lists, and fail if what others get has one that is not allowed."""
    lists: dict[str, list[str]] = {}
    absent = set()
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        for package in pinned(path.stem):
            try:
                expression = licence(distribution(package.name))
            except PackageNotFoundError:
                absent.add(package.name)
            else:
                lists.setdefault(f"{package.name:28}{expression}", []).append(path.stem)
    for line, names in sorted(lists.items()):
        say(f"{line:70} {' '.join(names)}")
    say(f"{len(lists)} packages; not installed, so not read: {len(absent)}")
    held = {"run", *map(list_of, FUNCTIONS)}
    if refused := [line for line, names in lists.items() if held & {*names} and not is_allowed(line[28:])]:
        sys.exit("Not allowed by tests/licences.py: " + "; ".join(refused))


def ask_for_advisories(tools: Path) -> None:
    """Ask for known vulnerabilities of what functions and the command install, and fail if there are any."""
    command = [
        f"{tools}/pip-audit",
        "--disable-pip",
        "--require-hashes",
        "--progress-spinner=off",
        "-f",
        "json",
    ]
    lists = sorted({"run", *map(list_of, FUNCTIONS)})
    files = [f"--requirement={ROOT}/requirements/{name}.txt" for name in lists]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    if not done.stdout.startswith("{"):
        sys.exit(f"pip-audit could not ask for advisories: {done.stderr.strip()[-300:]}")
    packages = json.loads(done.stdout)["dependencies"]
    unknown = [each["name"] for each in packages if "skip_reason" in each]
    for each in packages:
        for found in each.get("vulns", ()):
            say(f"{each['name']} {each['version']}: {found['id']}, fixed in {found['fix_versions']}")
    say(f"{len(packages) - len(unknown)} of {len(packages)} packages were looked up.")
    if unknown:
        sys.exit(
            "Nothing is known of the others: the service of advisories did not have or did not answer them."
        )
    sys.exit(done.returncode)


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.supply", description=__doc__)
    parser.add_argument("action", choices=("components", "advisories"))
    parser.add_argument("tools", type=Path, help="the folder with cyclonedx-py and pip-audit")
    asked = parser.parse_args()
    if asked.action == "advisories":
        ask_for_advisories(asked.tools.absolute())
    else:
        write_components(asked.tools.absolute())
        print_licences()


if __name__ == "__main__":
    main()
