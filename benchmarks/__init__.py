"""What is measured: `python -m benchmarks [NAME] [--json]`. Each module's `run` returns its numbers."""
