"""Peak memory of preparing 100 thousand and 1 million rows: it must not grow with the data.

    python bench/data_memory.py [--rows 100000 1000000] [--work FOLDER]

Writes JSON Lines files of chat rows to a temporary folder, prepares each in a process of its own,
and reads that process's peak from the kernel (VmHWM). The last line is JSON.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = """
import json, sys, time
from pathlib import Path
from tanzim.data.config import DataConfig
from tanzim.data.prepare import prepare
calls = 0
def progress(done, total, note):
    global calls
    calls += 1
start = time.perf_counter()
report = prepare(DataConfig(path=sys.argv[1]), Path(sys.argv[2]), seed=13, progress=progress)
seconds = time.perf_counter() - start
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"rows": report.rows_read, "splits": report.splits, "seconds": round(seconds, 1),
    "peak_mb": round(int(peak.split()[1]) / 1024, 1), "progress_calls": calls}))
"""


def write_rows(path: Path, count: int) -> None:
    """Write ``count`` varied chat rows of about 400 bytes."""
    rng = random.Random(5)
    words = ["".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randint(3, 9))) for _ in range(5000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            asked = " ".join(rng.choices(words, k=20))
            answer = " ".join(rng.choices(words, k=25))
            turns = [
                {"role": "user", "content": f"{asked} {number}?"},
                {"role": "assistant", "content": f"{answer}."},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--work", type=Path, help="where to write")
    arguments = parser.parse_args()
    results = []
    for count in arguments.rows:
        with tempfile.TemporaryDirectory(prefix="tanzim-memory-", dir=arguments.work) as folder:
            file = Path(folder) / "rows.jsonl"
            write_rows(file, count)
            size = file.stat().st_size / 2**20
            done = subprocess.run(
                [sys.executable, "-c", CHILD, str(file), f"{folder}/out"],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            result = {**json.loads(done.stdout.splitlines()[-1]), "file_mb": round(size, 1)}
            print(
                f"{result['rows']:>10,} rows  {result['file_mb']:>7} MB file  "
                f"peak {result['peak_mb']:>6} MB  "
                f"{result['seconds']:>6} s",
                flush=True,
            )
            results.append(result)
    first, last = results[0], results[-1]
    growth = (last["peak_mb"] - first["peak_mb"]) * 2**20 / max(1, last["rows"] - first["rows"])
    print(json.dumps({"runs": results, "bytes_per_row": round(growth, 1)}))


if __name__ == "__main__":
    main()
