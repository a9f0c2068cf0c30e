"""Classes that are unevenly common, labels that are wrong: what is done about them, and what it is worth."""
