"""What a pipeline costs, and what it needs at a rate: prices, sizes, and the arithmetic over them."""
