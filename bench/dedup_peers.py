"""One run of one engine of deduplication over Parquet files, for `dedup_throughput.py`.

    python bench/dedup_peers.py ENGINE FOLDER OUT SETTINGS

FOLDER holds ``*.parquet`` with the columns id and text, and ``warm/`` with a few more for a run before.
Writes to OUT the ids that are kept, and prints the seconds and CPU seconds from files to that list. It needs
nothing of this project unless the engine is tanzim, so that it runs in an environment of the peers' own.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

CORES = 2
Settings = dict[str, Any]


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def kept_by_flags(folder: Path, flags: Any) -> np.ndarray:  # noqa: ANN401
    ids = np.concatenate(
        [pq.read_table(path, columns=["id"]).column(0).to_numpy() for path in files_of(folder)]
    )
    return ids[np.asarray(flags, bool)]


def words(text: str, size: int) -> list[str]:
    """Return the runs of so many words; of characters, if negative."""
    if size < 0:
        return [text[i : i - size] for i in range(max(1, len(text) + size + 1))]
    found = text.split()
    return (
        found if size == 1 else [" ".join(found[i : i + size]) for i in range(max(1, len(found) - size + 1))]
    )


def texts_of(path: Path) -> list[str]:
    return pq.read_table(path, columns=["text"]).column(0).to_pylist()


def tanzim(folder: Path, settings: Settings, work: Path) -> np.ndarray:
    from tanzim.data.dedup.plain import near_duplicates

    def batches() -> Any:  # noqa: ANN401
        for path in files_of(folder):
            yield from (
                batch.column(0) for batch in pq.ParquetFile(path).iter_batches(4096, columns=["text"])
            )

    stands = near_duplicates(batches(), work, **settings)
    return kept_by_flags(folder, stands == np.arange(len(stands)))


def _rensa_sketches(task: tuple[Path, Settings]) -> list[Any]:
    import rensa

    path, settings = task
    tokens = [words(text.lower(), settings["ngram"]) for text in texts_of(path)]
    kind = getattr(rensa, settings.get("sketch", "RMinHash"))
    return kind.from_token_sets(tokens, settings["num_perm"], 42)


def rensa_pool(folder: Path, settings: Settings, work: Path) -> np.ndarray:
    """Sketch in a process per core; index in this one."""
    import rensa

    kind = getattr(rensa, settings.get("sketch", "RMinHash") + "Deduplicator")
    index = kind(settings["threshold"], settings["num_perm"], True, settings.get("num_bands"))
    flags: list[bool] = []
    tasks = [(path, settings) for path in files_of(folder)]
    with multiprocessing.get_context("fork").Pool(CORES) as pool:
        for sketches in pool.imap(_rensa_sketches, tasks):
            flags += index.add_pairs((str(len(flags) + i), sketch) for i, sketch in enumerate(sketches))
    return kept_by_flags(folder, flags)


def rensa_stream(folder: Path, settings: Settings, work: Path) -> np.ndarray:
    """The README's pipeline: one deduplicator fed with words."""
    import rensa

    index = rensa.RMinHashDeduplicator(
        settings["threshold"], settings["num_perm"], True, settings.get("num_bands")
    )
    flags: list[bool] = []
    for path in files_of(folder):
        start = len(flags)
        flags += index.add_pairs(
            (str(start + i), words(text.lower(), settings["ngram"])) for i, text in enumerate(texts_of(path))
        )
    return kept_by_flags(folder, flags)


def rensa_rho(folder: Path, settings: Settings, work: Path) -> np.ndarray:
    """The batch pipeline of its benchmarks, with its own threads. It flags all of a group, the first too."""
    import rensa

    tokens: list[list[str]] = []
    for path in files_of(folder):
        tokens += [words(text.lower(), settings["ngram"]) for text in texts_of(path)]
    matrix = rensa.RMinHash.digest_matrix_from_token_sets_rho(tokens, settings["num_perm"], 42)
    index = rensa.RMinHashLSH(settings["threshold"], settings["num_perm"], settings["num_bands"])
    return kept_by_flags(folder, ~np.array(index.query_duplicate_flags_matrix_one_shot(matrix), bool))


