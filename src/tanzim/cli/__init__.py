"""The command line: parse, config, pipeline."""
