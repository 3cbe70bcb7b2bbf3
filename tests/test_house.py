"""The house rules: layers, public names, packaging, and what an import costs."""

from __future__ import annotations

import ast
import importlib
import inspect
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

# An arrow goes only downward.
LAYERS = ("apps", "training", "sdk", "mobile_export", "fusion", "encoders")


def modules(root: Path) -> list[Path]:
    return sorted(path for layer in LAYERS for path in (root / layer).rglob("*.py"))


def dotted(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(("sensorium", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def imported_layers(root: Path, path: Path) -> set[str]:
    """The layers that a module imports from, also inside functions."""
    package = path.relative_to(root).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            full = (*base, *(node.module or "").split(".")) if node.module else base
            found |= {full[0]} if full and full[0] else {alias.name for alias in node.names}
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        assert not any(name.split(".")[0] in ("sensorium", *LAYERS) for name in names), f"{path}: imports are relative"
    return found & set(LAYERS)


def test_imports_go_only_downward(root: Path) -> None:
    upward = [
        f"{path.relative_to(root)} imports {layer}"
        for path in modules(root)
        for layer in imported_layers(root, path)
        if LAYERS.index(layer) < LAYERS.index(path.relative_to(root).parts[0])
    ]
    assert upward == []


def test_the_layer_test_sees_an_upward_import(root: Path, tmp_path: Path) -> None:
    for text, layer in (("from ..apps import cli", "apps"), ("from ..sdk.hub import x", "sdk")):
        path = tmp_path / "fusion" / "bad.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"def f():\n    {text}\n")
        assert imported_layers(tmp_path, path) == {layer}


def test_all_equals_the_public_names(root: Path) -> None:
    for path in modules(root):
        module = importlib.import_module(dotted(root, path))
        defined = {
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and (inspect.isclass(value) or inspect.isfunction(value))
            and value.__module__ == module.__name__
        }
        assert hasattr(module, "__all__"), f"{module.__name__} has no __all__"
        listed = set(module.__all__)
        assert len(listed) == len(module.__all__), module.__name__
        assert all(hasattr(module, name) for name in listed), module.__name__
        commands = (
            {"ask", "ring", "chat", "models", "info", "options"} if module.__name__.endswith("apps.cli") else set()
        )
        assert defined - commands <= listed, f"{module.__name__}: {defined - listed} not in __all__"


def test_public_names_are_documented(root: Path) -> None:
    missing = []
    for path in modules(root):
        tree = ast.parse(path.read_text())
        kinds = (ast.ClassDef, ast.FunctionDef)
        if ast.get_docstring(tree) is None and path.read_text().strip():
            missing.append(str(path.relative_to(root)))
        for node in tree.body:
            if isinstance(node, kinds) and not node.name.startswith("_"):
                members = [child for child in node.body if isinstance(child, ast.FunctionDef)]
                for child in (node, *(members if isinstance(node, ast.ClassDef) else ())):
                    if not child.name.startswith("_") and ast.get_docstring(child) is None:
                        missing.append(f"{path.relative_to(root)}:{child.lineno} {child.name}")
    assert missing == []


def test_the_package_list_is_the_folders(root: Path) -> None:
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {dotted(root, path) for path in modules(root) if path.name == "__init__.py"}
    assert set(listed) == folders
    for layer in LAYERS:
        assert (root / layer / "py.typed").is_file()


@pytest.mark.slow
def test_the_wheel_installs_nothing_but_sensorium(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for layer in LAYERS:
        shutil.copytree(root / layer, source / layer, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--installer", "uv", "--outdir", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"sensorium", next(top for top in tops if top.endswith(".dist-info"))}
    assert "sensorium/__init__.py" not in names
    assert {"sensorium/sdk/cards/nano.toml", "sensorium/sdk/py.typed", "sensorium/apps/cli.py"} <= set(names)


@pytest.mark.parametrize("module", ["sensorium.sdk", "sensorium.encoders.text", "sensorium.apps.cli"])
def test_import_brings_neither_torch_nor_transformers(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'onnxruntime'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_documentation_speaks_of_the_project_alone(root: Path) -> None:
    for path in [*modules(root), *root.glob("*.md"), *(root / "docs").rglob("*.md"), root / "Makefile"]:
        text = path.read_text()
        assert "pypi.org" + "/" not in text, path
        assert "/wo" + "rk/" not in text, path
