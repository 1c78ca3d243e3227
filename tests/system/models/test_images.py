"""Images through encoder and decoder against their twins; which are chosen; sizes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from deploy.presets import SIZES
from learner.config import LearnerConfig
from learner.update import Learning
from system.errors import ConfigError
from system.models.decoder import Decoder
from system.models.encoder import Encoder
from system.models.image_decoder import Doubling
from system.models.numerics import symlog
from system.models.pictures import spread
from system.specs import ActionSpec, ArraySpec, EnvSpec
from tests import image_references, references
from tests.learning_for_tests import CPU, MODEL, make_batch, make_learning, perturb

VECTORS = {"speed": ArraySpec(shape=(3,)), "height": ArraySpec(shape=())}


def image(height, width, channels=3):
    return ArraySpec(shape=(height, width, channels), dtype="uint8")


def seen(specs, *batch, seed=0):
    random = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(
            random.integers(256, size=(*batch, *spec.shape), dtype=np.uint8)
            if spec.is_image
            else random.normal(size=(*batch, *spec.shape)).astype(np.float32)
        )
        for name, spec in specs.items()
    }


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 32), (21, 35)])
@torch.no_grad()
def test_forward_agrees_with_the_twin(height, width):
    images = {"left": image(height, width), "depth": image(height, width, 1)}
    specs = images | VECTORS
    encoder, decoder = (kind(MODEL, specs) for kind in (Encoder, Decoder))
    perturb(encoder, size=0.1), perturb(decoder, size=0.1)
    observation, feature = seen(specs, 2, 1), torch.randn(2, 1, MODEL.feature)
    embedding, decoded = encoder.encode(observation), decoder.decode(feature)
    one = {name: array[1, 0].numpy() for name, array in observation.items()}
    wanted = image_references.encode(references.parameters_of(encoder), one)
    assert embedding.shape == (2, 1, encoder.out_features)
    np.testing.assert_allclose(embedding[1, 0], wanted, atol=1e-4)
    parameters, x = references.parameters_of(decoder), feature[1, 0].double().numpy()
    pictures = image_references.decode_images(
        references.part(parameters, "images.0"), x, MODEL, height, width
    )
    both = torch.cat([decoded["depth"], decoded["left"]], -1)[1, 0]
    np.testing.assert_allclose(both, pictures, atol=1e-4)
    flat = references.head(x, {k: v for k, v in parameters.items() if "images" not in k})
    vectors = np.concatenate([np.ravel(decoded[name][1, 0]) for name in ("height", "speed")])
    np.testing.assert_allclose(vectors, flat, atol=1e-4)


def test_doubling_has_the_gradient_of_repeat_and_convolve():
    doubling, x = Doubling(3, 5), torch.randn(2, 4, 6, 3)
    literal = torch.nn.functional.interpolate(x.permute(0, 3, 1, 2), scale_factor=2.0)
    literal = torch.conv2d(literal, doubling.weight, doubling.bias, padding=2).permute(0, 2, 3, 1)
    weights = torch.randn(literal.shape)
    (wanted,) = torch.autograd.grad((literal * weights).sum(), doubling.weight)
    (ours,) = torch.autograd.grad((spread(doubling(x)) * weights).sum(), doubling.weight)
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


def test_images_of_several_sizes_each_have_a_network():
    specs = {"far": image(64, 64), "near": image(32, 48, 1), "wrist": image(64, 64)}
    encoder, decoder = Encoder(MODEL, specs), Decoder(MODEL, specs)
    observation = seen(specs, 3)
    before = encoder.encode(observation)
    decoded = decoder.decode(torch.randn(3, MODEL.feature))
    assert {name: tuple(each.shape) for name, each in decoded.items()} == {
        name: (3, *spec.shape) for name, spec in specs.items()
    }
    for name in specs:
        changed = observation | {name: 255 - observation[name]}
        assert not torch.equal(encoder.encode(changed), before), name


def test_targets_are_what_decode_predicts():
    specs = {"eye": image(16, 16)} | VECTORS
    decoder, observation = Decoder(MODEL, specs), seen(specs, 2)
    assert torch.equal(decoder.target("eye", observation["eye"]), observation["eye"] / 255)
    assert torch.equal(decoder.target("speed", observation["speed"]), symlog(observation["speed"]))


@torch.no_grad()
def test_reconstruction_is_summed_over_pixels_and_elements():
    spec = EnvSpec(
        name="eye", observation={"eye": image(16, 16)} | VECTORS,
        action=ActionSpec(kind="continuous", size=2),
    )  # fmt: skip
    torch.manual_seed(0)
    learning = Learning(LearnerConfig(), MODEL, spec, CPU)
    observation = seen(spec.observation, 3, 5)
    batch = replace(make_batch(spec), observation=observation)
    world = learning.objective.loss(batch)
    decoded = learning.decoder.decode(world.latents.feature)
    for b, t in np.ndindex(3, 5):
        wanted = 0.0
        for name, prediction in decoded.items():
            x = observation[name][b, t].double().numpy()
            target = x / 255 if name == "eye" else np.sign(x) * np.log1p(np.abs(x))
            wanted += ((prediction[b, t].double().numpy() - target) ** 2).sum()
        ours = world.losses["reconstruction"][b, t].item()
        assert ours == pytest.approx(wanted, rel=1e-4)


def test_keys_are_chosen_by_regular_expression():
    specs = {"eye": image(16, 16), "nested/eye": image(16, 16)} | VECTORS
    model = replace(MODEL, encoder_keys="(nested/)?eye", decoder_keys="eye|speed")
    encoder, decoder = Encoder(model, specs), Decoder(model, specs)
    observation = seen(specs, 2)
    blind = observation | {"speed": observation["speed"] + 1, "height": observation["height"] + 1}
    assert torch.equal(encoder.encode(observation), encoder.encode(blind))
    assert set(decoder.decode(torch.randn(2, model.feature))) == {"eye", "speed"}


@pytest.mark.parametrize(
    ("setting", "build"), [("encoder_keys", Encoder), ("decoder_keys", Decoder)]
)
def test_keys_that_match_nothing_are_named_with_what_there_is(setting, build):
    model = replace(MODEL, **{setting: "spee"})
    with pytest.raises(ConfigError, match=rf"model\.{setting}='spee'.*there are: height, speed"):
        build(model, VECTORS)


@pytest.mark.parametrize("setting", ["encoder_keys", "decoder_keys"])
def test_a_pattern_that_is_none_is_named(setting):
    with pytest.raises(ConfigError, match=rf"model\.{setting}='\(speed'.*no regular expression"):
        replace(MODEL, **{setting: "(speed"})


def test_images_that_are_too_large_or_do_not_fit_the_blocks_are_named():
    with pytest.raises(ConfigError, match=r"'eye' is an image of 480 x 640 pixels; at most 256"):
        Encoder(MODEL, {"eye": image(480, 640)})
    with pytest.raises(ConfigError, match=r"model\.depth=1: 4 times it.*model\.blocks=8"):
        Decoder(replace(MODEL, depth=1, blocks=8), {"eye": image(64, 64)})


def test_a_fresh_image_network_is_neither_silent_nor_loud():
    torch.manual_seed(0)
    specs = {"eye": image(64, 64)}
    embedding = Encoder(SIZES["1m"], specs).encode(seen(specs, 4))
    assert 0.3 < embedding.std().item() < 1.5
    decoded = Decoder(SIZES["1m"], specs).decode(torch.randn(4, SIZES["1m"].feature))["eye"]
    assert 0.05 < decoded.std().item() < 0.4
    assert decoded.min() >= 0
    assert decoded.max() <= 1


@pytest.mark.parametrize("size", ["1m", "12m", "25m", "50m", "100m", "200m", "400m"])
def test_parameter_counts_are_the_published_sizes(size):
    """Exactly the shapes of the authors' code; with 64 x 64 images, about what the name says."""
    model, specs = SIZES[size], {"image": image(64, 64)}
    spec = EnvSpec(name="pixels", observation=specs, action=ActionSpec(kind="discrete", size=18))
    with torch.device("meta"):
        learning = Learning(LearnerConfig(), model, spec, torch.device("meta"))
    widths = [3, *(model.depth * factor for factor in (2, 3, 4, 4))]
    encoder = sum(25 * a * b + b + b for a, b in pairwise(widths))
    assert count_of(learning.world_model.encoder) == encoder
    grid, stoch = 4 * 4 * widths[-1], 32 * model.classes
    spread = 8 * (model.deter // 8 + 1) * (grid // 8) + widths[-1]
    spread += (stoch + 2) * 2 * model.units + (2 * model.units + 1) * grid
    back = [widths[4], *widths[3:0:-1]]
    convolutions = sum(25 * a * b + b + b for a, b in pairwise(back)) + 25 * widths[1] * 3 + 3
    assert count_of(learning.decoder) == spread + convolutions
    if size != "1m":
        assert count_of(learning) == pytest.approx(1e6 * int(size[:-1]), rel=0.2)


def count_of(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_an_update_moves_every_part_that_sees_and_shows():
    spec = EnvSpec(
        name="eye", observation={"eye": image(16, 16)} | VECTORS,
        action=ActionSpec(kind="discrete", size=3),
    )  # fmt: skip
    torch.manual_seed(0)
    learning = Learning(make_learning()._config, MODEL, spec, CPU)
    before = {name: p.detach().clone() for name, p in learning.named_parameters()}
    batch = replace(make_batch(spec), observation=seen(spec.observation, 3, 5))
    for _ in range(3):
        learning.update(batch)
    for name, parameter in learning.named_parameters():
        if name.startswith(("world_model.encoder", "decoder")):
            assert not torch.equal(parameter, before[name]), name
