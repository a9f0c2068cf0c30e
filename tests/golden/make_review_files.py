"""Write review_argilla.json and review_label_studio.json: our tasks as the real tools take and return them.

Each in an environment of its own, from the repository's root, with src on the path (PYTHONPATH=src):

    pip install argilla requests numpy pydantic && python tests/golden/make_review_files.py argilla
    pip install label-studio && python tests/golden/make_review_files.py label-studio

Argilla: its client reads our settings and records, answers are added to them, and it writes them. The client
asks a server who it is before it does anything; that is answered here. Label Studio: a server of its own, on
this machine, with its telemetry off; a project is made with our interface, our tasks are imported, two people
answer, and it exports.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from uuid import UUID

from tanzim.core.records import Example, Provenance
from tanzim.data.label.review import export_tasks

HERE = Path(__file__).parent
LABELS = ["مثبت", 'not "good" & <fine>', "neither"]
TEXTS = ["غذا می‌خواهم، ولی سرد بود!", 'a "quoted"\nline', "Free prize 🎁", "ساعت ۵ می‌آیم.", "skip me", "open"]
EXAMPLES = [
    Example("text", Provenance("نظرها.csv", row, "half 1" if row == 4 else ""), text=text)
    for row, text in enumerate(TEXTS, 1)
]
# What two people say of the texts: a label, "skip" (discarded, cancelled), or nothing.
ANSWERS = [
    [LABELS[0], LABELS[1], LABELS[2], LABELS[0], "skip", None],
    [LABELS[0], LABELS[2], None, LABELS[1], LABELS[2], None],
]


def exported(kind: str) -> tuple[list[dict], str]:
    with tempfile.TemporaryDirectory() as folder:
        (file,) = export_tasks(EXAMPLES, Path(folder), annotators=["sara"], labels=LABELS, format=kind)
        (more,) = (one for one in Path(folder).iterdir() if one != file)
        return json.loads(file.read_text(encoding="utf-8")), more.read_text(encoding="utf-8")


def write(name: str, value: dict) -> None:
    value = {"labels": LABELS, "texts": TEXTS, **value}
    (HERE / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


class Me(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        at = "2026-01-01T00:00:00"
        me = {"id": str(UUID(int=1)), "username": "sara", "first_name": "s", "role": "owner"}
        body = json.dumps({**me, "inserted_at": at, "updated_at": at}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def argilla() -> None:
    import argilla as rg
    from argilla.records._io import GenericIO, JsonIO

    server = HTTPServer(("127.0.0.1", 0), Me)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    rg.Argilla(api_url=f"http://127.0.0.1:{server.server_port}", api_key="none")
    tasks, settings = exported("argilla")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "settings.json"
        file.write_text(settings, encoding="utf-8")
        dataset = rg.Dataset(name="review", settings=rg.Settings.from_json(file))
        dataset.settings.validate()
        assert dataset.settings.questions[0].labels == LABELS
        assert [field.name for field in dataset.settings.fields] == ["text"]
        (Path(folder) / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
        records = JsonIO._records_from_json(Path(folder) / "tasks.json")
        written = [rg.Record.from_dict(record.to_dict(), dataset=dataset) for record in records]
        same = [{**record.to_dict(), "_server_id": None} for record in records]
        assert [{key: one[key] for key in task} for task, one in zip(tasks, same, strict=True)] == tasks
        for number, record in enumerate(written):
            row = TEXTS.index(record.fields["text"])
            record._model.id = UUID(int=100 + number)  # as its server gives one
            for user, answers in enumerate(ANSWERS):
                if (said := answers[row]) is None:
                    continue
                status = "discarded" if said == "skip" else "submitted"
                value = LABELS[0] if said == "skip" else said
                record.responses.add(rg.Response("label", value, user_id=UUID(int=user + 1), status=status))
            record.api_model().model_dump(mode="json")  # as it goes to its server
        JsonIO.to_json(written, Path(folder) / "records.json")
        nested = json.loads((Path(folder) / "records.json").read_text(encoding="utf-8"))
    flat = GenericIO.to_list(written, flatten=True)
    users = [str(UUID(int=user + 1)) for user in range(len(ANSWERS))]
    write(
        "review_argilla.json",
        {
            "made_by": f"argilla {version('argilla')}",
            "exported": tasks,
            "settings": json.loads(settings),
            "answers": dict(zip(users, ANSWERS, strict=True)),
            "to_json": nested,
            "to_list_flat": flat,
        },
    )


class Studio:
    """A Label Studio server, and its interface for programs."""

    def __init__(self, folder: str) -> None:
        self.port = 18765
        self.token = secrets.token_hex(20)
        quiet = {"COLLECT_ANALYTICS": "False", "LATEST_VERSION_CHECK": "False", "SENTRY_DSN": ""}
        legacy = {"LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true", "FRONTEND_SENTRY_DSN": ""}
        place = {"LABEL_STUDIO_BASE_DATA_DIR": folder, "HOME": folder, "DJANGO_DB": "sqlite"}
        program = Path(sys.executable).with_name("label-studio")
        who = ["--username", "sara@example.org", "--password", secrets.token_hex(12)]
        where = ["--internal-host", "127.0.0.1", "--port", str(self.port), "--no-browser"]
        environment = {**os.environ, **quiet, **legacy, **place}
        environment.pop("PYTHONPATH", None)
        self.process = subprocess.Popen(
            [program, "start", *where, *who, "--user-token", self.token],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(200):
            try:
                self.ask("GET", "/api/projects")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(1)
        raise SystemExit("Label Studio does not start")

    def ask(self, method: str, path: str, value: object = None) -> object:
        headers = {"Authorization": f"Token {self.token}", "Content-Type": "application/json"}
        data = None if value is None else json.dumps(value).encode()
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()


def label_studio() -> None:
    tasks, interface = exported("label_studio")
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(folder)
        try:
            new = {"title": "review", "label_config": interface}
            project = studio.ask("POST", "/api/projects", new)["id"]
            done = studio.ask("POST", f"/api/projects/{project}/import", tasks)
            assert done["task_count"] == len(tasks), done
            there = studio.ask("GET", f"/api/tasks?project={project}&fields=all")["tasks"]
            by_text = {task["data"]["text"]: task["id"] for task in there}
            second = studio.ask("POST", "/api/users/", {"email": "ali@example.org", "username": "ali"})["id"]
            first = studio.ask("GET", "/api/current-user/whoami")["id"]
            for user, answers in zip((first, second), ANSWERS, strict=True):
                for text, said in zip(TEXTS, answers, strict=True):
                    if said is None:
                        continue
                    label = LABELS[0] if said == "skip" else said
                    result = {"from_name": "label", "to_name": "text", "type": "choices"}
                    result["value"] = {"choices": [label]}
                    answer = {"result": [result], "was_cancelled": said == "skip", "completed_by": user}
                    studio.ask("POST", f"/api/tasks/{by_text[text]}/annotations/", answer)
            every = f"/api/projects/{project}/export?download_all_tasks=true&exportType="
            whole, least = (studio.ask("GET", every + form) for form in ("JSON", "JSON_MIN"))
        finally:
            studio.close()
    write(
        "review_label_studio.json",
        {
            "made_by": f"label-studio {version('label-studio')}",
            "exported": tasks,
            "interface": interface,
            "answers": {str(user): answers for user, answers in zip((first, second), ANSWERS, strict=True)},
            "JSON": whole,
            "JSON_MIN": least,
        },
    )


if __name__ == "__main__":
    {"argilla": argilla, "label-studio": label_studio}[sys.argv[1]]()
