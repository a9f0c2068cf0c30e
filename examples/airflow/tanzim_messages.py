"""A Tanzim project as an Airflow DAG: inspect → prepare → check → train → evaluate.

Each task but the check is one ``tanzim`` command, run in the environment that Tanzim is installed in;
Airflow's own holds Airflow alone and never imports it, so that the pins of the two cannot meet. What is said
about the data is read from the run's folder, which is plain JSON.

    TANZIM          the command; default: the one on PATH
    TANZIM_PROJECT  the folder of tanzim.yaml; default: ../shop_messages
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.exceptions import AirflowFailException
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Asset, Metadata, dag, task

TANZIM = os.environ.get("TANZIM", "tanzim")
PROJECT = Path(os.environ.get("TANZIM_PROJECT") or Path(__file__).parents[1] / "shop_messages").resolve()
RUN = PROJECT / "runs" / "messages"  # runs_dir and name in tanzim.yaml
MOST_LEFT_OUT = 0.2  # share of the rows

# DAGs that are scheduled on this asset run whenever new data has passed the check.
prepared = Asset("tanzim_messages_prepared", uri=(RUN / "data").as_uri())


def tanzim(task_id: str, *arguments: str, **settings: Any) -> BashOperator:  # noqa: ANN401 - an operator's
    """Return a task that runs one command of the project."""
    return BashOperator(
        task_id=task_id,
        bash_command=shlex.join([TANZIM, *arguments]),
        cwd=str(PROJECT),
        append_env=True,
        env={"PYTHONPATH": "", "PYTHONUTF8": "1"},  # Python paths of this environment are not for the other
        skip_on_exit_code=None,  # any status but 0 is a failure
        do_xcom_push=False,
        **settings,
    )


@task(outlets=[prepared], retries=0)
def check() -> Iterator[Metadata]:
    """Fail if too much is left out or the splits leak, else tell the counts with the asset."""
    report = json.loads((RUN / "data" / "report.json").read_text(encoding="utf-8"))
    removed = sum(sum(step["removed"].values()) for step in report["steps"])
    share = (sum(report["rejected"].values()) + removed) / report["rows_read"]
    if share > MOST_LEFT_OUT:
        raise AirflowFailException(f"{share:.1%} of the rows are left out, above {MOST_LEFT_OUT:.0%}")
    leakage = report["leakage"]
    if leakage["mode"] == "allow" and (left := leakage["exact"] + leakage["near"]):
        raise AirflowFailException(f"{left} examples of held-out splits are trained on")
    yield Metadata(
        prepared,
        {
            "rows_read": report["rows_read"],
            "splits": report["splits"],
            "left_out": share,
            "leakage": {name: leakage[name] for name in ("mode", "exact", "near") if name in leakage},
            "fingerprints": report["fingerprints"],
        },
    )


@dag(schedule=None, max_active_runs=1, tags=["tanzim"], doc_md=__doc__)
def tanzim_messages() -> None:
    """One run at a time: the folder of a run has one owner."""
    inspect = tanzim("inspect", "data", "inspect", "messages.csv")
    # Prepares anew, since the rows may have changed; steps whose input did not come from Tanzim's cache.
    prepare = tanzim("prepare", "data", "prepare", "--overwrite")
    # A second try goes on at the last checkpoint.
    train = tanzim("train", "train", retries=1, retry_delay=timedelta(minutes=1))
    evaluate = tanzim("evaluate", "evaluate")
    inspect >> prepare >> check() >> train >> evaluate


tanzim_messages()
