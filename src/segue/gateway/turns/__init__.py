"""Running turns, whatever transport asked for them."""
