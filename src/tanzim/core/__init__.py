"""Ground floor: errors, records, configuration base, run directory and files. Imports no torch."""
