"""The public surface is pinned: a change here is a change for users."""

import importlib
import inspect

import tanzim

CLASSES = {"Config", "TanzimError"}
# Arguments with their defaults; * marks those given by keyword alone.
SURFACE = {
    "add_adapter": "path, *name=None, *task=None, *text='', *tags=(), *repository=None",
    "agree_data": "folder, *output=None, *method='majority', *least=0.5, *votes=1",
    "chat": "model, message, *system=None, *reporter=None",
    "combine_adapters": (
        "refs, recipes, *name, *task=None, *measure=True, *repository=None, *output=None, *reporter=None"
    ),
    "data_step": "file, step, *output=None, *powers=None, *reporter=None",
    "delete_adapter": "ref, *repository=None",
    "diff_adapters": "one, two, *repository=None",
    "diff_data": "one, two",
    "doctor": "runs_dir='runs'",
    "evaluate_run": "config, *reporter=None",
    "export_review": "folder, annotator, output=None, *format='plain'",
    "export_run": "config, *merge=False, *output=None, *reporter=None",
    "fetch_adapter": "task=None, *ref=None, *repository=None",
    "finetune": "config, *overwrite=False, *reporter=None",
    "import_review": "folder, file, annotator=None",
    "init": "file, *output='tanzim.yaml', *force=False, *reporter=None",
    "inspect_data": "file, *config=None",
    "launch_job": "config, *write=True",
    "load_config": "path=None, overrides=()",
    "merge_models": "models, output, *way='linear', *weights=(), *base=None, *reporter=None",
    "open_review": "folder, annotator, *disputed=False",
    "plan": "config, *overwrite=False, *reporter=None",
    "prepare_data": "config, *overwrite=False, *reporter=None",
    "preview": "config, *count=3, *html=None, *reporter=None",
    "publish_data": "config, output, *reporter=None",
    "queue_data": (
        "folder, source=None, *labels=(), *count=100, *by=None, *ordered=False, *relabel=False, *seed=13, "
        "*reporter=None"
    ),
    "range_test": "config, *steps=40, *reporter=None",
    "promote_adapter": "ref, *task=None, *repository=None",
    "roll_back_adapter": "task, *repository=None",
    "run": "config, *overwrite=False, *reporter=None",
    "search": "config, *overwrite=False, *reporter=None",
    "search_adapters": "text=None, *task=None, *base=None, *tag=None, *repository=None",
    "serve_models": "models=(), *overrides=(), *reporter=None",
    "trace_data": "run, split, number",
}


def arguments(name: str) -> str:
    shown = []
    for parameter in inspect.signature(getattr(tanzim, name)).parameters.values():
        star = "*" if parameter.kind is parameter.KEYWORD_ONLY else ""
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        shown.append(f"{star}{parameter.name}{default}")
    return ", ".join(shown)


def test_exported_names() -> None:
    assert set(tanzim.__all__) == CLASSES | set(SURFACE)


def test_arguments() -> None:
    assert {name: arguments(name) for name in SURFACE} == SURFACE


def test_every_public_function_is_typed_and_documented() -> None:
    for name in SURFACE:
        function = getattr(tanzim, name)
        assert "return" in function.__annotations__, name
        assert set(inspect.signature(function).parameters) <= set(function.__annotations__), name
        assert "Raises:" in (function.__doc__ or "") or name == "doctor", name


def test_no_public_name_is_hidden_by_a_room() -> None:
    for room in ("evaluate", "export", "serve", "train", "data", "models"):
        importlib.import_module(f"tanzim.{room}.config")
    for name in SURFACE:
        assert inspect.isfunction(getattr(tanzim, name)), name
