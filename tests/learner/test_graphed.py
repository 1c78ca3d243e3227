"""The graphed update: nothing in it waits for the device; static memory; what happens without."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from learner.graphed import WARM_UPS, CudaRecorder, GraphedUpdate
from learner.update import Learning
from system.models import kernels
from system.models.dynamics import Latent
from system.specs import ActionSpec, ArraySpec, EnvSpec
from tests.device_ops import WAITING, Watch
from tests.learning_for_tests import MODEL, learner_config, make_batch, make_spec

KINDS = [("continuous", "reinforce"), ("continuous", "analytic"), ("continuous", "mixed"),
         ("discrete", "reinforce")]  # fmt: skip
PIXELS = EnvSpec(
    name="pixels",
    observation={"image": ArraySpec(shape=(16, 16, 3), dtype="uint8"), "v": ArraySpec(shape=(2,))},
    action=ActionSpec(kind="continuous", size=2),
)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


class Recalled:
    """A recorder that calls the function again: same static memory, no graph."""

    def __init__(self, fails=False):
        self.fails, self.recorded, self.warmed_up, self.paced = fails, 0, 0, 0

    def warm_up(self, run):
        self.warmed_up += 1
        return run()

    def record(self, run):
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nand so on")
        self.recorded += 1
        return run

    def pace(self):
        self.paced += 1


def learning_on(device, kind="continuous", spec=None, **changes):
    torch.manual_seed(0)
    config = learner_config(**{"learning_rate": 1e-3, "warmup_updates": 4} | changes)
    return Learning(config, MODEL, spec or make_spec(kind), torch.device(device))


def batch_on(device, spec, seed, T=5, model=MODEL):
    images = torch.randint(256, (3, T, 16, 16, 3), dtype=torch.uint8)
    seen = {"observation": {"image": images, "v": torch.randn(3, T, 2)}} if spec is PIXELS else {}
    batch = make_batch(spec, T=T, model=model, seed=seed, **seen)
    there = {
        f.name: value.to(device)
        for f in dataclasses.fields(batch)
        if isinstance(value := getattr(batch, f.name), torch.Tensor)
    }
    return dataclasses.replace(
        batch, **there, context=Latent(*(part.to(device) for part in batch.context)),
        observation={name: seen.to(device) for name, seen in batch.observation.items()},
    )  # fmt: skip


def recorder_on(device):
    return CudaRecorder(torch.device(device)) if device == "cuda" else Recalled()


def standing(learning):
    optimizer = learning.optimizer
    return [optimizer.flat, optimizer.rms, optimizer.momentum, *learning.behavior.scale.buffers(),
            *learning.behavior.slow_value.parameters()]  # fmt: skip


@pytest.mark.parametrize(("kind", "gradient"), KINDS)
def test_no_update_waits_for_its_device(kind, gradient):
    learning = learning_on("cpu", kind, gradient=gradient, dream_starts=4)
    batch = make_batch(make_spec(kind))
    with kernels.switched_off(), Watch(forbid=WAITING) as watch:
        learning.update(batch)
    assert watch.kernels > 1000


def test_no_update_of_images_waits_for_its_device():
    learning = learning_on("cpu", spec=PIXELS)
    with kernels.switched_off(), Watch(forbid=WAITING):
        learning.update(batch_on("cpu", PIXELS, 0))


def test_shapes_never_depend_on_values():
    """On the device `meta` there are no values."""
    learning_on("meta").update(batch_on("meta", make_spec(), 0))


def test_the_watch_sees_what_waits():
    x = torch.arange(4.0)
    for waits in (lambda: x[0].item(), lambda: bool(x.any()), lambda: x[x > 1], lambda: x.nonzero(),
                  lambda: x.to("meta")):  # fmt: skip
        with pytest.raises(AssertionError), Watch(forbid=WAITING):
            waits()


@pytest.mark.parametrize("spec", [make_spec(), PIXELS], ids=["numbers", "images"])
@pytest.mark.parametrize("device", DEVICES)
def test_replays_equal_plain_updates(device, spec):
    plain, learning = learning_on(device, spec=spec), learning_on(device, spec=spec)
    graphed = GraphedUpdate(learning, recorder_on(device), on_event=pytest.fail)
    batches = [batch_on(device, spec, seed) for seed in range(WARM_UPS + 5)]
    torch.manual_seed(1)
    wanted = [plain.update(batch) for batch in batches]
    torch.manual_seed(1)
    for batch, result in zip(batches, wanted, strict=True):
        found = graphed.update(batch)
        for name, value in result.metrics.items():
            torch.testing.assert_close(found.metrics[name], value, rtol=1e-2, atol=1e-3, msg=name)
    start = learning_on(device, spec=spec)
    for one, other, before in zip(*map(standing, (plain, learning, start)), strict=True):
        if device == "cpu":
            assert torch.equal(one, other)
        else:  # atomic additions come in any order, and LaProp scales small noise up
            moved = torch.linalg.vector_norm(one - before)
            assert torch.linalg.vector_norm(one - other) <= 0.02 * moved
    assert learning.optimizer.count == len(batches)


def test_inputs_are_copied_and_another_shape_begins_anew():
    learning, recorder = learning_on("cpu"), Recalled()
    graphed = GraphedUpdate(learning, recorder, on_event=pytest.fail)
    for T in (5, 6, 5):
        for seed in range(WARM_UPS + 2):
            graphed.update(batch_on("cpu", make_spec(), seed, T))
    assert recorder.recorded == 3
    assert recorder.warmed_up == 3 * WARM_UPS
    assert recorder.paced == 3 * 2
    static = graphed._static
    assert static.reward.data_ptr() != batch_on("cpu", make_spec(), seed).reward.data_ptr()
    assert torch.equal(static.reward, batch_on("cpu", make_spec(), WARM_UPS + 1).reward)


def test_a_refused_capture_is_told_once_and_training_goes_on():
    plain, learning = learning_on("cpu"), learning_on("cpu")
    told = []
    graphed = GraphedUpdate(learning, Recalled(fails=True), lambda *event: told.append(event))
    batches = [batch_on("cpu", make_spec(), seed) for seed in range(WARM_UPS + 4)]
    torch.manual_seed(1)
    for batch in batches:
        plain.update(batch)
    torch.manual_seed(1)
    for batch in batches:
        graphed.update(batch)
    assert all(map(torch.equal, standing(plain), standing(learning)))
    assert told == [(
        "not_graphed",
        "updates run without a CUDA graph, slower but the same: "
        "operation not permitted when stream is capturing",
    )]  # fmt: skip


@pytest.mark.gpu
def test_random_numbers_differ_between_replays():
    learning = learning_on("cuda", learning_rate=1e-9)
    graphed = GraphedUpdate(learning, recorder_on("cuda"), on_event=pytest.fail)
    batch = batch_on("cuda", make_spec(), 0)
    found = [graphed.update(batch).latents.stoch.clone() for _ in range(WARM_UPS + 4)]
    assert not all(torch.equal(found[-1], other) for other in found[WARM_UPS:-1])
