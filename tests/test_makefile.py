"""Targets of the Makefile that no other test runs."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def made(folder: Path, *target: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "Makefile", folder)
    return subprocess.run(["make", *target], cwd=folder, capture_output=True, text=True, check=False)


def test_clean_removes_what_the_commands_of_the_pages_write(tmp_path: Path) -> None:
    for name in ("usage.zip", "november.zip", "report.html", ".tagline/report.html", "kept.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    assert made(tmp_path, "clean").returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"Makefile", "kept.py"}


@pytest.mark.parametrize(("limit", "status"), [(2, 2), (4, 0)])
def test_size_compares_what_is_installed_with_its_limit(limit: int, status: int, tmp_path: Path) -> None:
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (tmp_path / "requirements").mkdir()
    for name in ("pyproject.toml", "requirements/run.txt", ".venv/bin/python", ".venv/run.stamp"):
        (tmp_path / name).touch()
    (venv / "library").write_bytes(b"\1" * 3 * 2**20)

    done = made(tmp_path, "size", f"MAX_MB={limit}")

    assert (done.returncode, f"3 MB (limit {limit})" in done.stdout.replace("4 MB", "3 MB")) == (status, True)
    assert "MAX_MB ?= 350\n" in (ROOT / "Makefile").read_text()
