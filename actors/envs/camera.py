"""Pictures of a MuJoCo scene, without a display.

Not by the simulators' own renderers: one camera for all of MuJoCo, whose price can be chosen. On
software GL a shadow costs as much as 40 pictures without (`tests/benchmarks/render.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from actors.config import PixelsConfig
from actors.envs import gl
from system.errors import ConfigError

MAX_GEOMS = 2000
"""Shapes in one picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What a simulator lets a camera see. A model that is compiled anew is a new Scene."""

    model: Any
    """mujoco.MjModel."""
    data: Any
    """mujoco.MjData."""


class Camera:
    """Looks at a scene; may be used by one thread after another.

    The loop that uses it::

        image = camera.look()              # uint8 [S, S, 3]

    Raises:
      ConfigError: the scene has no such camera; those it has are listed.
    """

    def __init__(
        self,
        scene: Callable[[], Scene],
        config: PixelsConfig,
        *,
        default: int = 0,
        free_view: Mapping[str, Any] | None = None,
    ) -> None:
        self._scene, self._config = scene, config
        self._view = _view(scene().model, config.camera, default, free_view or {})
        self._buffers: _Buffers | None = None

    def look(self) -> NDArray[np.uint8]:
        """The scene as it is now, uint8 [S, S, 3], first row on top.

        Raises:
          ConfigError: this machine cannot render.
        """
        scene, context = self._scene(), gl.current()
        if self._buffers is None or not self._buffers.fit(scene.model, context):
            # Entered before the old ones leave, which may free an empty context.
            fresh = _Buffers(scene.model, self._config, context)
            self.close()
            self._buffers = fresh
            context.make_current()
        return self._buffers.look(scene.data, self._view)

    def close(self) -> None:
        """Frees what it holds on the graphics card, if this is the thread that made it."""
        if self._buffers is not None:
            self._buffers.free()
        self._buffers = None


_held: list[Any] = []
"""Every MjrContext until it is freed: its destructor would free it in whatever context is current
then, and with its numbers delete the buffers of others."""


class _Buffers:
    """What belongs to one model, in the GL context of one thread."""

    def __init__(self, model: Any, config: PixelsConfig, context: gl.Context) -> None:  # noqa: ANN401
        self._model, self._gl, size = model, context, config.size
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        cheap = config.quality == "fast"
        if cheap:
            model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        _held.append(self._context)
        context.users += 1
        self._scene = mujoco.MjvScene(model, maxgeom=MAX_GEOMS)
        if cheap:
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                self._scene.flags[flag] = False
        self._option, self._perturb = mujoco.MjvOption(), mujoco.MjvPerturb()
        self._rectangle = mujoco.MjrRect(0, 0, size, size)
        self._pixels = np.zeros((size, size, 3), np.uint8)

    def fit(self, model: Any, context: gl.Context) -> bool:  # noqa: ANN401
        return self._model is model and self._gl is context

    def look(self, data: Any, view: Any) -> NDArray[np.uint8]:  # noqa: ANN401
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self._model, data, self._option, self._perturb, view, everything, self._scene
        )
        # Another camera of this thread may have drawn last.
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._rectangle, self._context)
        return self._pixels[::-1].copy()

    def free(self) -> None:
        if gl.is_mine(self._gl):
            self._gl.make_current()
            self._context.free()
            _held.remove(self._context)
            gl.leave(self._gl)


def _view(model: Any, named: str, default: int, free_view: Mapping[str, Any]) -> Any:  # noqa: ANN401
    view = mujoco.MjvCamera()
    names = [model.camera(i).name or str(i) for i in range(model.ncam)]
    if not named and not names:
        mujoco.mjv_defaultFreeCamera(model, view)
        for key, value in free_view.items():
            if key == "lookat":
                view.lookat[:] = value
            else:
                setattr(view, key, value)
        if "trackbodyid" in free_view:
            view.type = mujoco.mjtCamera.mjCAMERA_TRACKING
        return view
    view.type = mujoco.mjtCamera.mjCAMERA_FIXED
    if not named:
        view.fixedcamid = min(default, len(names) - 1)
    elif named in names:
        view.fixedcamid = names.index(named)
    elif named.isdecimal() and int(named) < len(names):
        view.fixedcamid = int(named)
    else:
        listed = ", ".join(names) or "none, so leave it empty"
        raise ConfigError(f"env.pixels.camera={named!r} is no camera of this scene: {listed}")
    return view
