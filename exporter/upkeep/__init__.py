"""Days verified, clients erased."""
