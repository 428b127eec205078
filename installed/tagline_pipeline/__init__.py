"""What an installation has besides the emitter and `onemachine`, under one name.

The pipeline's packages (`cli`, `consumers`, `exporter`) have names that a project may have as well. So they
are in this package where they are installed, and only the command's process imports them from there.
"""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
# Where they are: here, or in the repository whose clone is installed.
FOLDER = _HERE if (_HERE / "cli").is_dir() else _HERE.parents[1]


def run() -> None:
    """Run the `tagline` command."""
    sys.path.insert(0, str(FOLDER))
    from cli.__main__ import main

    main()
