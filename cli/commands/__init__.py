"""The commands of `tagline`, by subject: arguments, and what is printed. The work is done in `cli/`."""
