"""Answers that a combination cuts short, from lengths whose shares are known."""

import random

import pytest

from tanzim.pipeline.short_answers import Lengths, find_short, lengths


def near(length, count=40, seed=0):
    dice = random.Random(f"{length}/{seed}")
    return tuple(dice.randint(int(0.9 * length), int(1.1 * length)) for _ in range(count))


def tasks(chat, label):
    """Two tasks, right answers of 100 and 5 characters; each system's mean lengths on both."""
    return {
        "chat": Lengths(near(100), {name: near(length, seed=1) for name, length in chat.items()}),
        "label": Lengths(near(5), {name: near(length, seed=1) for name, length in label.items()}),
    }


def test_short_answers_are_named_with_numbers_and_where_they_come_from():
    measured = tasks({"tuned": 98, "cat 1:1": 40, "cat 1:0": 97}, {"tuned": 5, "cat 1:1": 5, "cat 1:0": 60})
    (found,) = find_short(measured, ["cat 1:1", "cat 1:0"], own="tuned")
    assert (found.task, found.system) == ("chat", "cat 1:1")
    want = sum(measured["chat"].systems["cat 1:1"]) / sum(measured["chat"].systems["tuned"])
    assert found.to_own.value == pytest.approx(want)
    assert found.to_own.low < want < found.to_own.high
    right = sum(measured["chat"].systems["cat 1:1"]) / sum(measured["chat"].references)
    assert found.to_references.value == pytest.approx(right)
    assert f"{100 * want:.0f} % of what the task's own adapter writes" in found.text
    assert f"{100 * right:.0f} % of the right answers" in found.text
    assert "perhaps taken over from 'label', whose answers are short" in found.text
    assert "chance" not in found.text


@pytest.mark.parametrize(
    ("own", "combined", "flagged"),
    [
        (100, 95, False),  # as long as both
        (100, 60, True),  # shorter than both
        (40, 40, False),  # the task's own adapter is as short: nothing taken over
        (200, 100, True),  # right length, but half of what its own adapter writes
        (85, 72, True),  # much shorter than the references alone, which its own adapter is not
    ],
)
def test_which_lengths_are_too_short(own, combined, flagged):
    measured = tasks({"tuned": own, "mix": combined}, {"tuned": 5, "mix": 5})
    assert bool([one for one in find_short(measured, ["mix"], own="tuned") if one.task == "chat"]) == flagged


def test_few_or_scattered_items_are_not_trusted():
    few = {"a": Lengths((100,) * 4, {"tuned": (100,) * 4, "mix": (50,) * 4})}
    (found,) = find_short(few, ["mix"], own="tuned")
    assert "only 4 items, so this may be chance" in found.text
    assert "taken over" not in found.text
    scattered = {"a": Lengths((100,) * 4, {"tuned": (100,) * 4, "mix": (10, 10, 10, 250)})}
    assert find_short(scattered, ["mix"], own="tuned") == []
    assert find_short({"a": Lengths((), {"tuned": (), "mix": ()})}, ["mix"], own="tuned") == []


def test_lengths_are_of_the_words_without_white_space_around():
    items = [
        {"reference": " می‌روم\n", "systems": {"base": {"answer": "abc "}, "tuned": {"answer": ""}}},
        {"reference": "ab", "systems": {"base": {"answer": "\n"}, "tuned": {"answer": "x y"}}},
    ]
    found = lengths(items)
    assert found.references == (6, 2)
    assert found.systems == {"base": (3, 0), "tuned": (0, 3)}
    assert found.mean() == 4
    assert found.mean("base") == 1.5
