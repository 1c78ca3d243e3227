"""Encoder: dict of observations -> embedding."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from system.config import ModelConfig
from system.errors import ConfigError
from system.models.image_encoder import ImageEncoder
from system.models.layers import MLP
from system.models.numerics import symlog
from system.specs import ArraySpec


class Encoder(nn.Module):
    """symlog of all vectors, by sorted name, through an MLP; images through a CNN for each size.

    Raises:
      ConfigError: `model.encoder_keys` matches nothing, or an image is too large.
    """

    def __init__(self, config: ModelConfig, observation: dict[str, ArraySpec]) -> None:
        super().__init__()
        specs = chosen(observation, config.encoder_keys, "model.encoder_keys")
        self.names = [name for name, spec in specs.items() if not spec.is_image]
        self._ndim = {name: len(specs[name].shape) for name in self.names}
        self._size = {name: specs[name].size for name in self.names}
        self.out_features = 0
        if self.names:
            width = sum(specs[name].size for name in self.names)
            self.mlp = MLP(width, config.units, config.encoder_layers)
            self.out_features += self.mlp.out_features
        images = [ImageEncoder(config, group) for group in by_size(specs)]
        self.images = nn.ModuleList(images)
        self.out_features += sum(each.out_features for each in images)

    def size_of(self, name: str) -> int:
        """Numbers of one of its vectors."""
        return self._size[name]

    def encode(self, observation: dict[str, Tensor]) -> Tensor:
        """Dict of float32 [..., *shape] and uint8 [..., H, W, C] -> embedding float32 [..., E]."""
        embeddings = [self._encode_vectors(observation)] if self.names else []
        embeddings += [images(observation) for images in self.images]
        return embeddings[0] if len(embeddings) == 1 else torch.cat(embeddings, -1)

    def _encode_vectors(self, observation: dict[str, Tensor]) -> Tensor:
        # Every array ends in its own shape, so what is left in front are the batch axes.
        flat = [
            observation[name].flatten(observation[name].ndim - self._ndim[name])
            if self._ndim[name]
            else observation[name].unsqueeze(-1)
            for name in self.names
        ]
        return self.mlp(symlog(torch.cat(flat, -1).float()))  # type: ignore[no-any-return]


def chosen(observation: dict[str, ArraySpec], pattern: str, setting: str) -> dict[str, ArraySpec]:
    """Those observations whose whole name the regular expression matches, by sorted name.

    Raises:
      ConfigError: there is none; names the setting and lists what there is.
    """
    specs = {name: observation[name] for name in sorted(observation)
             if re.fullmatch(pattern, name)}  # fmt: skip
    if not specs:
        raise ConfigError(
            f"{setting}={pattern!r} matches no observation; there are: "
            f"{', '.join(sorted(observation))}"
        )
    return specs


def by_size(specs: dict[str, ArraySpec]) -> list[dict[str, ArraySpec]]:
    """The images among them, grouped by height and width, smallest first."""
    groups: dict[tuple[int, ...], dict[str, ArraySpec]] = {}
    for name, spec in specs.items():
        if spec.is_image:
            groups.setdefault(spec.shape[:2], {})[name] = spec
    return [groups[size] for size in sorted(groups)]
