"""Grade-school word problems (GSM8K): 200 steps lower the held-out loss by at least 15 %.

    python bench/real_gsm8k.py PATH [--work FOLDER] [KEY=VALUE …]

PATH is the folder with train.jsonl and test.jsonl. Steps are small (512 tokens), so that 200 of them
take some ten minutes on two cores. Whether accuracy moved is what the run's own report says. The last
line is JSON.
"""

import json
import sys
import time

from real_common import arguments, find, finish, init_and_run, read, systems, work_folder

GOAL = 0.15
SETTINGS = [
    "data.max_train=1000",
    "data.max_test=100",
    "data.split.validation=0.003",
    "model.max_length=512",
    "model.overlong=drop",
    "train.max_steps=200",
    "train.tokens_per_step=512",
    "train.tokens_per_pass=512",
    "train.learning_rate=5e-4",
    "train.eval_steps=100",
    "evaluate.metrics=[number]",
    "evaluate.max_items=40",
    "evaluate.max_new_tokens=160",
    "evaluate.batch_size=20",
]


def main() -> None:
    options = arguments("GSM8K: held-out loss and accuracy of base and tuned")
    train, test = (find(options.path, name) for name in ("train.jsonl", "test.jsonl"))
    started = time.monotonic()
    with work_folder(options.work) as folder:
        settings = [f"data.test_path={json.dumps(str(test))}", *SETTINGS, *options.overrides]
        run = init_and_run(train, "gsm8k", settings, folder)
        evaluation, measured = read(run / "evaluation" / "report.json"), systems(run)
        steps = read(run / "manifest.json")["result"]
    base, tuned = (measured[name]["loss"] for name in ("base", "tuned"))
    accuracy = {name: measured[name]["metrics"]["number"]["all"]["value"] for name in ("base", "tuned")}
    moved = next(
        one
        for one in evaluation["comparisons"]
        if (one["system"], one["against"], one["metric"], one["group"]) == ("tuned", "base", "number", "all")
    )
    print(f"training: {json.dumps(steps)}", file=sys.stderr)
    print(f"accuracy, in the report's words: {moved['verdict']}", file=sys.stderr)
    lower = 1 - tuned / base
    finish(
        {
            "base": {"loss": round(base, 4), "number": round(accuracy["base"], 4)},
            "tuned": {"loss": round(tuned, 4), "number": round(accuracy["tuned"], 4)},
            "loss_lower_by": round(lower, 4),
            "accuracy_moved": moved["verdict"],
            "seconds": round(time.monotonic() - started, 1),
        },
        f"the held-out loss fell by {lower:.1%}, not {GOAL:.0%}" if lower < GOAL else "",
    )


if __name__ == "__main__":
    main()
