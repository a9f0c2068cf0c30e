"""The command line: ``tanzim VERB``. Each verb is one pipeline function; here is only what people see."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tanzim.cli.adapters import app as adapters_app
from tanzim.cli.data import app as data_app
from tanzim.cli.keys import app as keys_app
from tanzim.cli.launch import launch_command
from tanzim.cli.range_test import range_test_command
from tanzim.cli.search import search_command
from tanzim.cli.server import app as server_app
from tanzim.core.errors import TanzimError

app = typer.Typer(
    name="tanzim",
    help="From raw data to a proven, served, fine-tuned language model on your own hardware.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.add_typer(adapters_app, name="adapters")
app.add_typer(keys_app, name="keys")
app.add_typer(server_app, name="server")

# typer reads these annotations at run time.
Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG] [KEY=VALUE]...", help="Config file (tanzim.yaml) and overrides of its keys."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete an existing run of that name first.")]


@app.command("init")
def init_command(
    file: Annotated[str, typer.Argument(help="Data file, folder, glob or hf:owner/name.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Where to write the config.")] = "tanzim.yaml",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing config.")] = False,
) -> None:
    """Look at a data file and write a commented tanzim.yaml for it."""
    from tanzim.cli import show
    from tanzim.pipeline.init import init

    path = init(file, output=output, force=force, reporter=show.RichReporter())
    show.done(f"wrote {path}", f"tanzim run {path}" if str(path) != "tanzim.yaml" else "tanzim run")


@app.command()
def doctor() -> None:
    """Probe this machine and print the exact fix of whatever is missing."""
    from tanzim.cli import show
    from tanzim.pipeline.doctor import doctor as probe

    findings = probe()
    show.findings(findings)
    raise typer.Exit(1 if any(finding.level == "problem" for finding in findings) else 0)


@app.command("plan")
def plan_command(settings: Settings = None) -> None:
    """Print the memory, disk, tokens, steps and time a run would take; refuse what cannot fit."""
    from tanzim.cli import show

    config = show.config(settings)
    from tanzim.pipeline.plan import plan

    reporter = show.RichReporter()
    show.plan(plan(config, reporter=reporter))


@app.command()
def train(
    settings: Settings = None,
    overwrite: Overwrite = False,
    nproc: Annotated[
        int | None, typer.Option("--nproc", help="Processes on this machine: launch.nproc.")
    ] = None,
) -> None:
    """Fine-tune; go on where an interrupted run stopped."""
    from tanzim.cli import show

    config = show.config([*(settings or []), *([] if nproc is None else [f"launch.nproc={nproc}"])])
    from tanzim.pipeline.finetune import finetune

    reporter = show.RichReporter()
    show.trained(finetune(config, overwrite=overwrite, reporter=reporter))


app.command("launch")(launch_command)


@app.command("evaluate")
def evaluate_command(settings: Settings = None) -> None:
    """Measure base and tuned model on the same held-out items."""
    from tanzim.cli import show

    config = show.config(settings)
    from tanzim.pipeline.evaluate import evaluate_run

    show.evaluation(evaluate_run(config, reporter=show.RichReporter()))


@app.command("export")
def export_command(
    settings: Settings = None,
    merge: Annotated[bool, typer.Option("--merge", help="Merge the adapter into a whole model.")] = False,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Where to.")] = None,
) -> None:
    """Write the adapter (or, with --merge, a whole model) and prove it equals what was trained."""
    from tanzim.cli import show

    config = show.config(settings)
    from tanzim.pipeline.export import export_run

    show.exported(export_run(config, merge=merge, output=output, reporter=show.RichReporter()))


@app.command("chat")
def chat_command(
    model: Annotated[str, typer.Argument(help="Run folder, adapter folder, model name or path.")] = "",
    message: Annotated[str | None, typer.Option("--message", "-m", help="Ask once, print, end.")] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="System prompt.")] = None,
) -> None:
    """Talk to a tuned or base model in the terminal."""
    from tanzim.cli import talk

    talk.talk(model, message=message, system=system)


@app.command("serve")
def serve_command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]... [KEY=VALUE]...",
            help="Run folders (one base), or a model name; overrides such as serve.require_key=true.",
        ),
    ] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="0 takes a free one.")] = None,
    host: Annotated[str | None, typer.Option("--host", help="Elsewhere than here: serve.tls.")] = None,
) -> None:
    """Serve base and adapters through the OpenAI API, and fine-tuning jobs; on this machine, unless told."""
    from tanzim.cli import show
    from tanzim.pipeline.serve import serve_models

    given = {"host": host, "port": port}
    overrides = [f"serve.{key}={value}" for key, value in given.items() if value is not None]
    overrides += [name for name in models or () if "=" in name]
    names = [name for name in models or () if "=" not in name]
    serve_models(names, overrides=overrides, reporter=show.RichReporter())


@app.command("run")
def run_command(settings: Settings = None, overwrite: Overwrite = False) -> None:
    """Do it all: data, plan, training, evaluation before and after, report, one answer."""
    from tanzim.cli import show

    config = show.config(settings)
    from tanzim.pipeline.run import run

    show.ran(run(config, overwrite=overwrite, reporter=show.RichReporter()))


app.command("search")(search_command)
app.command("range-test")(range_test_command)


@app.command()
def schema() -> None:
    """Print the JSON Schema of tanzim.yaml, for editors."""
    import json

    from tanzim.pipeline.config import Config

    print(json.dumps(Config.model_json_schema(), ensure_ascii=False, indent=2))


_STOPPED = 130


def main() -> None:
    """Run the command line: errors are one message, never a traceback; Ctrl-C exits with 130."""
    try:
        app()
    except TanzimError as error:
        from tanzim.cli import show

        show.error(error)
        sys.exit(1)
    except SystemExit as end:
        if end.code == _STOPPED:  # what typer makes of Ctrl-C
            print("\nstopped; the same command goes on from here", file=sys.stderr)
        raise
