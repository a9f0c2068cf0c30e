"""``python -m tanzim`` is the same as ``tanzim``."""

from tanzim.cli.main import main

main()