def _datasketch_sketches(task: tuple[Path, Settings]) -> np.ndarray:
    import xxhash
    from datasketch import MinHash

    path, settings = task
    tokens = ([word.encode() for word in words(text.lower(), settings["ngram"])] for text in texts_of(path))
    kind = {"num_perm": settings["num_perm"], "hashfunc": xxhash.xxh32_intdigest}
    return np.array([sketch.hashvalues for sketch in MinHash.generator(tokens, **kind)])


def datasketch(folder: Path, settings: Settings, work: Path) -> np.ndarray:
    """Sketch in a process per core; query and insert in this one."""
    from datasketch import LeanMinHash, MinHash, MinHashLSH

    index = MinHashLSH(threshold=settings["threshold"], num_perm=settings["num_perm"])
    scheme = MinHash(num_perm=settings["num_perm"]).scheme
    flags: list[bool] = []
    tasks = [(path, settings) for path in files_of(folder)]
    with multiprocessing.get_context("fork").Pool(CORES) as pool:
        for values_NK in pool.imap(_datasketch_sketches, tasks):
            for values in values_NK:
                sketch = LeanMinHash(seed=1, hashvalues=values, scheme=scheme)
                flags.append(not index.query(sketch))
                if flags[-1]:
                    index.insert(len(flags), sketch, check_duplication=False)
    return kept_by_flags(folder, flags)


def text_dedup(folder: Path, settings: Settings, work: Path) -> np.ndarray:
    import datasets
    from text_dedup import minhash

    datasets.disable_progress_bars()
    options = {
        "path": "parquet",
        "data_files": str(folder / "*.parquet"),
        "split": "train",
        "cache_dir": work / "cache",
        "output": work / "out",
        "column": "text",
        "num_proc": CORES,
        **settings,
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    minhash.main(arguments, standalone_mode=False)
    return np.array(datasets.load_from_disk(str(work / "out"))["id"])


def datatrove(folder: Path, settings: Settings, work: Path) -> np.ndarray:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    config = MinhashConfig(**settings)
    reader = ParquetReader(str(folder), glob_pattern="*.parquet", recursive=False)
    tasks = len(files_of(folder))
    stages = (
        (tasks, [reader, MinhashDedupSignature(str(work / "signatures"), config=config)]),
        (
            config.num_buckets,
            [MinhashDedupBuckets(str(work / "signatures"), str(work / "buckets"), config=config)],
        ),
        (1, [MinhashDedupCluster(str(work / "buckets"), str(work / "remove"), config=config)]),
        (tasks, [reader, MinhashDedupFilter(str(work / "remove")), ParquetWriter(str(work / "out"))]),
    )
    for number, (count, pipeline) in enumerate(stages):
        LocalPipelineExecutor(
            pipeline, tasks=count, workers=min(CORES, count), logging_dir=str(work / f"log{number}")
        ).run()
    found = [
        pq.read_table(path, columns=["id"]).column(0).to_pylist()
        for path in (work / "out").rglob("*.parquet")
    ]
    return np.array([int(one) for part in found for one in part])


ENGINES = {
    "tanzim": tanzim,
    "rensa": rensa_pool,
    "rensa_stream": rensa_stream,
    "rensa_rho": rensa_rho,
    "datasketch": datasketch,
    "text_dedup": text_dedup,
    "datatrove": datatrove,
}


def cpu_seconds() -> float:
    """Return what this process and its ended children have computed."""
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


def main() -> None:
    name, folder, out, settings = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4])
    engine = ENGINES[name]
    seconds = cpu = kept = None
    for source in (folder / "warm", folder):
        work = Path(tempfile.mkdtemp(dir=out.parent))
        try:
            with contextlib.redirect_stdout(sys.stderr):
                started, before = time.perf_counter(), cpu_seconds()
                kept = engine(source, settings, work)
                seconds, cpu = time.perf_counter() - started, cpu_seconds() - before
        finally:
            shutil.rmtree(work, ignore_errors=True)
    np.save(out, kept)
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main()
