"""Records become rows in a store."""
