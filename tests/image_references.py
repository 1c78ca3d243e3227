"""Slow, literal float64 twins of the image networks; one image at a time, as the paper draws them.

As in `tests.references`, nothing is shared with the product. Images are [H, W, C]; the kernels of a
`state_dict` are [out, in, 5, 5].
"""

from __future__ import annotations

import numpy as np

from tests import references
from tests.references import block, linear, norm_silu, part, sigmoid


def convolve(image, weight, bias):
    """out[y, x] = sum over a 5 x 5 window around (y, x), zeros beyond the edge."""
    height, width, _ = image.shape
    framed = np.zeros((height + 4, width + 4, image.shape[2]))
    framed[2:-2, 2:-2] = image
    out = np.zeros((height, width, len(bias)))
    for y in range(height):
        for x in range(width):
            window = framed[y : y + 5, x : x + 5]
            out[y, x] = np.einsum("ijc,ocij->o", window, weight) + bias
    return out


def pool(image):
    """The maximum of each 2 x 2 square."""
    height, width, channels = image.shape
    out = np.zeros((height // 2, width // 2, channels))
    for y in range(height // 2):
        for x in range(width // 2):
            out[y, x] = image[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].max((0, 1))
    return out


def repeat(image):
    """Each pixel becomes a 2 x 2 square."""
    return image.repeat(2, 0).repeat(2, 1)


def normed(image, scale):
    return np.array([[norm_silu(pixel, scale) for pixel in row] for row in image])


def encode_images(parameters, observation):
    """Images of one size, [H, W, C] uint8 by name -> embedding [E]."""
    x = np.concatenate([observation[name] for name in sorted(observation)], -1) / 255.0 - 0.5
    frame = np.zeros((*(-(-side // 16) * 16 for side in x.shape[:2]), x.shape[2]))
    frame[: x.shape[0], : x.shape[1]] = x
    x = frame
    for i in range(4):
        stage = part(parameters, f"stages.{i}")
        x = normed(pool(convolve(x, stage["weight"], stage["bias"])), stage["norm.scale"])
    return x.ravel()


def decode_images(parameters, feature, config, height, width):
    """feature [F] -> all images side by side in the channels, [height, width, C] in 0..1."""
    deter, stoch = feature[: config.deter], feature[config.deter :]
    rows, columns = -(-height // 16), -(-width // 16)
    channels = 4 * config.depth
    G, each = config.blocks, channels // config.blocks
    x = np.zeros((rows, columns, channels))
    for g in range(G):
        mine = deter[g * config.deter // G : (g + 1) * config.deter // G]
        flat = mine @ parameters["from_deter.weight"][0, g] + parameters["from_deter.bias"][0, g, 0]
        x[:, :, g * each : (g + 1) * each] = flat.reshape(rows, columns, each)
    hidden = block(stoch, part(parameters, "stoch_in"))
    x += linear(hidden, part(parameters, "from_stoch")).reshape(x.shape)
    x = normed(x, parameters["norm.scale"])
    for i in range(4):
        doubling = part(parameters, f"doublings.{i}")
        x = convolve(repeat(x), doubling["weight"], doubling["bias"])
        if i < 3:
            x = normed(x, parameters[f"norms.{i}.scale"])
    return sigmoid(x)[:height, :width]


def encode(parameters, observation):
    """Vectors first, then images of one size."""
    vectors = {name: value for name, value in observation.items() if value.dtype != np.uint8}
    images = {name: value for name, value in observation.items() if value.dtype == np.uint8}
    seen = encode_images(part(parameters, "images.0"), images)
    return np.concatenate([references.encode(parameters, vectors), seen])
