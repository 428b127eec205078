"""Usage: roll-ups of the records, and the answers, the page and the metrics made from them."""
