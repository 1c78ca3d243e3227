"""What our code may never call: whatever turns bytes into code, or text into a shell command."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("system", "actors", "learner", "deploy")
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
"""Decoders that run what they read; also as a part of a name: `ray.cloudpickle`."""
CALLS = {
    "eval", "exec", "compile", "__import__",
    "torch.load", "torch.save", "torch.serialization.load", "torch.hub.load", "torch.jit.load",
    "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load",
    "numpy.load", "numpy.memmap.load", "pandas.read_pickle",
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell", "tempfile.mktemp",
}  # fmt: skip
LITERALS = {"allow_pickle": False, "shell": False, "weights_only": True}
"""Arguments that must be this constant wherever they are given."""


def violations(source):
    """(line, what) of everything forbidden."""
    found = []
    tree = ast.parse(source)
    names = _imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, a.name) for a in node.names if _is_module(a.name)]
        elif isinstance(node, ast.ImportFrom):
            full = [f"{node.module}.{a.name}".removeprefix("builtins.") for a in node.names]
            found += [(node.lineno, name) for name in full if _is_module(name) or name in CALLS]
        elif isinstance(node, ast.Call):
            found += [(node.lineno, what) for what in _wrong_arguments(node)]
        if isinstance(node, ast.Name | ast.Attribute):
            name = _full_name(node, names)
            if (name in CALLS and not _is_safe_load(node, name, tree)) or _is_module(name):
                found.append((node.lineno, name))
    return sorted(set(found))


def _imported(tree):
    """Local name -> what it stands for, with `builtins.` left out."""
    names = {"builtins": ""}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return {"np": "numpy"} | names


def _full_name(node, names):
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_full_name(node.value, names)}.{node.attr}".removeprefix(".")
    return "?"


def _is_module(name):
    return bool(MODULES & set(name.split(".")))


def _wrong_arguments(call):
    for keyword in call.keywords:
        wanted = LITERALS.get(keyword.arg)
        if keyword.arg in LITERALS and getattr(keyword.value, "value", None) is not wanted:
            yield keyword.arg


def _is_safe_load(node, name, tree):
    """`numpy.load(..., allow_pickle=False)` reads arrays alone."""
    calls = [call for call in ast.walk(tree) if isinstance(call, ast.Call) and call.func is node]
    return name == "numpy.load" and any(
        keyword.arg == "allow_pickle" for call in calls for keyword in call.keywords
    )


def _files():
    found = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    assert len(found) > 80
    return found


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_forbidden(path):
    assert violations(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "import cPickle as p", "from pickle import loads", "import dill.x",
        "import cloudpickle", "from ray import cloudpickle", "import shelve", "import marshal",
        "import joblib", "import ray\nray.cloudpickle.loads(x)",
        "import multiprocessing.reduction as r\nr.pickle.loads(x)",
        "eval('1')", "exec('1')", "compile('1', '', 'eval')", "__import__('x')",
        "import builtins\nbuiltins.eval('1')", "run = eval", "from builtins import exec as go",
        "import torch\ntorch.load('x')", "import torch as t\nt.load('x')", "from torch import load",
        "from torch import load as read", "f = torch.load", "import torch\ntorch.save(x, y)",
        "g(x, weights_only=False)",
        "import yaml\nyaml.load(f)", "import yaml as y\ny.unsafe_load(f)",
        "import yaml\nyaml.load(f, Loader=yaml.SafeLoader)",
        "np.load('x')", "import numpy\nnumpy.load('x')", "np.load('x', allow_pickle=True)",
        "from numpy import load", "f(allow_pickle=x)",
        "import os\nos.system('ls')", "from os import system", "import os\nos.popen('ls')",
        "import subprocess\nsubprocess.run('ls', shell=True)", "Popen('ls', shell=x)",
        "import asyncio\nasyncio.create_subprocess_shell('ls')",
        "import tempfile\ntempfile.mktemp()", "from tempfile import mktemp",
    ],
)  # fmt: skip
def test_the_check_would_notice(source):
    assert violations(source)


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()", "import yaml\nyaml.safe_load(f)", "import json\njson.load(f)",
        "np.load('x', allow_pickle=False)", "import re\nre.compile('x')",
        "import torch\ntorch.compile(f)", "subprocess.run(['ls'])", "f(shell=False)",
        "import tempfile\ntempfile.mkstemp()", "self.load(x)", "agent.exec(x)",
        "import safetensors.torch\nsafetensors.torch.load(x)",
    ],
)  # fmt: skip
def test_the_check_knows_the_harmless(source):
    assert not violations(source)
