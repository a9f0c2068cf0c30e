"""Texts made to hang patterns: every step that looks at texts takes them in bounded time and memory.

Each step works in a process of its own that the system stops at 3 GB of address space or 60 s of computing;
a pattern that backtracks would take years for some of these.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tanzim.data.steps import STEPS

pytestmark = pytest.mark.slow

_N = 100_000
_PARTS = [
    "a", "1", ".", "(", "<", "&", '"', "\r", "\n", "\t", "?!", "! ", "- ", "> ", "1-", "a@", "a.", "&a",
    "<a ", "a/", "aب", "می ", "می\u200c", "\u200c", "ـ", "\u064e", "e\u0301", "👩\u200d", "tea ", "+98 ",
    "۰۹", "IR 0", "http://", "password=", "CC BY ", "a.b-c_d+", "sk-a", "eyJ", "|-", "#", "```\n", "از ",
    "نمی\u200c", "Ã", "ط§",
]  # fmt: skip
TEXTS = [(part * _N)[:_N] + end for part in _PARTS for end in ("", "x", "@")]
# Those that need nothing but texts; dedup, too, since it folds and cuts them by patterns.
WORKS = [
    "repair_text", "html", "boilerplate", "unicode", "missing", "persian", "language", "quality",
    "repetition", "linguistic", "sentences", "secrets", "licence", "dedup_exact",
    "dedup_fuzzy", "length", "pii",
]  # fmt: skip
RUN = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from tanzim.core.records import Example, Provenance
from tanzim.data.apply import apply_step
texts = json.load(sys.stdin)
examples = [Example("text", Provenance("a", row), text=text) for row, text in enumerate(texts, 1)]
done = apply_step(examples, {"type": sys.argv[1]}, workers=1)
print(len(done.examples) + len(done.removed))
"""


@pytest.mark.parametrize("step", WORKS)
def test_no_text_hangs_a_step(step: str) -> None:
    assert step in STEPS
    done = subprocess.run(
        [sys.executable, "-c", RUN, step],
        input=json.dumps(TEXTS), capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.splitlines()[-1]) >= len(TEXTS)
