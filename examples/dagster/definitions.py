"""A Tanzim project as Dagster assets: inspected → prepared → trained → evaluated.

Each asset is one ``tanzim`` command, run in the environment that Tanzim is installed in; Dagster's own holds
Dagster alone and never imports it, so that the pins of the two cannot meet. What is said about the data is
read from the run's folder, which is plain JSON.

    TANZIM          the command; default: the one on PATH
    TANZIM_PROJECT  the folder of tanzim.yaml; default: ../shop_messages
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import dagster as dg

MOST_LEFT_OUT = 0.2  # share of the rows
RUN = "runs/messages"  # runs_dir and name in tanzim.yaml


class Tanzim(dg.ConfigurableResource):
    """The ``tanzim`` command and the project it works on."""

    command: str = "tanzim"
    project: str = str(Path(__file__).parents[1] / "shop_messages")

    def run(self, *arguments: str) -> str:
        """Run a command in the project; what it says goes to the step's log, and is returned."""
        # Python paths of this environment are not for the other one.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        said: list[str] = []
        with subprocess.Popen(
            [self.command, *arguments],
            cwd=self.project,
            env={**environment, "PYTHONUTF8": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        ) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    print(line, end="", flush=True)
                    said.append(line)
            except BaseException:  # the run was stopped
                process.terminate()
                raise
        if process.returncode:
            last = "".join(said[-12:]).strip()
            raise dg.Failure(f"tanzim {' '.join(arguments)}: {last}", {"exit status": process.returncode})
        return "".join(said)

    def read(self, name: str) -> Any:  # noqa: ANN401 - any JSON value
        """Read a JSON file of the run."""
        return json.loads((Path(self.project) / RUN / name).read_text(encoding="utf-8"))


messages = dg.AssetSpec("messages", group_name="data", description="The rows as they came in.", kinds={"csv"})


@dg.asset(deps=[messages], group_name="data")
def inspected(tanzim: Tanzim) -> dg.MaterializeResult:
    """What the data is, and what is wrong with it."""
    said = tanzim.run("data", "inspect", "messages.csv")
    return dg.MaterializeResult(metadata={"found": dg.MetadataValue.md(f"```\n{said}\n```")})


@dg.asset(deps=[inspected], group_name="data")
def prepared(tanzim: Tanzim) -> dg.MaterializeResult:
    """Cleaned, without duplicates, in three splits that share nothing.

    ``--overwrite`` prepares anew, since the rows may have changed; steps whose input did not are taken from
    Tanzim's cache. The data version comes from the examples: as long as they are the same, Dagster does not
    call what was trained on them stale.
    """
    tanzim.run("data", "prepare", "--overwrite")
    report = tanzim.read("data/report.json")
    fingerprints = json.dumps(report["fingerprints"], sort_keys=True)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(hashlib.sha256(fingerprints.encode()).hexdigest()),
        metadata={
            "rows read": report["rows_read"],
            **{f"examples in {split}": count for split, count in report["splits"].items()},
            "rows that cannot be used": report["rejected"],
            "steps": dg.MetadataValue.table([_row(step) for step in report["steps"]]),
            "leakage": report["leakage"],
            "report": dg.MetadataValue.path(Path(tanzim.project) / RUN / "data" / "report.html"),
            "left out": dg.MetadataValue.path(Path(tanzim.project) / RUN / "data" / "rejected.jsonl"),
        },
    )


def _row(step: dict[str, Any]) -> dg.TableRecord:
    kept = {name: step[name] for name in ("type", "rows_in", "rows_out", "changed", "seconds", "cached")}
    return dg.TableRecord({**kept, "removed": json.dumps(step["removed"], ensure_ascii=False)})


# The checks block: no model is trained on data that fails them.
@dg.asset_check(asset=prepared, blocking=True)
def few_rows_are_left_out(tanzim: Tanzim) -> dg.AssetCheckResult:
    """Rows that cannot be used, and examples that a step removed."""
    report = tanzim.read("data/report.json")
    removed = sum(sum(step["removed"].values()) for step in report["steps"])
    share = (sum(report["rejected"].values()) + removed) / report["rows_read"]
    return dg.AssetCheckResult(
        passed=share <= MOST_LEFT_OUT, metadata={"share": share, "at most": MOST_LEFT_OUT}
    )


@dg.asset_check(asset=prepared, blocking=True)
def nothing_leaks(tanzim: Tanzim) -> dg.AssetCheckResult:
    """No example of the test set, nor nearly the same one, is trained on (``repair`` drops those)."""
    leakage = tanzim.read("data/report.json")["leakage"]
    left = leakage["exact"] + leakage["near"] if leakage["mode"] == "allow" else 0
    return dg.AssetCheckResult(passed=left == 0, metadata={"on both sides": left})


@dg.asset(deps=[prepared], group_name="model", retry_policy=dg.RetryPolicy(max_retries=1))
def trained(tanzim: Tanzim) -> dg.MaterializeResult:
    """The adapter. A second try goes on at the last checkpoint."""
    tanzim.run("train")
    manifest = tanzim.read("manifest.json")
    return dg.MaterializeResult(metadata={"base": manifest["base"], "result": manifest["result"]})


@dg.asset(deps=[trained], group_name="model")
def evaluated(tanzim: Tanzim) -> dg.MaterializeResult:
    """Base and tuned model on the same held-out items."""
    tanzim.run("evaluate")
    report = tanzim.read("evaluation/report.json")
    scores = {
        f"{metric}, {system['name']}": groups["all"]["value"]
        for system in report["systems"]
        for metric, groups in system["metrics"].items()
    }
    return dg.MaterializeResult(metadata={"items": report["items"], **scores})


defs = dg.Definitions(
    assets=[messages, inspected, prepared, trained, evaluated],
    asset_checks=[few_rows_are_left_out, nothing_leaks],
    jobs=[
        dg.define_asset_job("data", dg.AssetSelection.groups("data")),
        dg.define_asset_job("all", dg.AssetSelection.all()),
    ],
    resources={
        "tanzim": Tanzim(
            command=os.environ.get("TANZIM", "tanzim"),
            **({"project": os.environ["TANZIM_PROJECT"]} if "TANZIM_PROJECT" in os.environ else {}),
        )
    },
)
