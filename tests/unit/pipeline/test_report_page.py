"""The report is read back with the standard HTML parser and compared with the files it was made of."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from synthetic_run import HOSTILE, make_run
from tanzim.core.errors import RunError
from tanzim.core.files import read_json, write_json
from tanzim.core.run import RunFolder
from tanzim.data.config import DataConfig
from tanzim.data.prepare import prepare
from tanzim.pipeline.report import report_page, write_report

FILES = {
    "manifest.json": "manifest.json is missing",
    "config.yaml": "config.yaml is missing",
    "data/report.json": "data/report.json is missing",
    "tokens/report.json": "tokens/report.json is missing",
    "plan.json": "plan.json is missing",
    "moved.json": "moved.json is missing",
    "metrics.jsonl": "metrics.jsonl is missing",
    "evaluation/report.json": "evaluation/report.json is missing",
    "evaluation/items.jsonl": "evaluation/items.jsonl is missing",
}


class Reader(HTMLParser):
    """Collects elements, the text without marks, and table rows; checks the nesting."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.blocks: list[tuple[dict[str, str | None], str]] = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.names.add(tag)
        self.attributes += attrs
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if "text" in (values.get("class") or "").split():
            self.blocks.append((values, ""))
        if tag not in {"meta", "br"}:
            self.open.append((tag, values.get("class") or ""))

    def handle_startendtag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        classes = [class_ for _, class_ in self.open]
        if "mark" in classes:
            return
        self.text += data
        if self.blocks and "text" in classes:
            values, text = self.blocks[-1]
            self.blocks[-1] = (values, text + data)
        if self.rows and any(name in {"td", "th"} for name, _ in self.open):
            self.rows[-1][-1] += data + " "


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return make_run(tmp_path / "tickets")


def test_no_text_of_the_run_becomes_markup(folder):
    html = report_page(folder)
    reader = read(html)
    assert not {"script", "img", "iframe", "link", "object", "form"} & reader.names
    assert not any(name.startswith("on") or name in {"src", "style"} for name, _ in reader.attributes)
    assert all((value or "").startswith("#") for name, value in reader.attributes if name == "href")
    assert "\u202e" not in html
    assert HOSTILE.replace("\u202e", "") in reader.text
    assert '"name": "find_order"' in reader.text


def test_the_table_holds_the_numbers_of_the_evaluation(folder):
    rows: dict[str, list[str]] = {}
    for row in read(report_page(folder)).rows:
        rows.setdefault(row[0].strip(), [" ".join(cell.split()) for cell in row[1:]])
    report = read_json(folder.evaluation / "report.json")
    for metric, title in (("json_fields", "JSON fields right"), ("exact_match", "exact match")):
        for column, system in enumerate(report["systems"]):
            estimate = system["metrics"][metric]["all"]
            value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
            assert rows[title][column] == f"{value:.1f} % {low:.1f} to {high:.1f}"
        assert rows[title][-1] == "better"
    assert rows["held-out loss"] == ["2.6121", "0.3131", "–", "−88.0 %", ""]
    assert rows["field kind"][1].startswith("84.0 %")
    assert rows["peak memory"] == ["2.78 GB", "2.91 GB", "1.05"]
    assert rows["time"] == ["3 min 51 s", "4 min 15 s", "1.10"]
    assert rows["memory: logits"] == ["403 MB", "predicted"]
    assert rows["machine: held"] == ["612 MB", "predicted"]
    assert rows["the row is not valid JSON"] == ["3"]
    assert rows["train"][:2] == ["1,980", "0"]


def test_two_sentences_say_what_was_done_and_what_came_of_it(folder):
    lead = re.search('<p class="lead">(.*?)</p>', report_page(folder)).group(1)
    assert re.sub("<[^>]+>", "", lead) == (
        "The base model smollm2-135m-instruct was trained for 120 steps on 1,980 examples (messages). "
        "On 60 held-out items, JSON fields right went from 2.0 % to 94.4 %: better."
    )


