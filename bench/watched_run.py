"""What the benches that watch a run share: its command until the training is measured, and no further."""

import json
import subprocess
import time
from pathlib import Path
from typing import IO, Any

LOOK_S = 0.2  # between two looks at the plan


def until_measured(words: list[str], plan: Path, **streams: IO[str]) -> dict[str, Any]:
    """Run ``words`` until its ``plan.json`` holds what was measured; cut short what would follow.

    Args:
        words: the command.
        plan: where the run writes its plan.
        streams: stdout and stderr of the command.

    Returns:
        The plan with what was measured; nothing where the command ended before that.

    """
    process = subprocess.Popen(words, **streams)
    while True:
        running = process.poll() is None
        found: dict[str, Any] = json.loads(plan.read_text()) if plan.is_file() else {}
        if "measured" in found:
            process.kill()
            process.wait()
            return found
        if not running:
            return {}
        time.sleep(LOOK_S)
