"""The examples for orchestrators, loaded and run by the real Dagster and the real Airflow (see examples/)."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.environments import environment, guarded
from tanzim.core.config import load
from tanzim.pipeline.config import Config

EXAMPLES = Path(__file__).parents[2] / "examples"
TANZIM = Path(sys.executable).parent / "tanzim"

LOAD_DAGSTER = """
import json, sys
import dagster as dg
from definitions import defs
dg.Definitions.validate_loadable(defs)
with dg.DagsterInstance.get() as instance:
    done = defs.resolve_job_def("data").execute_in_process(instance=instance, raise_on_error=False)
    graph = defs.resolve_asset_graph()
    print(json.dumps({
        "telemetry": instance.telemetry_enabled,
        "parents": {key.path[0]: sorted(parent.path[0] for parent in graph.get(key).parent_keys)
            for key in graph.get_all_asset_keys()},
        "blocking": sorted(key.name for key in graph.asset_check_keys if graph.get(key).blocking),
        "success": done.success,
        "failed": [event.step_key for event in done.all_events if event.is_step_failure],
        "why": [event.event_specific_data.error_display_string for event in done.all_events
            if event.is_step_failure],
        "checks": {check.check_name: [check.passed, {k: v.value for k, v in check.metadata.items()}]
            for check in done.get_asset_check_evaluations()},
        "prepared": [
            {name: repr(value.value) if name == "steps" else value.value
                for name, value in event.materialization.metadata.items()}
            for event in done.get_asset_materialization_events() if event.asset_key.path == ["prepared"]
        ],
        "version": [event.materialization.tags["dagster/data_version"]
            for event in done.get_asset_materialization_events() if event.asset_key.path == ["prepared"]],
    }))
"""

LOAD_AIRFLOW = """
import json, os, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.models.asset import AssetEvent
from airflow.utils.session import create_session
bag = DagBag(sys.argv[1])
said = {"errors": bag.import_errors, "dags": sorted(bag.dags)}
dag = bag.dags["tanzim_messages"]
said["after"] = {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks}
run = dag.test(mark_success_pattern="train|evaluate")
said["state"] = str(run.state)
said["tasks"] = {one.task_id: str(one.state) for one in run.get_task_instances()}
with create_session() as session:
    said["events"] = [event.extra for event in session.query(AssetEvent)]
print("SAID", json.dumps(said))
"""


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A copy of the examples, where runs may be written."""
    for name in ("shop_messages", "dagster", "airflow"):
        shutil.copytree(
            EXAMPLES / name, tmp_path / name, ignore=shutil.ignore_patterns("runs", "__pycache__")
        )
    return tmp_path


def _spoil(project: Path) -> None:
    """Repeat a third of the rows, so that more is left out than the checks allow."""
    path = project / "messages.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows + rows[1:31])


