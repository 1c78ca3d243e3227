"""What of a dream is shown when there is more than there is room for."""

from __future__ import annotations

import numpy as np
import torch

from learner.batch import Batch
from learner.dream_examples import MAX_VECTORS, examples_of
from system.dream_codec import MAX_FILMS

N, K, T = 2, 3, 6


def examples(observation):
    """`observation` [N, T, ...] by name, dreamed without a mistake."""
    seen = {name: real.float().unsqueeze(1).expand(N, K, *real.shape[1:])
            for name, real in observation.items()}  # fmt: skip
    flags = torch.zeros(N, T, dtype=torch.bool)
    batch = Batch(
        observation=observation, action=torch.zeros(N, T, 1),
        previous_action=torch.zeros(N, T, 1), reward=torch.zeros(N, T),
        is_first=flags, is_last=flags, is_terminal=flags, context=None,
        ordinals=np.zeros((N, T), np.int64),
    )  # fmt: skip
    every = torch.zeros(N, K, T)
    return examples_of(batch, seen, every, every, torch.tensor([T, T - 1]))


def test_the_first_elements_are_shown():
    a, b, c, d = torch.rand(N, T), torch.rand(N, T, 40), torch.rand(N, T, 5, 10), torch.rand(N, T)
    example = examples({"a": a, "b": b, "c": c, "d": d})[0]
    names = [band.name for band in example.vectors]
    assert len(names) == MAX_VECTORS
    assert (names[0], names[1], names[40], names[41]) == ("a", "b[0]", "b[39]", "c[0, 0]")
    assert names[-1] == "c[2, 2]"
    assert example.vectors[-1].real.tolist() == c[0, :, 2, 2].tolist()
    assert np.allclose(example.vectors[-1].mean, c[0, :, 2, 2])


def test_bands_of_what_is_not_shown_are_not_computed(monkeypatch):
    sizes, quantile = [], torch.quantile

    def counted(dreamed, *args, **kwargs):
        sizes.append(dreamed.shape[-1])
        return quantile(dreamed, *args, **kwargs)

    monkeypatch.setattr(torch, "quantile", counted)
    examples({"lidar": torch.rand(N, T, 1000), "more": torch.rand(N, T, 10)})
    assert max(sizes) == MAX_VECTORS


def test_only_so_many_films_as_a_report_holds():
    images = {f"camera{i}": torch.full((N, T, 4, 4, 3), i, dtype=torch.uint8) for i in range(20)}
    films = examples(images)[0].images
    assert [film.name for film in films] == [f"camera{i}" for i in range(MAX_FILMS)]
    assert all((film.real == i).all() for i, film in enumerate(films))
