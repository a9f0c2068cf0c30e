"""Preparing ten times the rows: peak memory is to stay flat within 20 %, time is to grow in line.

    python bench/prepare_growth.py [--rows 100000 1000000] [--full] [--work FOLDER]

Writes JSON Lines of chat rows, English and Persian, one in ten the same as an earlier one and one in ten
nearly; prepares each file (read, clean, exact and fuzzy duplicates, split) in a process of its own, and adds
up the memory of that process and all its workers several times a second (PSS: shared pages count once).
Beside the wall time stands the CPU time of them all, which says more on a machine that others are using.
``--full`` goes on to 10 million rows. The last line is JSON.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

STEPS = ("length", "unicode", "persian", "quality", "dedup_exact", "dedup_fuzzy")
CHILD = """
import json, sys, time
from pathlib import Path
from tanzim.data.config import DataConfig
from tanzim.data.prepare import prepare
seconds, last = {}, (time.perf_counter(), "reading")
def progress(done, total, note):
    global last
    name = note.split()[0].strip(":") if note.startswith(("reading", "counting")) else note.split(":")[0]
    now = time.perf_counter()
    seconds[last[1]] = seconds.get(last[1], 0) + now - last[0]
    last = (now, name)
if __name__ == "__main__":
    steps = [{"type": name} for name in json.loads(sys.argv[3])]
    start = time.perf_counter()
    report = prepare(DataConfig(path=sys.argv[1], steps=steps), Path(sys.argv[2]), seed=13, progress=progress)
    wall = time.perf_counter() - start
    progress(0, 0, "")
    print(json.dumps({"rows": report.rows_read, "splits": report.splits, "seconds": wall, "parts": seconds,
        "removed": {step["type"]: sum(step["removed"].values()) for step in report.steps},
        "leaks": sum(report.leakage["dropped"].values())}))
"""


def write_rows(path: Path, count: int) -> None:
    """Write ``count`` chat rows of about 450 bytes."""
    rng = random.Random(5)
    latin = ["".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randint(2, 9))) for _ in range(20_000)]
    persian = [
        "".join(rng.choices("ابپتثجچحخدذرزژسشصضطظعغفقکگلمنوهی", k=rng.randint(2, 8))) for _ in range(20_000)
    ]
    persian += [f"می\u200c{word}" for word in persian[:2000]]
    lines: list[str] = []
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            if len(lines) >= 1000 and number % 5 == 0:
                line = rng.choice(lines)
                if number % 10:  # one word of about forty another one
                    turns = json.loads(line)["messages"]
                    said = turns[1]["content"].split()
                    said[rng.randrange(len(said))] = rng.choice(latin)
                    turns[1]["content"] = " ".join(said)
                    line = json.dumps({"messages": turns}, ensure_ascii=False)
            else:
                words = persian if number % 2 else latin
                turns = [
                    {"role": "user", "content": " ".join(rng.choices(words, k=16)) + "?"},
                    {"role": "assistant", "content": " ".join(rng.choices(words, k=44)) + "."},
                ]
                line = json.dumps({"messages": turns}, ensure_ascii=False)
                if len(lines) < 100_000:
                    lines.append(line)
                else:
                    lines[rng.randrange(len(lines))] = line
            file.write(line + "\n")


class Memory(threading.Thread):
    """Watches a process and all that it starts.

    Attributes:
        peak: most memory they held together so far, in bytes.
        most: what each process held then.
        seconds: CPU time of each process, as last seen.

    """

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.root, self.peak, self.most = root, 0, {}
        self.seconds: dict[int, float] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        """Look again and again until it has ended."""
        while not self.ended.wait(0.2):
            pids = tree(self.root)
            self.seconds |= {pid: used for pid in pids if (used := cpu(pid))}
            held = {pid: size for pid in pids if (size := pss(pid))}
            total = sum(held.values())
            if total > self.peak:
                self.peak, self.most = total, held


def tree(root: int) -> list[int]:
    """Return a process and all below it."""
    found = [root]
    for pid in found:
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except OSError:
            continue
    return found


def pss(pid: int) -> int:
    """Return the memory of a process, shared pages in equal parts, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def cpu(pid: int) -> float:
    """Return the CPU time of a process so far, in seconds."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(count: int, steps: list[str], work: Path | None) -> dict:
    with tempfile.TemporaryDirectory(prefix="tanzim-growth-", dir=work) as folder:
        file = Path(folder) / "rows.jsonl"
        write_rows(file, count)
        child = Path(folder) / "child.py"
        child.write_text(CHILD)
        command = [sys.executable, str(child), str(file), f"{folder}/out", json.dumps(steps)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        memory = Memory(process.pid)
        memory.start()
        output, _ = process.communicate()
        memory.ended.set()
        memory.join()
        if process.returncode:
            raise SystemExit(f"preparing {count:,} rows failed")
        found = json.loads(output.splitlines()[-1])
        disk = sum(
            f.stat().st_blocks * 512 for f in {f.stat().st_ino: f for f in Path(folder).rglob("*")}.values()
        )
        return {
            **found,
            "file_mb": round(file.stat().st_size / 2**20, 1),
            "disk_mb": round(disk / 2**20, 1),
            "cpu_s": round(sum(memory.seconds.values()), 1),
            "peak_mb": round(memory.peak / 2**20, 1),
            "processes_mb": sorted((round(size / 2**20, 1) for size in memory.most.values()), reverse=True),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--steps", nargs="+", default=list(STEPS))
    parser.add_argument(
        "--full", action="store_true", help="10 million rows, too (an hour or two, 60 GB of disk)"
    )
    parser.add_argument("--work", type=Path, help="where to write")
    arguments = parser.parse_args()
    from tanzim.data.steps import STEPS as known

    steps = [name for name in arguments.steps if name in known]
    for name in set(arguments.steps) - set(steps):
        print(f"there is no step '{name}' yet: left out")
    results = []
    for count in [*arguments.rows, *([10_000_000] if arguments.full else [])]:
        result = measure(count, steps, arguments.work)
        results.append(result)
        print(
            f"{result['rows']:>10,} rows, {result['file_mb']:,} MB: "
            f"{result['seconds']:.1f} s ({result['cpu_s']} s CPU), "
            f"peak {result['peak_mb']} MB {result['processes_mb']}, {result['disk_mb']:,} MB on disk, "
            f"removed {result['removed']}, leaks {result['leaks']}",
            flush=True,
        )
        for name, seconds in result["parts"].items():
            if seconds >= 0.05:
                print(
                    f"    {name:<24}{seconds:>8.1f} s {result['rows'] / seconds:>12,.0f} rows/s", flush=True
                )
    first, last = results[0], results[-1]
    times = last["rows"] / first["rows"]
    growth = {
        "memory": round(last["peak_mb"] / first["peak_mb"], 3),
        "time_per_row": round(last["seconds"] / first["seconds"] / times, 3),
        "cpu_per_row": round(last["cpu_s"] / first["cpu_s"] / times, 3),
    }
    print(json.dumps({"runs": results, "rows": times, "ratio": growth}))


if __name__ == "__main__":
    main()
