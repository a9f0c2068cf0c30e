"""The command line starts light: no heavy package is imported before it is needed."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "peft", "pyarrow", "numpy", "fastapi", "sklearn", "datasets")


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print('\\n'.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(out.split())


def test_command_line_and_config_import_nothing_heavy() -> None:
    loaded = modules_after("import tanzim, tanzim.cli.main, tanzim.pipeline.config")
    assert "tanzim.pipeline.config" in loaded
    assert not loaded.intersection(HEAVY)


def test_text_rooms_import_no_torch() -> None:
    loaded = modules_after("import tanzim.data.prepare, tanzim.data.inspect, tanzim.core.page")
    assert "tanzim.data.prepare" in loaded
    assert "torch" not in loaded
