"""More training examples out of those there are: the words change, the label stays."""
