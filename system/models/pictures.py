"""What stands between the convolutions of pictures: norm and SiLU, with the step in size.

Channels last, float32 or bfloat16. Each function is one kernel, or a few lines of plain torch where
there are none (`kernels.usable`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from system.models import kernels

EPS = 1e-4
"""As `layers.NORM_EPS`."""
WIDEST = 1024
"""Channels that a kernel holds at once, as in `native/pictures.h`."""


def pool_norm_silu(x: Tensor, scale: Tensor) -> Tensor:
    """The maximum of each 2 x 2 square, then norm and SiLU: [N, 2 H, 2 W, C] -> [N, H, W, C]."""
    if _kernel_takes(scale):
        return _Pool.apply(x, scale)  # type: ignore[no-untyped-call, no-any-return]
    return _norm_silu(F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1), scale)


def spread_norm_silu(x: Tensor, scale: Tensor) -> Tensor:
    """Norm and SiLU of the four pixels of each square: [N, H, W, 4 C] -> [N, 2 H, 2 W, C]."""
    if _kernel_takes(scale):
        return _Spread.apply(x, scale)  # type: ignore[no-untyped-call, no-any-return]
    return _norm_silu(spread(x), scale)


def spread(x: Tensor) -> Tensor:
    """Four pixels, row by row, become a square: [N, H, W, 4 C] -> [N, 2 H, 2 W, C]."""
    count, height, width, _ = x.shape
    # [N, H, W, a, b, C] -> [N, H, a, W, b, C]
    return x.reshape(count, height, width, 2, 2, -1).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _kernel_takes(scale: Tensor) -> bool:
    return kernels.usable(scale) and len(scale) <= WIDEST


def _norm_silu(x: Tensor, scale: Tensor) -> Tensor:
    return F.silu(F.rms_norm(x.float(), scale.shape, scale, EPS)).to(x.dtype)


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:  # noqa: ANN401
        count, height, width, channels = x.shape
        x = x.contiguous()
        ctx.save_for_backward(x, scale)
        ctx.sizes = count * height * width // 4, width // 2, channels, int(x.dtype != scale.dtype)
        out = x.new_empty(count, height // 2, width // 2, channels)
        kernels.call("pool_norm_silu", x, scale, out, *ctx.sizes)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        return _backward("pool_norm_silu_gradient", ctx, gradient)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:  # noqa: ANN401
        count, height, width, four = x.shape
        x = x.contiguous()
        ctx.save_for_backward(x, scale)
        ctx.sizes = count * height * width, width, four // 4, int(x.dtype != scale.dtype)
        out = x.new_empty(count, 2 * height, 2 * width, four // 4)
        kernels.call("spread_norm_silu", x, scale, out, *ctx.sizes)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        return _backward("spread_norm_silu_gradient", ctx, gradient)


def _backward(kernel: str, ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    x, scale = ctx.saved_tensors
    dx, dscale = torch.empty_like(x), torch.empty_like(scale)
    kernels.call(kernel, x, scale, gradient.contiguous(), dx, dscale, *ctx.sizes)
    return dx, dscale
