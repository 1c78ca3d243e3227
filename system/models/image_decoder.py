"""Feature -> images of one size (DreamerV3, Nature 2025): spread over a grid, then four doublings.

::

    deter --block-linear--.
                           + --norm, SiLU--> [h, w, 4 depth] --double--> ... --double--> sigmoid
    stoch --block, linear-'

A doubling is: repeat each pixel 2 x 2, then convolve 5 x 5. Each of the four output pixels that
share an input pixel sees just 3 x 3 different inputs, so it is one 3 x 3 convolution of the small
image with the kernel's rows and columns added up, four outputs for one; 2.8 times fewer products.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from system.config import ModelConfig
from system.errors import ConfigError
from system.models.image_encoder import DEPTHS, STRIDE, conv_parameters, padding
from system.models.layers import Block, BlockLinear, Linear, Norm
from system.models.pictures import spread, spread_norm_silu
from system.specs import ArraySpec

_SEEN_BY = (((0, 1), (2, 3), (4,)), ((0,), (1, 2), (3, 4)))
"""Of the even and the odd output pixel: which of the 5 taps fall on the pixel before, at, after."""


class ImageDecoder(nn.Module):
    """All images of one height and width, side by side in the channels of one output.

    Raises:
      ConfigError: an image is too large, or `model.depth` does not fit `model.blocks`.
    """

    def __init__(self, config: ModelConfig, images: dict[str, ArraySpec]) -> None:
        super().__init__()
        if DEPTHS[-1] * config.depth % config.blocks:
            raise ConfigError(
                f"model.depth={config.depth}: {DEPTHS[-1]} times it must be a multiple of "
                f"model.blocks={config.blocks}, or images cannot be decoded"
            )
        self._specs = {name: images[name] for name in sorted(images)}
        self._deter, self._blocks, self.dtype = config.deter, config.blocks, torch.float32
        """In `dtype`, float32 or bfloat16, the convolutions compute."""
        height, width, _ = padding(images)
        self._grid = (height // STRIDE, width // STRIDE)
        channels = DEPTHS[-1] * config.depth
        size = self._grid[0] * self._grid[1] * channels
        blocks = config.blocks
        self.from_deter = BlockLinear(1, blocks, config.deter // blocks, size // blocks)
        self.stoch_in = Block(config.feature - config.deter, 2 * config.units)
        self.from_stoch = Linear(2 * config.units, size)
        self.norm = Norm(channels)
        self.doublings, self.norms = nn.ModuleList(), nn.ModuleList()
        outputs = [depth * config.depth for depth in reversed(DEPTHS[:-1])]
        for depth in outputs:
            self.norms.append(Norm(depth))
        for depth in [*outputs, sum(spec.shape[-1] for spec in self._specs.values())]:
            self.doublings.append(Doubling(channels, depth))
            channels = depth

    def forward(self, feature: Tensor) -> dict[str, Tensor]:
        """float32 [..., F] -> dict of images, float32 [..., H, W, C] in 0..1."""
        x = self._place(feature.flatten(0, -2)).to(self.dtype)
        for doubling, norm in zip(self.doublings, self.norms, strict=False):
            x = spread_norm_silu(doubling(x), norm.scale)  # type: ignore[arg-type]
        seen: Tensor = spread(self.doublings[-1](x).float().sigmoid())
        height, width = next(iter(self._specs.values())).shape[:2]
        whole = seen[:, :height, :width].reshape(*feature.shape[:-1], height, width, -1)
        channels = [spec.shape[-1] for spec in self._specs.values()]
        parts = whole.split(channels, -1)  # type: ignore[no-untyped-call]
        return dict(zip(self._specs, parts, strict=True))

    def _place(self, feature: Tensor) -> Tensor:
        """[N, F] -> [N, h, w, 4 depth]; each block of the recurrence has channels of its own."""
        height, width = self._grid
        count, blocks = len(feature), self._blocks
        by_block = feature[:, : self._deter].reshape(count, blocks, -1).transpose(0, 1)
        placed = self.from_deter(by_block).view(blocks, count, height, width, -1)
        placed = placed.permute(1, 2, 3, 0, 4).flatten(-2)
        stoch = self.from_stoch(self.stoch_in(feature[:, self._deter :]))
        return self.norm(placed + stoch.view(placed.shape))  # type: ignore[no-any-return]


class Doubling(nn.Module):
    """Repeat each pixel 2 x 2, then convolve; the four pixels of a square side by side."""

    taps: Tensor

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.weight, self.bias = conv_parameters(channels, depth)
        taps = torch.zeros(2, 3, self.weight.shape[-1])
        for parity, inputs in enumerate(_SEEN_BY):
            for place, positions in enumerate(inputs):
                taps[parity, place, list(positions)] = 1
        self.register_buffer("taps", taps, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, H, W, in] -> [N, H, W, 4 out], in the dtype of x; see `spread`."""
        # a, b: odd or even row and column of the output; u, v: the 3 x 3 inputs it sees.
        small = torch.einsum("auk,bvl,oikl->aboiuv", self.taps, self.taps, self.weight)
        weight, bias = small.flatten(0, 2).to(x.dtype), self.bias.repeat(4).to(x.dtype)
        return F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1).permute(0, 2, 3, 1)