def test_worst_and_best_items_are_the_ones_the_scores_say(folder):
    reader = read(report_page(folder))
    items = [json.loads(line) for line in (folder.evaluation / "items.jsonl").read_text().splitlines()]
    wrong = {item["reference"] for item in items if item["systems"]["tuned"]["scores"]["exact_match"] < 1}
    assert len(wrong) == 10
    worst, best = reader.text.split("Worst 10 of 60")[1].split("Best 10 of 60")
    assert all(reference in worst and reference not in best for reference in wrong)


def test_blocks_of_text_take_their_own_direction_and_keep_half_spaces(folder):
    blocks = read(report_page(folder)).blocks
    assert all(values["dir"] == "auto" for values, _ in blocks)
    persian = [(values, text) for values, text in blocks if text.startswith("سلام")]
    assert persian
    assert all(values["lang"] == "fa" and "می\u200cکنید" in text for values, text in persian)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_and_the_rest_stays(folder, name):
    (folder.path / name).unlink()
    text = read(report_page(folder)).text
    assert FILES[name] in text
    for title in ("Before and after", "Training", "Data", "Plan and measurement", "Environment"):
        assert title in text


def test_an_empty_run_directory_still_makes_a_page(tmp_path):
    text = read(report_page(RunFolder(tmp_path))).text
    assert all(said in text for said in set(FILES.values()) - {FILES["evaluation/items.jsonl"]})


def test_a_run_that_is_not_there_or_is_damaged_is_one_error(folder, tmp_path):
    with pytest.raises(RunError, match="no such run"):
        report_page(RunFolder(tmp_path / "nowhere"))
    (folder.evaluation / "report.json").write_text('{"items": 3')
    with pytest.raises(RunError, match="cannot be read"):
        report_page(folder)


def test_few_items_appear_once(folder):
    lines = (folder.evaluation / "items.jsonl").read_text().splitlines()[:5]
    (folder.evaluation / "items.jsonl").write_text("\n".join(lines) + "\n")
    html = report_page(folder)
    assert html.count("<h4>reference</h4>") == 5


def test_an_evaluation_of_losses_alone_is_told(folder):
    report = read_json(folder.evaluation / "report.json")
    report |= {"metrics": [], "groups": {}, "comparisons": []}
    for system in report["systems"]:
        system["metrics"] = {}
    write_json(folder.evaluation / "report.json", report)
    assert "evaluated by its loss on 300 held-out examples" in read(report_page(folder)).text


def test_the_file_is_written_and_needs_no_other(folder, tmp_path):
    path = write_report(folder)
    assert path == folder.report
    alone = tmp_path / "alone.html"
    shutil.copy(path, alone)
    assert not re.search(r"(src|href)=\"(?!#)|url\(|@import", alone.read_text(encoding="utf-8"))


def test_the_report_of_real_data_is_shown(folder, tmp_path):
    rows = [{"text": f"متن شمارهٔ {n} دربارهٔ چیزی", "label": "خوب" if n % 2 else "bad"} for n in range(200)]
    source = tmp_path / "دیدگاه‌ها.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    source.write_text("\n".join([*lines[:199], '{"text": "cut off']), encoding="utf-8")
    held = tmp_path / "held.jsonl"
    held.write_text("\n".join(lines[-21:-1]), encoding="utf-8")
    shutil.rmtree(folder.data)
    report = prepare(DataConfig(path=str(source), test_path=str(held)), folder.data, seed=1)
    text = " ".join(read(report_page(folder)).text.split())
    assert report.reason in text
    assert f"1 row ({100 / 220:.2f} %) could not be used" in text
    assert f"{report.leakage['exact']} exact, {report.leakage['near']} near" in text
    assert report.leakage["exact"] > 0
    for reason in report.rejected:
        assert reason in text
    for fingerprint in report.fingerprints.values():
        assert fingerprint in text
    assert str(report.files[0]["sha256"]) in text


def test_each_layers_move_is_told(tmp_path):
    reader = read(report_page(make_run(tmp_path / "run")))
    rows = [row for row in reader.rows if "q_proj" in row[0]]
    assert [row[0].strip() for row in rows] == [f"model.layers.{at}.self_attn.q_proj" for at in range(4)]
    assert (rows[0][1].strip(), rows[0][2].strip()) == ("0.100%", "1.80e-04")
    assert "magnitude by 0.25%, direction by 1.5e-04" in reader.text
    assert "in opposite measure (correlation -1.00)" in reader.text
