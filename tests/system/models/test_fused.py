"""The fused kernels against their plain twins: values, gradients, odd sizes, NaN, no compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from system.models import fused, kernels
from system.models.distributions import FusedTwoHot, OneHot, TwoHot
from system.models.layers import NORM_EPS, Norm
from system.models.numerics import two_hot_bins

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
DTYPES = list(TOLERANCE)

needs_kernels = pytest.mark.skipif(kernels.library() is None, reason="no C compiler here")


def _random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _gradients(output, *inputs, seed=9):
    weight = _random(*output.shape, seed=seed)
    return torch.autograd.grad((output.float() * weight).sum(), inputs, retain_graph=True)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 5, 64), (300, 128)])
def test_norm_silu_equals_the_plain_one(shape, dtype):
    x = (3 * _random(*shape)).to(dtype).requires_grad_()
    norm = Norm(shape[-1])
    with torch.no_grad():
        norm.scale.add_(_random(shape[-1], seed=1))
    found = norm(x)
    wanted = F.silu(F.rms_norm(x.float(), norm.scale.shape, norm.scale, NORM_EPS))
    tolerance = TOLERANCE[dtype]
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), wanted, atol=tolerance, rtol=tolerance)
    pairs = zip(
        _gradients(found, x, norm.scale), _gradients(wanted, x, norm.scale), strict=True
    )  # fmt: skip
    for mine, twin in pairs:
        size = twin.float().abs().max().clamp(min=1e-3)
        torch.testing.assert_close(
            mine.float(), twin.float(), atol=tolerance * size, rtol=tolerance
        )


@needs_kernels
@pytest.mark.parametrize(
    ("rows", "groups", "width", "cols"),
    [(1, 1, 1, 1), (3, 2, 5, 7), (16, 8, 64, 192), (33, 4, 16, 48)],
)
@pytest.mark.parametrize("add", [False, True])
def test_block_matmul_equals_a_product_per_block(rows, groups, width, cols, add):
    x, weight = _random(rows, groups * width), _random(groups, width, cols, seed=1)
    out = _random(rows, groups * cols, seed=2)
    wanted = torch.einsum("rgi,gio->rgo", x.view(rows, groups, width), weight).flatten(1)
    wanted = wanted + out if add else wanted
    fused.block_matmul(x, weight, out, add=add)
    torch.testing.assert_close(out, wanted, atol=1e-4, rtol=1e-4)


@needs_kernels
@pytest.mark.parametrize("classes", [2, 4, 5])
def test_sample_equals_the_plain_one(classes):
    logits = (3 * _random(40, 3 * classes)).requires_grad_()
    noise = torch.rand(40, 3, 1, generator=torch.Generator().manual_seed(1))
    hard, probs = fused.sample(logits, noise, classes, 0.01)
    plain = OneHot.from_logits(logits.view(40, 3, classes), 0.01)
    wanted = plain.sample(noise)
    assert torch.equal(hard.detach().view_as(wanted), wanted.detach().round())
    torch.testing.assert_close(probs.view_as(wanted), plain.probs)
    (mine,) = _gradients(hard * 2 + probs, logits)
    (twin,) = _gradients((wanted * 2 + plain.probs).flatten(1), logits)
    torch.testing.assert_close(mine, twin)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 70, fused.TILE + 3])
def test_two_hot_equals_the_plain_one(rows, dtype):
    bins = two_hot_bins(41)
    hidden = _random(rows, 6).to(dtype).requires_grad_()
    away = (torch.arange(41) - 20).abs()
    weight = (0.3 * _random(41, 6, seed=1) * (away < 4).unsqueeze(-1)).requires_grad_()
    bias = (-2.0 * away).requires_grad_()
    target, other = 5 * _random(rows, seed=2), 5 * _random(rows, seed=3)
    mine = FusedTwoHot(hidden, weight, bias, bins)
    twin = TwoHot(F.linear(hidden.float(), weight, bias), bins)
    torch.testing.assert_close(mine.mean(), twin.mean(), atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(mine.mean(), twin.mean(), atol=1e-4, rtol=1e-4)
    for found, wanted in [
        (mine.mean(), twin.mean()),
        (mine.cross_entropy(target), twin.cross_entropy(target)),
        (mine.cross_entropy(target, other, 0.5), twin.cross_entropy(target, other, 0.5)),
    ]:
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
        pairs = zip(
            _gradients(found, hidden, weight, bias), _gradients(wanted, hidden, weight, bias),
            strict=True,
        )  # fmt: skip
        for a, b in pairs:
            size = b.float().abs().max().item()
            torch.testing.assert_close(
                a.float(), b.float(), atol=TOLERANCE[dtype] * size, rtol=TOLERANCE[dtype]
            )


@needs_kernels
def test_equal_weights_mean_exactly_zero():
    bins = two_hot_bins(255)
    zeros = FusedTwoHot(_random(4, 8), torch.zeros(255, 8), torch.zeros(255), bins)
    assert zeros.mean().tolist() == [0.0] * 4


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_a_number_stays_so(dtype):
    x = _random(2, 64).to(dtype)
    x[1, 5] = float("nan")
    found = fused.norm_silu(x, torch.ones(64), NORM_EPS)
    assert found[0].isfinite().all()
    assert found[1].isnan().all()


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
    environment = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": "."}
    if missing == "switch":
        environment |= {"PATH": "/usr/bin:/bin", "DREAMFLEET_KERNELS": "off"}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "[1, 3]" in found.stdout


@needs_kernels
def test_a_cache_that_others_can_write_is_not_loaded(tmp_path, monkeypatch):
    folder = tmp_path / "dreamfleet"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels.library.cache_clear()
    try:
        assert kernels.library() is None
    finally:
        monkeypatch.undo()
        kernels.library.cache_clear()
