"""A command and a run directory, somewhere: processes here, machines elsewhere, and who fell silent."""
