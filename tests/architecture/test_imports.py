"""What may import what, and how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("system", "actors", "learner", "deploy")
LOOPS = ("actors/loop.py", "learner/loop.py", "learner/update.py")
"""One screen each: the eight calls are read here. `update` counts its method, not its file."""


def _files(*packages):
    found = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in found if "__pycache__" not in path.parts]


def _module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _import_without(forbidden, modules):
    """Imports the modules in a fresh interpreter where `forbidden` cannot be found."""
    program = f"""
import importlib, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {forbidden!r}:
            raise ImportError(f"{{name}} is forbidden here")

sys.meta_path.insert(0, Refuse())
for name in {modules!r}:
    importlib.import_module(name)
    loaded = set({forbidden!r}) & set(sys.modules)
    assert not loaded, f"{{name}} loads {{loaded}}"
"""
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("package", ["system", "actors", "learner"])
def test_imports_without_ray(package):
    done = _import_without(("ray",), [_module(path) for path in _files(package)])
    assert done.returncode == 0, done.stderr


def test_system_outside_models_imports_without_torch():
    modules = [_module(path) for path in _files("system")]
    light = [name for name in modules if not name.startswith("system.models")]
    assert len(light) > 10
    done = _import_without(("torch", "ray", "gymnasium", "dm_control"), light)
    assert done.returncode == 0, done.stderr


def test_the_hook_would_notice():
    assert "torch is forbidden here" in _import_without(("torch",), ["system.models.agent"]).stderr


@pytest.mark.parametrize("path", _files(*PACKAGES), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_have_at_most_300_lines(path):
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("name", [name for name in LOOPS if name.endswith("loop.py")])
def test_loops_fit_one_screen(name):
    assert len((ROOT / name).read_text().splitlines()) <= 80


def test_the_update_fits_one_screen():
    tree = ast.parse((ROOT / "learner/update.py").read_text())
    methods = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    assert methods["update"].end_lineno - methods["update"].lineno < 50


def test_only_deploy_names_ray():
    for path in _files("system", "actors", "learner"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not any(a.name.split(".")[0] == "ray" for a in node.names), path
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] != "ray", path
                assert node.level == 0, f"{path}: relative import"
