"""`tagline dashboard`: the page as a file, or in a browser."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from onemachine.pipeline import Pipeline

from cli.target import target_of, write_running


def test_the_page_of_now_is_saved_or_opened(
    tagline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_running(target_of(tagline))
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}\n')
    browser.chmod(0o755)

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tagline_pipeline", "dashboard", *options],
            env={**os.environ, "BROWSER": f"{browser} %s"},
            capture_output=True,
            text=True,
            check=False,
        )

    saved, nowhere, shown = run("--file", "report.html"), run("--file", "none/report.html"), run()

    assert saved.returncode == 0, saved.stderr
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "0 routes" in page
    assert (nowhere.returncode, "cannot be written" in nowhere.stderr) == (1, True)
    assert opened.read_text() == shown.stdout.strip()
    assert "usage/page.html" in shown.stdout