def _project(project: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((project / "runs/messages/data/report.json").read_text())
    return report


def _stayed(home: Path) -> None:
    away = home / "away"
    assert not away.exists(), away.read_text()


def test_the_project_is_prepared_as_its_comments_say(examples: Path) -> None:
    """Two rows that cannot be used, one repeated; what is spoilt is repaired."""
    config = load(Config, examples / "shop_messages" / "tanzim.yaml")
    assert config.name == "messages"
    subprocess.run(
        [TANZIM, "data", "prepare"], cwd=examples / "shop_messages", check=True, capture_output=True
    )
    report = _project(examples / "shop_messages")
    changed = {step["type"]: step["changed"] for step in report["steps"] if step["changed"]}
    removed = {step["type"]: sum(step["removed"].values()) for step in report["steps"] if step["removed"]}
    assert sum(report["rejected"].values()) == 2
    assert changed == {"repair_text": 1, "html": 1, "persian": 1, "unicode": 1}
    assert removed == {"dedup_exact": 1}


@pytest.mark.slow
def test_dagster_materialises_the_data_assets(examples: Path, tmp_path: Path) -> None:
    programs = environment(
        EXAMPLES / "dagster" / "requirements.txt", EXAMPLES / "dagster" / "constraints.txt"
    )
    home, project = tmp_path / "home", examples / "shop_messages"
    home.mkdir()
    shutil.copy(examples / "dagster" / "dagster.yaml", home)
    env = guarded(home, DAGSTER_HOME=str(home), DAGSTER_DISABLE_TELEMETRY="yes", TANZIM=str(TANZIM))

    def materialised() -> dict[str, Any]:
        done = subprocess.run(
            [programs / "python", "-c", LOAD_DAGSTER],
            cwd=examples / "dagster", env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said

    said = materialised()
    assert said["telemetry"] is False
    assert said["parents"] == {
        "messages": [], "inspected": ["messages"], "prepared": ["inspected"], "trained": ["prepared"],
        "evaluated": ["trained"],
    }  # fmt: skip
    assert said["success"], said["why"]
    report = _project(project)
    (prepared,) = said["prepared"]
    assert prepared["rows read"] == report["rows_read"]
    assert prepared["rows that cannot be used"] == report["rejected"]
    assert {split: prepared[f"examples in {split}"] for split in report["splits"]} == report["splits"]
    assert "dedup_exact" in prepared["steps"]
    assert said["checks"] == {
        "few_rows_are_left_out": [True, {"share": pytest.approx(3 / 68), "at most": 0.2}],
        "nothing_leaks": [True, {"on both sides": 0}],
    }
    assert said["blocking"] == ["few_rows_are_left_out", "nothing_leaks"]
    assert materialised()["version"] == said["version"]  # the same examples: nothing downstream is stale

    _spoil(project)
    spoilt = materialised()
    assert not spoilt["success"]
    assert not spoilt["checks"]["few_rows_are_left_out"][0]
    (project / "tanzim.yaml").write_text("name: messages\ndata: {pth: messages.csv}\n")
    broken = materialised()
    assert broken["failed"] == ["prepared"]
    assert "pth" in broken["why"][0]  # the command's own error
    _stayed(home)


@pytest.mark.slow
def test_dagster_validates_the_file_by_its_own_command(examples: Path, tmp_path: Path) -> None:
    programs = environment(
        EXAMPLES / "dagster" / "requirements.txt", EXAMPLES / "dagster" / "constraints.txt"
    )
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(examples / "dagster" / "dagster.yaml", home)
    done = subprocess.run(
        [programs / "dagster", "definitions", "validate", "-f", "definitions.py"],
        cwd=examples / "dagster", env=guarded(home, DAGSTER_HOME=str(home)), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    _stayed(home)


@pytest.mark.slow
def test_airflow_runs_the_data_tasks(examples: Path, tmp_path: Path) -> None:
    programs = environment(
        EXAMPLES / "airflow" / "requirements.txt", EXAMPLES / "airflow" / "constraints.txt"
    )
    home, dags, project = tmp_path / "home", tmp_path / "dags", examples / "shop_messages"
    home.mkdir()
    dags.mkdir()
    shutil.copy(examples / "airflow" / "tanzim_messages.py", dags)
    env = guarded(
        home,
        AIRFLOW_HOME=str(home),
        AIRFLOW__CORE__DAGS_FOLDER=str(dags),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        TANZIM=str(TANZIM),
        TANZIM_PROJECT=str(project),
    )

    def ran(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def tested() -> dict[str, Any]:
        out = ran(programs / "python", "-c", LOAD_AIRFLOW, str(dags))
        (line,) = (line for line in out.splitlines() if line.startswith("SAID "))
        said: dict[str, Any] = json.loads(line.removeprefix("SAID "))
        return said

    ran(programs / "airflow", "db", "migrate")
    said = tested()
    assert said["errors"] == {}
    assert said["dags"] == ["tanzim_messages"]
    assert said["after"] == {
        "inspect": [], "prepare": ["inspect"], "check": ["prepare"], "train": ["check"],
        "evaluate": ["train"],
    }  # fmt: skip
    assert said["state"] == "success"
    report = _project(project)
    (event,) = said["events"]
    assert event["rows_read"] == report["rows_read"]
    assert event["splits"] == report["splits"]
    assert event["fingerprints"] == report["fingerprints"]
    assert event["left_out"] == pytest.approx(3 / 68)

    _spoil(project)
    spoilt = tested()
    assert spoilt["state"] == "failed"
    assert spoilt["tasks"]["prepare"] == "success"
    assert spoilt["tasks"]["check"] == "failed"
    assert spoilt["tasks"]["train"] == spoilt["tasks"]["evaluate"] == "upstream_failed"
    assert spoilt["events"] == [event]  # nothing new is told
    _stayed(home)
