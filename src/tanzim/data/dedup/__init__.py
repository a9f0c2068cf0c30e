"""Examples that say the same, to the letter, nearly, or in other words."""
