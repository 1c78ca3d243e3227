"""The kernels between the convolutions of pictures against plain torch, in both dtypes."""

from __future__ import annotations

import contextlib

import pytest
import torch

from deploy.presets import SIZES
from system.models import kernels
from system.models.decoder import Decoder
from system.models.encoder import Encoder
from system.models.pictures import WIDEST, pool_norm_silu, spread, spread_norm_silu
from system.specs import ArraySpec

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
needs_kernels = pytest.mark.skipif(kernels.library() is None, reason="no C compiler here")
CASES = {"pool": (pool_norm_silu, 1), "spread": (spread_norm_silu, 4)}
"""Each with how many pixels lie in a row of its input."""


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def both(function, x, scale):
    """What kernel and twin give, and their gradients for x and scale."""
    found = []
    for switch in (contextlib.nullcontext, kernels.switched_off):
        mine, weight = (each.clone().requires_grad_() for each in (x, scale))
        with switch():
            out = function(mine, weight)
            (out.float() * drawn(*out.shape, seed=9)).sum().backward()
        found.append((out.detach(), mine.grad, weight.grad))
    return zip(*found, strict=True)


@needs_kernels
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("channels", [3, 7, 8, 12, 16, 17, 48, 384])
def test_the_kernels_are_the_plain_ones(case, channels, dtype):
    function, pixels = CASES[case]
    x = (2 * drawn(3, 6, 4, pixels * channels)).to(dtype)
    for ours, twin in both(function, x, 1 + drawn(channels, seed=1) / 5):
        assert ours.dtype == twin.dtype
        size = TOLERANCE[dtype] * twin.float().abs().max()
        torch.testing.assert_close(ours.float(), twin.float(), atol=float(size), rtol=0)


@needs_kernels
def test_of_equal_pixels_the_first_takes_the_gradient_and_nan_passes_through():
    x = torch.zeros(1, 4, 4, 8)
    x[0, 2, 2] = float("nan")
    out, dx, _ = both(pool_norm_silu, x, torch.ones(8))
    assert torch.equal(out[0].isnan(), out[1].isnan())
    assert out[0].isnan().sum() == 8
    assert torch.equal(dx[0][:, :2] != 0, dx[1][:, :2] != 0)
    assert (dx[0][0, 0, 0] != 0).all()


def test_a_row_too_wide_for_the_kernel_takes_the_plain_way():
    x, scale = drawn(1, 2, 2, WIDEST + 1), torch.ones(WIDEST + 1)
    assert pool_norm_silu(x, scale).shape == (1, 1, 1, WIDEST + 1)


def test_the_four_pixels_of_a_square_lie_row_by_row():
    x = torch.arange(2 * 3 * 4 * 5).view(1, 2, 3, 20)
    whole = spread(x)
    for row, column, a, b in ((0, 0, 0, 1), (1, 2, 1, 0), (0, 1, 1, 1)):
        pixel = x[0, row, column].view(2, 2, 5)[a, b]
        assert torch.equal(whole[0, 2 * row + a, 2 * column + b], pixel)


@needs_kernels
@torch.no_grad()
def test_convolutions_in_bfloat16_see_and_show_about_the_same():
    torch.manual_seed(0)
    specs = {"eye": ArraySpec(shape=(64, 64, 3), dtype="uint8")}
    encoder, decoder = Encoder(SIZES["nano"], specs), Decoder(SIZES["nano"], specs)
    seen = {"eye": torch.randint(256, (4, 64, 64, 3), dtype=torch.uint8)}
    feature = drawn(4, SIZES["nano"].feature)
    exact = encoder.encode(seen), decoder.decode(feature)["eye"]
    for images in (*encoder.images, *decoder.images):
        images.dtype = torch.bfloat16
    rounded = encoder.encode(seen), decoder.decode(feature)["eye"]
    for ours, twin in zip(rounded, exact, strict=True):
        assert ours.dtype == torch.float32
        assert not torch.equal(ours, twin)
        assert (ours - twin).square().mean().sqrt() < 0.03 * twin.std()
