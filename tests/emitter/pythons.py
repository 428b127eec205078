"""The Python interpreters that are on this machine, from the oldest that the emitter promises."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

EMITTER = Path(__file__).parents[2] / "emitter"
OLDEST = (3, 9)
NEWEST_TRIED = 20


@cache
def pythons() -> dict[str, str]:
    """Return the interpreters that are here by version: the running one, on PATH, and pyenv's."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in range(OLDEST[1], NEWEST_TRIED):
        name = f"python3.{minor}"
        for path in (shutil.which(name), *map(str, sorted(pyenv.glob(f"3.{minor}.*/bin/{name}")))):
            if path and f"3.{minor}" not in found:
                asked = subprocess.run(
                    [path, "-c", "import sys; print(*sys.version_info[:2], sep='.')"],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if asked.stdout.strip() == f"3.{minor}":
                    found[f"3.{minor}"] = path
    return found
