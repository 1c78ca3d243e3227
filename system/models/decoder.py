"""Decoder: feature -> dict of what should be seen now."""

from __future__ import annotations

from torch import Tensor, nn

from system.config import ModelConfig
from system.models.encoder import by_size, chosen
from system.models.image_decoder import ImageDecoder
from system.models.layers import MLP, Linear
from system.models.numerics import symlog
from system.specs import ArraySpec


class Decoder(nn.Module):
    """Vectors by an MLP, images by a CNN for each size of images.

    The picture that uses it::

        decoder.decode(latent.feature)["image"]        # [..., H, W, C] in 0..1
        symexp(decoder.decode(latent.feature)["position"])

    Raises:
      ConfigError: `model.decoder_keys` matches nothing, or an image is too large.
    """

    def __init__(self, config: ModelConfig, observation: dict[str, ArraySpec]) -> None:
        super().__init__()
        specs = chosen(observation, config.decoder_keys, "model.decoder_keys")
        self.vectors = {name: spec for name, spec in specs.items() if not spec.is_image}
        if self.vectors:
            self.mlp = MLP(config.feature, config.units, config.decoder_layers)
            self.out = Linear(
                self.mlp.out_features, sum(spec.size for spec in self.vectors.values())
            )
        self.images = nn.ModuleList(ImageDecoder(config, images) for images in by_size(specs))

    def decode(self, feature: Tensor) -> dict[str, Tensor]:
        """float32 [..., F] -> by name: symlog of vectors [..., *shape], images [..., H, W, C]."""
        decoded = self._decode_vectors(feature) if self.vectors else {}
        for images in self.images:
            decoded |= images(feature)
        return decoded

    def target(self, name: str, seen: Tensor) -> Tensor:
        """What `decode` should give for this observation: symlog of vectors, images in 0..1."""
        return symlog(seen.float()) if name in self.vectors else seen.float() / 255

    def _decode_vectors(self, feature: Tensor) -> dict[str, Tensor]:
        flat = self.out(self.mlp(feature)).split([s.size for s in self.vectors.values()], -1)
        return {
            name: part.unflatten(-1, spec.shape) if spec.shape else part.squeeze(-1)
            for (name, spec), part in zip(self.vectors.items(), flat, strict=True)
        }
