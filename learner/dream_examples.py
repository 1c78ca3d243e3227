"""Dreams to look at: bands of numbers, films of images, for as long as their episode lasts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.batch import Batch
from system.dream import Band, Example, Film, Pixels
from system.dream_codec import MAX_FILMS

MAX_EXAMPLES = 4
MAX_VECTORS = 64
"""Elements of one example; the first ones."""
MAX_FILM_BYTES = 3 * 1024**2
"""All films of one example [bytes]."""
MAX_BYTES = 7 * 1024**2 // 2
"""All examples of a report [bytes]."""
MAX_NAME_CHARS = 160
LOW, HIGH = 0.1, 0.9
"""Quantiles of the dreams that a band lies between."""


def examples_of(
    batch: Batch, seen: dict[str, Tensor], reward: Tensor, continues: Tensor, steps: Tensor
) -> list[Example]:
    """The longest stretches first, as many as fit.

    Args:
      batch: what was recorded, [N, T].
      seen: by name what was dreamed, float32 [N, K, T, ...]; images in 0..255.
      reward: float32 [N, K, T].
      continues: float32 [N, K, T] [probability].
      steps: int64 [N]: how many of the T Steps are of the episode.
    """
    order = torch.argsort(steps, descending=True, stable=True)[:MAX_EXAMPLES].tolist()
    examples: list[Example] = []
    room = MAX_BYTES
    for place in order:
        length = int(steps[place])
        example = Example(
            vectors=_vectors(batch, seen, place, length),
            images=_films(batch, seen, place, length),
            reward=_band("reward", batch.reward[place], reward[place], length),
            continues=_band(
                "continues", (~batch.is_terminal[place]).float(), continues[place], length
            ),
        )
        room -= _num_bytes(example)
        if room < 0 and examples:
            break
        examples.append(example)
    return examples


def _vectors(batch: Batch, seen: dict[str, Tensor], place: int, length: int) -> list[Band]:
    bands: list[Band] = []
    for name, dreamed in seen.items():
        shape = batch.observation[name].shape[2:]
        room = MAX_VECTORS - len(bands)
        if len(shape) < 3 and room:
            real = batch.observation[name][place, :length].reshape(length, -1)[:, :room]
            imagined = dreamed[place, :, :length].reshape(dreamed.shape[1], length, -1)
            names = list(islice(_element_names(name, shape), room))
            bands += _bands(names, real, imagined[..., :room])
    return bands


def _element_names(name: str, shape: tuple[int, ...]) -> Iterator[str]:
    """`height`, `position[0]`, `velocity[1, 0]`."""
    name = name[:MAX_NAME_CHARS]
    return (f"{name}{[*index]}" if shape else name for index in np.ndindex(shape))


def _bands(names: list[str], real: Tensor, dreamed: Tensor) -> list[Band]:
    """Real [T, D] and dreamed [K, T, D] -> D bands."""
    quantiles = torch.tensor([LOW, HIGH], device=dreamed.device)
    low, high = torch.quantile(dreamed, quantiles, dim=0)
    lines = [real.float(), dreamed.mean(0), low, high]
    real_of, mean_of, low_of, high_of = (line.T.cpu().numpy() for line in lines)
    return [
        Band(name=name, real=real_of[i], mean=mean_of[i], low=low_of[i], high=high_of[i])
        for i, name in enumerate(names)
    ]


def _band(name: str, real: Tensor, dreamed: Tensor, length: int) -> Band:
    """Real [T] and dreamed [K, T] -> the first `length` Steps."""
    return _bands([name], real[:length, None], dreamed[:, :length, None])[0]


def _films(batch: Batch, seen: dict[str, Tensor], place: int, length: int) -> list[Film]:
    names = [
        name
        for name, dreamed in seen.items()
        if dreamed.ndim == 6 and batch.observation[name].dtype == torch.uint8
    ][:MAX_FILMS]
    room = MAX_FILM_BYTES // max(1, len(names))
    return [
        Film(
            name=name[:MAX_NAME_CHARS],
            real=_pixels(batch.observation[name][place, :length], room),
            dreamed=_pixels(seen[name][place, 0, :length], room),
        )
        for name in names
    ]


def _pixels(images: Tensor, room: int) -> Pixels:
    """[T, H, W, C] in 0..255 -> what fits twice into `room` [bytes], in one or three colors."""
    images = images[..., :3] if images.shape[-1] >= 3 else images[..., :1]
    stride = max(1, math.ceil(math.sqrt(2 * images.numel() / room)))
    thinned: NDArray[np.float32] = images[:, ::stride, ::stride].float().cpu().numpy()
    return np.clip(np.rint(thinned), 0, 255).astype(np.uint8)


def _num_bytes(example: Example) -> int:
    bands = 4 * 4 * example.steps * (len(example.vectors) + 2)
    return bands + sum(2 * film.real.nbytes for film in example.images)
