"""The pages in a real browser: nothing runs, nothing is fetched, right-to-left text is laid out so."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from browser import Browser, browser
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from synthetic_run import make_run
from tanzim.core.records import Provenance, Rendered, Segment
from tanzim.pipeline.preview_page import preview_page, token_texts
from tanzim.pipeline.report import write_report

pytestmark = pytest.mark.slow

PERSIAN = "سلام، بستهٔ من هنوز نرسیده است و می\u200cخواهم پولم برگردد"
ENGLISH = "My parcel has not arrived, please help"
SIDES = """(() => {
  const at = (element, index) => {
    const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    let node = walker.nextNode(), left = index;
    while (node && left >= node.length) { left -= node.length; node = walker.nextNode(); }
    const range = document.createRange();
    range.setStart(node, left); range.setEnd(node, left + 1);
    return range.getBoundingClientRect();
  };
  return [...document.querySelectorAll('SELECTOR')].map(element => {
    const text = element.textContent, start = text.indexOf(NEEDLE);
    if (start < 0) return null;
    const first = at(element, start), last = at(element, start + 4);
    return {first: first.left, last: last.left, line: first.top === last.top,
            right: Math.abs(element.getBoundingClientRect().right - first.right)};
  }).filter(Boolean);
})()"""


@pytest.fixture(scope="module")
def tab():
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    return write_report(make_run(tmp_path_factory.mktemp("run") / "tickets"))


@pytest.fixture(scope="module")
def preview(tmp_path_factory) -> Path:
    """A preview in byte tokens: every Persian letter is cut in two."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_ = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_.decoder = decoders.ByteLevel()
    samples = []
    for row, text in enumerate((PERSIAN, ENGLISH)):
        ids = bytes_.encode(text).ids
        segment = Segment(0, len(ids), "assistant", True)
        sample = Rendered(tuple(ids), (1.0,) * len(ids), (segment,), Provenance("a.jsonl", row))
        samples.append((sample, token_texts(ids, bytes_.decode, [segment])))
    path = tmp_path_factory.mktemp("preview") / "preview.html"
    path.write_text(preview_page(samples), encoding="utf-8")
    return path


def sides(tab: Browser, selector: str, needle: str) -> list[dict[str, float]]:
    found = tab.value(SIDES.replace("SELECTOR", selector).replace("NEEDLE", json.dumps(needle)))
    assert found, f"'{needle}' is nowhere in {selector}"
    return found


def test_this_machine_can_show_persian():
    fonts = subprocess.run(["fc-list", ":lang=fa"], capture_output=True, text=True, check=True).stdout
    if not fonts.strip():
        pytest.fail("no font with Persian letters; on Debian: apt-get install fonts-noto-core")


@pytest.mark.parametrize("name", ["report", "preview"])
def test_nothing_runs_and_nothing_is_fetched(tab, name, request):
    path = request.getfixturevalue(name)
    tab.open(path)
    assert [event["request"]["url"] for event in tab.named("Network.requestWillBeSent")] == [path.as_uri()]
    assert [event["entry"]["text"] for event in tab.named("Log.entryAdded")] == []
    assert tab.named("Page.javascriptDialogOpening") == []
    assert tab.value("document.scripts.length") == 0
    # The policy holds: a script that is put in by hand does not run, and a picture is not fetched.
    tab.value(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        "document.body.append(s); const i = new Image(); i.src = 'https://example.invalid/x.png';"
        "document.body.append(i); })()"
    )
    assert tab.value("window.ran") is None
    assert tab.wait("Network.loadingFailed")["blockedReason"] == "csp"


@pytest.mark.parametrize("name", ["report", "preview"])
@pytest.mark.parametrize("width", [1100, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_clipped_and_text_stands_out(tab, name, width, dark, request):
    tab.open(request.getfixturevalue(name), width=width, dark=dark)
    assert tab.value("document.documentElement.scrollWidth") <= width
    # WCAG 2.2, 1.4.3: a contrast of at least 4.5 for text.
    ratio = """(() => {
      const style = getComputedStyle(document.documentElement);
      const light = name => {
        const hex = style.getPropertyValue(name).trim();
        const full = hex.length === 4 ? '#' + [...hex.slice(1)].map(c => c + c).join('') : hex;
        const parts = [1, 3, 5].map(i => parseInt(full.slice(i, i + 2), 16) / 255);
        const linear = parts.map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
      };
      const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const low = [];
      for (const ink of ['--ink', '--soft', '--accent', '--bad', '--good'])
        for (const ground of ['--ground', '--panel', '--shade'])
          if (ratio(light(ink), light(ground)) < 4.5) low.push([ink, ground]);
      return low;
    })()"""
    assert tab.value(ratio) == []


def test_print_is_light_and_shows_what_is_folded(tab, report):
    tab.open(report, dark=True)
    folded = """Math.min(...[...document.querySelectorAll('details > :last-child')].map(
      e => e.checkVisibility() ? e.getBoundingClientRect().height : 0))"""
    assert tab.value(folded) == 0
    scheme = {"name": "prefers-color-scheme", "value": "dark"}
    tab.send("Emulation.setEmulatedMedia", media="print", features=[scheme])
    assert tab.value(folded) > 10
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    tab.send("Emulation.setEmulatedMedia", media="")


def test_persian_runs_right_to_left_and_english_left_to_right_in_the_report(tab, report):
    tab.open(report)
    for side in sides(tab, ".item .text", "سلام"):
        assert side["line"]
        assert side["first"] > side["last"]
        assert side["right"] < 3
    for side in sides(tab, ".item .text", "You charged"):
        assert side["first"] < side["last"]
    assert tab.value("getComputedStyle(document.querySelector('pre')).direction") == "ltr"


def test_persian_runs_right_to_left_across_tokens_and_its_letters_join(tab, preview):
    tab.open(preview)
    (persian,) = sides(tab, ".turn .text", "سلام")
    assert persian["line"]
    assert persian["first"] > persian["last"]
    (english,) = sides(tab, ".turn .text", "parcel")
    assert english["first"] < english["last"]
    # Letters that join are narrower than letters that stand alone: compare with the same text uncut.
    whole, cut = tab.value(
        """(() => {
          const block = document.querySelector('.turn .text');
          const width = () => {
            const range = document.createRange(); range.selectNodeContents(block);
            return range.getBoundingClientRect().width;
          };
          block.querySelectorAll('.zwnj').forEach(e => e.style.borderWidth = 0);
          const cut = width(), text = block.textContent;
          block.textContent = text;
          return [width(), cut];
        })()"""
    )
    assert cut == pytest.approx(whole, abs=3)
    assert tab.value("document.body.textContent.includes('\\ufffd')") is False
