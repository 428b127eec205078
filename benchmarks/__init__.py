"""Numbers: python -m benchmarks NAME --json."""
