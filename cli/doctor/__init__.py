"""What is wrong with a pipeline: its settings looked at one by one, and a record followed through it."""
