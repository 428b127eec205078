"""How fast the parts are, each by a function `run` that gives numbers by name."""
