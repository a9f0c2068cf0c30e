"""``tanzim`` with small shards and, as ``SLOWED`` says, slow steps or slow reading: to be killed."""

import os
import signal
import time

from tanzim.data import shards
from tanzim.data.clean.length import Length
from tanzim.data.ingest.read import Ingest

shards.ROWS = 400


def slowed(function):
    def slow(*args, **kwargs):
        for number, item in enumerate(function(*args, **kwargs)):
            if number % 100 == 0:
                time.sleep(0.1)
            yield item

    return slow


if os.environ.get("SLOWED") == "step":
    Length.apply = slowed(Length.apply)
if os.environ.get("SLOWED") == "reading":
    Ingest.items = slowed(Ingest.items)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    from tanzim.cli.main import main

    main()
