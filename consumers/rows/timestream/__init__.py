"""The consumer whose store is Timestream."""
