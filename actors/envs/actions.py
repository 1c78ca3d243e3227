"""What an environment executes for an action, and so what replay stores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from system.specs import ActionSpec

LEAST, MOST = np.float32(-1), np.float32(1)


def executed(spec: ActionSpec, action: NDArray[np.float32]) -> NDArray[np.float32]:
    """The action as executed: continuous ones clipped to [-1, 1], discrete ones one-hot.

    Args:
      spec: continuous or discrete, size A.
      action: float32 [..., A], as the policy chose it.

    Returns:
      float32 [..., A], a new array.
    """
    if spec.kind == "continuous":
        return np.minimum(np.maximum(action, LEAST), MOST)  # a third of what np.clip takes
    one_hot = np.zeros_like(action)
    np.put_along_axis(one_hot, np.argmax(action, axis=-1)[..., None], 1, axis=-1)
    return one_hot
