"""Images of one size -> embedding: four times convolution, 2x2 maximum, norm, SiLU.

(DreamerV3, Nature 2025.) Of a size that four halvings do not divide, the lower and right edge is
filled with mid-gray, which is 0 to the network.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from system.config import ModelConfig
from system.errors import ConfigError
from system.models.layers import Norm, init_weight
from system.models.pictures import pool_norm_silu
from system.specs import ArraySpec

KERNEL = 5
DEPTHS = (2, 3, 4, 4)
"""Channels after each halving, in multiples of `model.depth`."""
STRIDE = 2 ** len(DEPTHS)
MOST_PIXELS = 256
"""Along one side of an image."""


class ImageEncoder(nn.Module):
    """All images of one height and width, joined along their channels by sorted name.

    Raises:
      ConfigError: an image is larger than MOST_PIXELS.
    """

    def __init__(self, config: ModelConfig, images: dict[str, ArraySpec]) -> None:
        super().__init__()
        self.names, self.dtype = sorted(images), torch.float32
        """In `dtype`, float32 or bfloat16, the convolutions compute."""
        height, width, self._pad = padding(images)
        channels = sum(images[name].shape[-1] for name in self.names)
        self.stages = nn.ModuleList()
        for depth in DEPTHS:
            self.stages.append(Halving(channels, depth * config.depth))
            channels = depth * config.depth
        self.out_features = (height // STRIDE) * (width // STRIDE) * channels

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        """Dict of uint8 [..., H, W, C] -> embedding float32 [..., E]."""
        seen = torch.cat([observation[name] for name in self.names], -1)
        batch = seen.shape[:-3]
        x = F.pad(seen.flatten(0, -4).float() / 255 - 0.5, self._pad).to(self.dtype)
        for stage in self.stages:
            x = stage(x)
        return x.reshape(*batch, -1).float()


class Halving(nn.Module):
    """[N, H, W, in] -> [N, H / 2, W / 2, out]."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.weight, self.bias = conv_parameters(channels, depth)
        self.norm = Norm(depth)

    def forward(self, x: Tensor) -> Tensor:
        """[N, H, W, in] -> [N, H / 2, W / 2, out], in the dtype of x."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        # Channels stay last in memory, which convolutions on CPU and GPU like best.
        x = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=KERNEL // 2)
        return pool_norm_silu(x.permute(0, 2, 3, 1), self.norm.scale)


def conv_parameters(channels: int, depth: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Initialized weight [depth, channels, K, K] and bias [depth]."""
    weight = nn.Parameter(torch.empty(depth, channels, KERNEL, KERNEL))
    init_weight(weight, channels * KERNEL**2)
    return weight, nn.Parameter(torch.zeros(depth))


def padding(images: dict[str, ArraySpec]) -> tuple[int, int, tuple[int, ...]]:
    """Height and width that four halvings divide, and what `F.pad` adds to come there.

    Raises:
      ConfigError: an image is larger than MOST_PIXELS.
    """
    name, spec = next(iter(images.items()))
    if max(spec.shape[:2]) > MOST_PIXELS:
        raise ConfigError(
            f"observation {name!r} is an image of {spec.shape[0]} x {spec.shape[1]} pixels; at "
            f"most {MOST_PIXELS} a side are encoded: show it smaller (64 x 64 is usual), or leave "
            "it out with model.encoder_keys and model.decoder_keys"
        )
    height, width = (STRIDE * math.ceil(side / STRIDE) for side in spec.shape[:2])
    return height, width, (0, 0, 0, width - spec.shape[1], 0, height - spec.shape[0])
