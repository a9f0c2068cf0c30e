"""The public surface is pinned: a change here is a change for users."""

import inspect

import tanzim

SURFACE = {
    "chat": "(model: 'str', message: 'str', *, overrides: 'Sequence[str]' = ()) -> 'Iterator[str]'",
}


def test_exported_names() -> None:
    assert sorted(tanzim.__all__) == sorted(
        [
            "Config",
            "TanzimError",
            "chat",
            "doctor",
            "evaluate",
            "export",
            "finetune",
            "init",
            "inspect_data",
            "load_config",
            "plan",
            "prepare_data",
            "preview",
            "run",
            "serve",
        ]
    )


def test_signatures() -> None:
    for name, signature in SURFACE.items():
        assert str(inspect.signature(getattr(tanzim, name))) == signature
