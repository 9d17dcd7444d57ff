"""Mean and scale of dense columns, as the rows of a warm-up give them."""

from __future__ import annotations

import numpy as np

from inttower.core.batch import FloatArray


def column_scaling(dense: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and 1 / standard deviation [n] of columns [B, n]; NaN is left out.

    A constant says nothing: its scale is 0, so that it does not become noise divided by nothing.
    """
    mean, deviation = np.zeros((2, dense.shape[1]))
    for k in range(dense.shape[1]):  # one at a time: doubles of all of them are gigabytes
        values = dense[:, k].astype(np.float64)
        values = values[~np.isnan(values)]
        if len(values):
            mean[k], deviation[k] = values.mean(), values.std()
    varies = deviation > 1e-6 * np.maximum(1, np.abs(mean))
    scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0)
    return mean.astype(np.float32), scale.astype(np.float32)
