"""One step of a game's pixels through the network, written for a compiler.

The compiled function has the bits of :meth:`distributed_pg.envs.pong.PongEnv.observe` and
:meth:`distributed_pg.algo.policy.Policy.forward`, which are the reference, and easier to read. Sums
are made in the order of OpenBLAS on an x86-64 CPU without AVX, so that both give the same bits.
"""

from typing import Any

import numpy as np

from distributed_pg.algo.policy import Floats

MULTIPLE = 4
"""The number of hidden units must be a multiple of this; OpenBLAS sums others in another order."""


def step(
    screen: Any,
    before: Any,
    seen: Any,
    foreground: Floats,
    crop: Any,
    w1: Floats,
    w2: Floats,
    sums: Floats,
    frame_sum: Floats,
    hidden: Floats,
    outputs: Floats,
    pixels: Any,
    signs: Floats,
    start: int,
) -> int:
    """Find the changed pixels and compute the network's outputs.

    Args:
        screen: the emulator's palette bytes, eight in a word, uint64 (210, 20).
        before: the previous screen's words in the rows that are seen, uint64 (rows, 20). Changed to
            this screen's.
        seen: a byte of ones in a word for each column that is seen, uint64 (20,).
        foreground: 1 for palette bytes that are kept, 0 for the background, float32 (256,).
        crop: first row, first column and number of columns of the difference frame, intp (3,).
        w1: float32 (D, H), or (D, 2 H) with the current frame.
        w2: float32 (H, A). With A = 2, ``outputs`` is computed, too.
        sums: scratch, float32 (H,) or (2 H,).
        frame_sum: the current frame times its weights, which is updated, float32 (H,); without
            the current frame, (0,).
        hidden: receives the hidden activations, float32 (H,).
        outputs: receives the outputs, float32 (A,).
        pixels: receives the positions of the changed pixels from ``start`` on, intp (n,).
        signs: receives the values of the difference frame there, float32 (n,).
        start: index of the first free element of ``pixels`` and ``signs``.

    Returns:
        The index behind the last changed pixel.
    """
    top, left, columns = crop[0], crop[1], crop[2]
    end = start
    for row in range(before.shape[0]):
        for word in range(before.shape[1]):
            now, then = screen[top + 2 * row, word], before[row, word]
            # Most words are equal: eight pixels are compared at once.
            changed = (now ^ then) & seen[word]
            if changed != 0:
                before[row, word] = now
                for byte in range(8):
                    shift = np.uint64(8 * byte)
                    if (changed >> shift) & np.uint64(255) != 0:
                        new = foreground[(now >> shift) & np.uint64(255)]
                        sign = new - foreground[(then >> shift) & np.uint64(255)]
                        if sign != 0.0:
                            column = (8 * word + byte - left) // 2
                            pixels[end] = row * columns + column
                            signs[end] = sign
                            end += 1
    width = w1.shape[1]
    for j in range(width):
        sums[j] = np.float32(0.0)
    i = start
    while i + 8 <= end:
        a, b, c, d = w1[pixels[i]], w1[pixels[i + 1]], w1[pixels[i + 2]], w1[pixels[i + 3]]
        e, f, g, h = w1[pixels[i + 4]], w1[pixels[i + 5]], w1[pixels[i + 6]], w1[pixels[i + 7]]
        p, q, r, s = signs[i], signs[i + 1], signs[i + 2], signs[i + 3]
        t, u, v, w = signs[i + 4], signs[i + 5], signs[i + 6], signs[i + 7]
        for j in range(width):
            even = ((p * a[j] + r * c[j]) + t * e[j]) + v * g[j]
            odd = ((q * b[j] + s * d[j]) + u * f[j]) + w * h[j]
            sums[j] += even + odd
        i += 8
    if i + 4 <= end:
        a, b, c, d = w1[pixels[i]], w1[pixels[i + 1]], w1[pixels[i + 2]], w1[pixels[i + 3]]
        p, q, r, s = signs[i], signs[i + 1], signs[i + 2], signs[i + 3]
        for j in range(width):
            sums[j] += ((p * a[j] + q * b[j]) + r * c[j]) + s * d[j]
        i += 4
    while i < end:
        a, p = w1[pixels[i]], signs[i]
        for j in range(width):
            sums[j] += p * a[j]
        i += 1
    units = len(hidden)
    for j in range(width - units):
        frame_sum[j] += sums[units + j]
        sums[j] += frame_sum[j]
    for j in range(units):
        hidden[j] = max(sums[j], np.float32(0.0))
    if w2.shape[1] == 2:
        first = second = np.float32(0.0)
        for j in range(0, units, 2):
            first += hidden[j] * w2[j, 0] + hidden[j + 1] * w2[j + 1, 0]
            second += hidden[j] * w2[j, 1] + hidden[j + 1] * w2[j + 1, 1]
        outputs[0] = first
        outputs[1] = second
    return end
