"""What may import what, what may never be called, and how long a file may be."""

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


FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
FORBIDDEN_CALLS = {
    "eval", "exec", "torch.load", "torch.save", "yaml.load", "yaml.unsafe_load", "numpy.load",
    "np.load", "pandas.read_pickle",
}  # fmt: skip


def _dotted(node):
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return "?"


def violations(source):
    """Line numbers and names of what may decode bytes into code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").split(".")[0]]
            pairs = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(node.lineno, pair) for pair in pairs if pair in FORBIDDEN_CALLS]
        elif isinstance(node, ast.Call):
            call = _dotted(node.func)
            safe = call.endswith("np.load") and any(
                keyword.arg == "allow_pickle" and getattr(keyword.value, "value", None) is False
                for keyword in node.keywords
            )
            if call in FORBIDDEN_CALLS and not safe:
                found.append((node.lineno, call))
            if any(
                k.arg == "allow_pickle" and getattr(k.value, "value", None) is not False
                for k in node.keywords
            ):
                found.append((node.lineno, "allow_pickle"))
        found += [(node.lineno, name) for name in names if name in FORBIDDEN_MODULES]
    return found


@pytest.mark.parametrize("path", _files(*PACKAGES), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_bytes_become_code(path):
    assert violations(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "eval('1')", "exec('1')", "import dill.x",
        "import torch\ntorch.load('x')", "from torch import load", "import yaml\nyaml.load(f)",
        "np.load('x')", "np.load('x', allow_pickle=True)", "f(allow_pickle=x)",
    ],
)  # fmt: skip
def test_the_check_would_notice(source):
    assert violations(source)


@pytest.mark.parametrize("source", ["model.eval()", "yaml.safe_load(f)", "json.load(f)"])
def test_the_check_knows_the_harmless(source):
    assert not violations(source)


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
