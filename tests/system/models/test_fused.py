"""The fused kernels against their plain twins: values, gradients, odd sizes, NaN, no compiler."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from system.models import fused, kernels, packed
from system.models.distributions import FusedTwoHot, TwoHot
from system.models.layers import MLP, NORM_EPS, Norm
from system.models.numerics import two_hot_bins
from tests.learning_for_tests import perturb

needs_kernels = pytest.mark.skipif(kernels.library() is None, reason="no C compiler here")


def _random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _gradients(output, *inputs, seed=9):
    weight = _random(*output.shape, seed=seed)
    return torch.autograd.grad((output.float() * weight).sum(), inputs, retain_graph=True)


def _near(found, wanted, tolerance):
    """Within a share of the largest."""
    size = wanted.abs().max().clamp(min=1e-3)
    torch.testing.assert_close(found, wanted, atol=tolerance * size, rtol=tolerance)


@needs_kernels
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 5, 64), (300, 128)])
def test_norm_silu_equals_the_plain_one(shape):
    x = (3 * _random(*shape)).requires_grad_()
    norm = Norm(shape[-1])
    with torch.no_grad():
        norm.scale.add_(_random(shape[-1], seed=1))
    found = norm(x)
    wanted = F.silu(F.rms_norm(x, norm.scale.shape, norm.scale, NORM_EPS))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    for mine, twin in zip(
        _gradients(found, x, norm.scale), _gradients(wanted, x, norm.scale), strict=True
    ):
        _near(mine, twin, 1e-5)


ROUNDED = [False, True]
SHAPES = [(1, 1, 1), (3, 5, 7), (16, 64, 192), (33, 16, 48), (130, 40, 31), (40, 96, 70)]


@needs_kernels
@pytest.mark.parametrize("rounded", ROUNDED)
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("rows", "width", "cols"), SHAPES)
def test_the_gradient_of_a_weight_is_a_product_over_rows(rows, width, cols, groups, rounded):
    # Columns of wider tensors: rows of any stride.
    a = _random(rows, groups * width + 3)[:, : groups * width]
    b = _random(rows, groups * cols + 5, seed=1)[:, : groups * cols]
    rounded = rounded and kernels.has_tiles()
    found = packed.outer(a, b, blocks=groups, rounded=rounded)
    wanted = torch.einsum("rgi,gro->gio", a.view(rows, groups, width) if a.is_contiguous()
                          else a.unflatten(1, (groups, width)),
                          b.unflatten(1, (groups, cols)).transpose(0, 1))  # fmt: skip
    _near(found.view_as(wanted), wanted, 1e-2 if rounded else 1e-5)


@needs_kernels
@pytest.mark.parametrize("rounded", ROUNDED)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(("rows", "width", "units"), SHAPES)
def test_blocks_equal_the_plain_ones(rows, width, units, layers, rounded):
    torch.manual_seed(0)
    mlp = MLP(width, units, layers)
    perturb(mlp)
    x = _random(rows, width).requires_grad_()
    wanted_of = [x, *mlp.parameters()]
    with kernels.rounding(rounded):
        found = mlp(x)
        mine = _gradients(found, *wanted_of)
        with torch.no_grad():
            assert torch.equal(mlp(x), found)
    with kernels.switched_off():
        twin = mlp(x)
    near = 4e-2 if rounded and kernels.has_tiles() else 2e-5
    torch.testing.assert_close(found, twin, atol=near, rtol=near)
    for a, b in zip(mine, _gradients(twin, *wanted_of), strict=True):
        if near < 1e-3:
            _near(a, b, 1e-4)
        elif a.numel() > 1 and b.norm() > 1e-2:
            assert torch.cosine_similarity(a.flatten(), b.flatten(), 0) > 0.98


@needs_kernels
def test_frozen_blocks_pass_the_gradient_on():
    mlp = MLP(6, 8, 2).requires_grad_(False)
    x = _random(5, 6).requires_grad_()
    (mine,) = _gradients(mlp(x), x)
    with kernels.switched_off():
        (twin,) = _gradients(mlp(x), x)
    _near(mine, twin, 1e-5)


@needs_kernels
@pytest.mark.parametrize("rounded", ROUNDED)
@pytest.mark.parametrize("rows", [1, 70, 259])
def test_two_hot_equals_the_plain_one(rows, rounded):
    bins = two_hot_bins(41)
    hidden = _random(rows, 6).requires_grad_()
    away = (torch.arange(41) - 20).abs()
    weight = (0.3 * _random(41, 6, seed=1) * (away < 4).unsqueeze(-1)).requires_grad_()
    bias = (-2.0 * away).requires_grad_()
    target, other = 5 * _random(rows, seed=2), 5 * _random(rows, seed=3)
    mine = FusedTwoHot(hidden, fused.Projection(weight, bias, bins))
    twin = TwoHot(F.linear(hidden, weight, bias), bins)
    near = 2e-2 if rounded and kernels.has_tiles() else 1e-4
    with kernels.rounding(rounded):
        for found, wanted in [
            (mine.mean(), twin.mean()),
            (mine.cross_entropy(target), twin.cross_entropy(target)),
            (mine.cross_entropy(target, other, 0.5), twin.cross_entropy(target, other, 0.5)),
        ]:
            torch.testing.assert_close(found, wanted, atol=near, rtol=near)
            for a, b in zip(
                _gradients(found, hidden, weight, bias),
                _gradients(wanted, hidden, weight, bias),
                strict=True,
            ):
                _near(a, b, near)


@needs_kernels
def test_equal_weights_mean_exactly_zero():
    bins = two_hot_bins(255)
    out = fused.Projection(torch.zeros(255, 8), torch.zeros(255), bins)
    zeros = FusedTwoHot(_random(4, 8), out)
    assert zeros.mean().tolist() == [0.0] * 4


@needs_kernels
@pytest.mark.parametrize("rounded", ROUNDED)
def test_what_is_not_a_number_stays_so(rounded):
    x = _random(2, 64)
    x[1, 5] = float("nan")
    with kernels.rounding(rounded):
        found = MLP(64, 64, 2)(x)
    assert found[0].isfinite().all()
    assert found[1].isnan().all()


def printed(code, environment=os.environ):
    """What another process prints that runs `code` to its end."""
    found = subprocess.run(
        [sys.executable, "-c", code], env={**environment, "PYTHONPATH": "."}, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return found.stdout


@needs_kernels
def test_very_wide_observations_fit_beside_bfloat16():
    """In another process, as what does not fit ends it."""
    code = (
        "import torch; from system.models import kernels; from system.models.layers import MLP\n"
        "mlp, x = MLP(200_000, 8, 1), torch.zeros(33, 200_000)\n"
        "with kernels.rounding(True): print(mlp(x).shape)"
    )
    assert "[33, 8]" in printed(code)


def test_other_dtypes_take_the_plain_path():
    assert not kernels.usable(torch.zeros(1, dtype=torch.float64))
    with kernels.switched_off():
        assert not kernels.usable(torch.zeros(1))


@pytest.mark.parametrize("missing", ["compiler", "switch"])
def test_without_a_compiler_everything_still_runs(missing, tmp_path):
    """Another process, with an empty cache and nothing on its PATH, or switched off."""
    code = (
        "import torch; from system.models import kernels; from system.models.layers import Norm;"
        "assert not kernels.usable(torch.zeros(1)); print(Norm(3)(torch.ones(1, 3)).shape)"
    )
    environment = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    if missing == "switch":
        environment |= {"PATH": "/usr/bin:/bin", "DREAMFLEET_KERNELS": "off"}
    assert "[1, 3]" in printed(code, environment)


@pytest.fixture
def afresh(tmp_path, monkeypatch):
    """As in a process that has yet to load its kernels, with an empty cache: its folder."""
    folder = tmp_path / "dreamfleet"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels.library.cache_clear()
    yield folder
    monkeypatch.undo()
    kernels.library.cache_clear()


@needs_kernels
def test_a_cache_that_others_can_write_is_not_loaded(afresh):
    afresh.chmod(0o777)
    assert kernels.library() is None


@needs_kernels
def test_a_damaged_library_is_built_anew(afresh, monkeypatch):
    monkeypatch.setattr(kernels, "_machine", lambda _: "damaged")
    (afresh / "kernels-damaged.so").touch()
    assert kernels.library() is not None


def test_without_a_home_there_are_no_kernels(afresh, monkeypatch):
    def no_entry(_):
        raise KeyError

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", no_entry)
    assert kernels.library() is None


@needs_kernels
def test_a_second_way_back_gives_the_same_and_leaves_the_first():
    mlp = MLP(6, 8, 2)
    perturb(mlp)
    out = mlp(_random(5, 6))
    first = _gradients(out, *mlp.parameters())
    before = [each.clone() for each in first]
    second = _gradients(out, *mlp.parameters())
    assert all(map(torch.equal, first, before))
    assert all(map(torch.equal, second, before))


@needs_kernels
def test_there_may_be_more_threads_on_the_way_back():
    mlp = MLP(64, 512, 1)
    perturb(mlp)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        outs = [mlp(_random(256, 64)) for _ in range(2)]
        wanted = _gradients(outs[0], *mlp.parameters())
        torch.set_num_threads(3)
        found = _gradients(outs[1], *mlp.parameters())
    finally:
        torch.set_num_threads(threads)
    for mine, twin in zip(found, wanted, strict=True):
        _near(mine, twin, 1e-5)


@needs_kernels
def test_a_thread_has_room_for_as_many_as_torch_may_use():
    """In a process whose OpenMP says 1, a new thread has not yet heard of `set_num_threads`."""
    code = (
        "import threading, torch; from system.models import kernels; torch.set_num_threads(3);"
        "tell = lambda: print(kernels.max_threads());"
        "thread = threading.Thread(target=tell); thread.start(); thread.join(); tell()"
    )
    new, main = printed(code, {**os.environ, "OMP_NUM_THREADS": "1"}).split()
    assert new == main
