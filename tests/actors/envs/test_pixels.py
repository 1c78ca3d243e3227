"""Pictures: what they show, who may take them, and what is said when that cannot be."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from actors.config import EnvConfig, PixelsConfig
from actors.envs.pixels import shrink
from actors.envs.registry import env_spec, make_env, make_single
from actors.envs.spaces import ObservationReader
from system.errors import ConfigError, EnvironmentFault
from system.specs import ArraySpec, EnvSpec
from tests.envs_for_tests import PREFIX


def renders():
    """EGL with a driver: what `make system-packages` installs."""
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        return False
    return True


needs_gl = pytest.mark.skipif(not renders(), reason="needs EGL: make system-packages")
CARTPOLE = "dm_control/cartpole-swingup"


def seen(name=CARTPOLE, *, show="only", isolate=False, repeat=1, args=None, **pixels):
    shown = PixelsConfig(**{"show": show, "size": 32, "quality": "fast"} | pixels)
    return EnvConfig(
        name=name, pixels=shown, isolate=isolate, action_repeat=repeat, args=args or {}
    )


@needs_gl
@pytest.mark.parametrize("name", [CARTPOLE, "InvertedPendulum-v5", PREFIX + "Painter-v0"])
def test_a_picture_replaces_the_state_or_joins_it(name):
    picture = ArraySpec(shape=(32, 32, 3), dtype="uint8")
    state = make_single(EnvConfig(name=name)).spec.observation
    alone, both = (make_single(seen(name, show=show)) for show in ("only", "with-state"))
    assert alone.spec.observation == {"image": picture}
    assert both.spec.observation == {**state, "image": picture}
    first = both.reset(seed=0)
    plain = make_single(EnvConfig(name=name)).reset(seed=0)
    assert all(np.array_equal(first[key], plain[key]) for key in state)
    assert first["image"].dtype == np.uint8
    assert np.array_equal(first["image"], alone.reset(seed=0)["image"])
    action = np.ones(both.spec.action.size, np.float32)
    later = [both.step(action).observation["image"] for _ in range(10)][-1]
    assert not np.array_equal(later, first["image"])
    alone.close(), both.close()


@needs_gl
def test_full_quality_is_what_dm_control_renders(tmp_path):
    env = make_single(seen(size=64, quality="full"))
    ours = env.reset(seed=3)["image"]
    physics = env._simulator._simulator._env.physics
    model, data = physics.model.ptr, physics.data.ptr
    code = (
        "import json, sys; import numpy as np; from dm_control import suite\n"
        "env = suite.load('cartpole', 'swingup', task_kwargs={'random': 0})\n"
        "env.reset(); env.physics.set_state(np.array(json.loads(sys.argv[1])))\n"
        "env.physics.forward()\n"
        "np.save(sys.argv[2], env.physics.render(64, 64, camera_id=0))\n"
    )
    assert (model.nq, len(data.qpos)) == (2, 2)
    place = str(tmp_path / "theirs.npy")
    state = json.dumps([*data.qpos.tolist(), *data.qvel.tolist()])
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, state, place], check=True,
        env={**os.environ, "MUJOCO_GL": "egl"}, timeout=120,
    )  # fmt: skip
    theirs = np.load(place)
    # A driver may round the last bit otherwise.
    assert np.abs(ours.astype(int) - theirs).max() <= 2
    fast = make_single(seen(size=64)).reset(seed=3)["image"]
    assert np.abs(ours.astype(int) - fast).max() > 30
    env.close()


@needs_gl
@pytest.mark.parametrize("isolate", [False, True])
def test_copies_render_each_their_own(isolate):
    config = seen(show="with-state", isolate=isolate)
    env = make_env(config, num_copies=2, seed=1)
    time_step = env.reset()
    for _ in range(15):
        images, position = (time_step.observation[key] for key in ("image", "position"))
        assert images.shape == (2, 32, 32, 3)
        assert images.dtype == np.uint8
        time_step = env.step(np.float32([[1], [-1]]))
    alone = make_single(seen())
    alone.reset(seed=0)
    for image, (where, cosine, sine) in zip(images, position, strict=True):
        physics = alone._simulator._simulator._env.physics
        physics.data.qpos[:] = where, np.arctan2(sine, cosine)
        physics.forward()
        wrong = np.abs(alone._simulator.observe()["image"].astype(int) - image).max(-1) > 8
        assert wrong.sum() <= 2  # the angle was rounded on its way
    assert not np.array_equal(*images)
    env.close(), alone.close()


@needs_gl
def test_a_camera_goes_on_in_another_thread():
    """After a hang the copies that remain are stepped by a fresh thread."""
    env, others = make_single(seen()), make_single(seen())
    wanted = env.reset(seed=0)["image"]
    pictures = []

    def elsewhere():
        others.reset(seed=5)
        pictures.append(env.reset(seed=0)["image"])
        others.close()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(60)
    assert np.array_equal(pictures[0], wanted)
    assert np.array_equal(env.reset(seed=0)["image"], wanted)
    env.close()


@needs_gl
def test_cameras_that_close_leave_the_others_seeing():
    first, second = make_single(seen()), make_single(seen())
    wanted = second.reset(seed=0)["image"]
    first.reset(seed=1), first.close()
    assert np.array_equal(second.reset(seed=0)["image"], wanted)
    second.close()
    third = make_single(seen())
    assert np.array_equal(third.reset(seed=0)["image"], wanted)
    third.close()


@needs_gl
def test_the_camera_is_chosen_by_name_or_number():
    images = {}
    for camera in ("", "0", "1", "fixed", "lookatcart"):
        env = make_single(seen(camera=camera))
        images[camera] = env.reset(seed=0)["image"]
        env.step(np.float32([1]))
        env.close()
    assert np.array_equal(images[""], images["0"])
    assert np.array_equal(images["fixed"], images["0"])
    assert np.array_equal(images["lookatcart"], images["1"])
    assert not np.array_equal(images["0"], images["1"])
    with pytest.raises(ConfigError, match=r"env\.pixels\.camera='top' is no.*fixed, lookatcart"):
        make_single(seen(camera="top"))


def test_pictures_taken_otherwise_are_other_data():
    base = seen(PREFIX + "Painter-v0")
    specs = [
        env_spec(replace(base, pixels=replace(base.pixels, **change)))
        for change in ({}, {"quality": "full"}, {"size": 40}, {"show": "with-state"})
    ]
    assert len({spec.digest for spec in specs}) == 4
    assert EnvSpec.from_json(specs[0].to_json()) == specs[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 4}, r"env\.pixels\.size=4 must lie in 8\.\.256"),
        ({"size": 300}, r"env\.pixels\.size=300"),
    ],
)
def test_sizes_that_cannot_be_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        PixelsConfig(**change)


@pytest.mark.parametrize(
    ("name", "args", "show", "message"),
    [
        ("Counting-v0", {}, "only", "renders no pictures; leave --pixels out"),
        ("Sights-v0", {}, "with-state", "already shows 'image'; leave it out .--set env"),
        ("Walk-v0", {}, "only", "renders no pictures; leave --pixels out"),
        ("Sights-v0", {}, "only", "no picture can be rendered: NotImplementedError"),
    ],
)
def test_what_cannot_be_looked_at_is_named(name, args, show, message):
    with pytest.raises(ConfigError, match=message):
        make_single(seen(PREFIX + name, show=show, args=args))


@pytest.mark.parametrize(
    ("gl", "message"),
    [
        ("osmesa", "MUJOCO_GL='osmesa', but libOSMesa.so.8 is not.*apt-get install libosmesa6"),
        ("disable", "MUJOCO_GL='disable' cannot render"),
    ],
)
def test_a_machine_that_cannot_render_names_the_fix(gl, message):
    """In a process of its own: PyOpenGL binds to one library for good."""
    try:
        ctypes.CDLL("libOSMesa.so.8")
    except OSError:
        pass
    else:
        pytest.skip("OSMesa is installed")
    code = (
        "from actors.config import EnvConfig, PixelsConfig\n"
        "from actors.envs.registry import make_single\n"
        "from system.errors import ConfigError\n"
        "pixels = PixelsConfig(show='only')\n"
        "try: make_single(EnvConfig(name='InvertedPendulum-v5', pixels=pixels))\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "MUJOCO_GL": gl}, timeout=120,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert len(done.stdout.strip().splitlines()) == 1
    assert re.search(message, done.stdout), done.stdout


def test_shrinking_is_the_mean_of_areas():
    frame = np.random.default_rng(0).integers(256, size=(13, 20, 3), dtype=np.uint8)
    small = shrink(frame, 6)
    for y, x in np.ndindex(6, 6):
        rows = slice(y * 13 // 6, max((y + 1) * 13 // 6, y * 13 // 6 + 1))
        columns = slice(x * 20 // 6, max((x + 1) * 20 // 6, x * 20 // 6 + 1))
        mean = frame[rows, columns].reshape(-1, 3).mean(0)
        assert np.abs(small[y, x] - mean).max() <= 0.5
    assert np.array_equal(shrink(frame[:6, :6], 6), frame[:6, :6])
    assert shrink(frame[:3, :3], 6).shape == (6, 6, 3)


def test_images_of_a_space_are_kept_as_bytes():
    space = spaces.Dict(
        eye=spaces.Box(0, 255, (8, 9, 3), np.uint8), gray=spaces.Box(0, 255, (8, 9), np.uint8),
        memory=spaces.Box(0, 255, (16,), np.uint8), key=spaces.Discrete(3),
    )  # fmt: skip
    reader = ObservationReader("x", space)
    specs = {key: (spec.shape, spec.dtype) for key, spec in reader.specs.items()}
    assert specs == {
        "eye": ((8, 9, 3), "uint8"), "gray": ((8, 9, 1), "uint8"),
        "memory": ((16,), "float32"), "key": ((3,), "float32"),
    }  # fmt: skip
    value = space.sample()
    read = reader.read(value)
    assert np.array_equal(read["eye"], value["eye"])
    assert np.array_equal(read["gray"][..., 0], value["gray"])
    assert {key: array.dtype.name for key, array in read.items()} == {
        key: dtype for key, (_, dtype) in specs.items()
    }
    value["eye"][:] = 7
    assert not np.array_equal(read["eye"], value["eye"])
    plain = ObservationReader("x", spaces.Box(0, 255, (8, 9, 3), np.uint8))
    assert list(plain.specs) == ["image"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("dtype", "'image' is float64 instead of uint8"), ("shape", r"shape \(8, 8, 3\) instead of")],
)
def test_an_image_of_wrong_shape_or_dtype_is_a_fault(wrong, message):
    faults = []
    env = make_env(
        EnvConfig(name=PREFIX + "Sights-v0", args={"wrong": wrong}), num_copies=1, seed=0,
        on_fault=lambda copy, fault: faults.append(fault),
    )  # fmt: skip
    with pytest.raises(EnvironmentFault, match=message):
        env.reset()
    assert {fault.kind for fault in faults} == {"outside_space"}
    env.close()


def test_the_environments_of_these_tests_are_registered():
    assert {"Painter-v0", "Sights-v0"} <= set(gymnasium.registry)
