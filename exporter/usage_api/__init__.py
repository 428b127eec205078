"""The API of usage: numbers, the page, metrics and health, from roll-ups alone."""
