"""New training examples, written by a language model and checked by one."""
