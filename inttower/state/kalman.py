"""The Kalman step: how one outcome updates the Gaussian belief about one user's vector.

Over fixed item factors (:mod:`inttower.state.factors`) an outcome y of item (v, b) says about the
user's vector u, under P(y = 1) = σ(b + v·u) and the Jaakkola-Jordan bound, as much as a Gaussian
observation of v·u with precision ω and value (y − ½)/ω − b. So a belief N(m, S) is updated by one
Kalman step, with z = b + v·m and h = vᵀ S v:

    c = √(z² + h)      ω = tanh(c/2) / (2c)      f = 1 / (1/ω + h)
    m ← m + S v · f · ((y − ½)/ω − z)            S ← S − f · (S v)(S v)ᵀ

The bound is tightest where it was taken, so ω is computed once more at the updated belief, and the
step is repeated with it. Then the belief drifts, since tastes do: a little is added to the diagonal
of S after each outcome, and more after a gap. How much is a *speed* (``DriftRates``); a user may
have beliefs of several speeds. A user starts at N(W d, 2.5 I), wider than the N(W d, I) of the fit,
which has seen the whole history of its users.

h is the variance of a score's logit: exploration can use it.

A triangle is the lower half of S, row after row, T = p (p + 1) / 2 numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inttower.core.kernels import kernel

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@kernel
def absorb(m: Doubles, S: Doubles, sv: Doubles, gain: float, residual: float) -> None:
    """One Kalman step with S v given: gain = 1 / (noise variance + vᵀ S v). Keeps S symmetric.

    Results are rounded to the stored precision, so that a belief does not depend on whether it was
    stored between two outcomes.
    """
    p = len(m)
    for a in range(p):
        m[a] = np.float64(np.float32(m[a] + sv[a] * gain * residual))
        for c in range(p):
            S[a, c] = np.float64(np.float32(S[a, c] - gain * (sv[a] * sv[c])))


@kernel
def shift(m: Doubles, sv: Doubles, by: float) -> None:
    """Change the label of an outcome that was learnt with the other one.

    In the bound of the logistic likelihood the label is in the linear term alone, (y − ½) vᵀu:
    a label that rises by one adds v to S⁻¹m and leaves S as it is.
    """
    for a in range(len(m)):
        m[a] = np.float64(np.float32(m[a] + by * sv[a]))


@kernel
def project(m: Doubles, S: Doubles, v: Doubles, sv: Doubles) -> tuple[float, float]:
    """v·m and vᵀ S v; leaves S v in ``sv``."""
    z, h = 0.0, 0.0
    sv[:] = 0.0
    for a in range(len(v)):
        z += v[a] * m[a]
        for c in range(len(v)):
            sv[c] += v[a] * S[a, c]
    for a in range(len(v)):
        h += v[a] * sv[a]
    return z, h


@kernel
def logistic_gain(z: float, h: float, sign: float) -> tuple[float, float]:
    """Gain and residual under the bound, taken at N(z, h) and again at the updated belief."""
    mean, variance = z, h
    gain, residual = 0.0, 0.0
    for _ in range(2):
        c = np.sqrt(max(mean * mean + variance, 1e-12))
        noise = 2.0 * c / np.tanh(0.5 * c)
        gain = 1.0 / (noise + h)
        residual = sign * noise - z
        mean = z + h * gain * residual
        variance = h - gain * h * h
    return gain, residual


@kernel
def load(mean: Floats, triangle: Floats, m: Doubles, S: Doubles) -> None:
    """Unpack a stored belief into m [p] and S [p, p]."""
    t = 0
    for a in range(len(m)):
        m[a] = mean[a]
        for c in range(a + 1):
            S[a, c] = S[c, a] = triangle[t]
            t += 1


@kernel
def save(mean: Floats, triangle: Floats, m: Doubles, S: Doubles) -> None:
    """Store a belief; the inverse of :func:`load`."""
    t = 0
    for a in range(len(m)):
        mean[a] = m[a]
        for c in range(a + 1):
            triangle[t] = S[a, c]
            t += 1


@kernel
def inflate(S: Doubles, first: float, rest: float) -> None:
    """Add to the diagonal of S, ``first`` on dimension 0 and ``rest`` on the others."""
    for a in range(len(S)):
        S[a, a] = np.float64(np.float32(S[a, a] + (first if a == 0 else rest)))


@kernel
def variances(triangles: Floats, v: Doubles) -> Floats:
    """vᵀ S v of one user's beliefs [F, T] for items [N, p]: float32 [N, F]."""
    n, p = v.shape
    out = np.empty((n, len(triangles)), np.float32)
    m, S, sv = np.empty(p), np.empty((p, p)), np.empty(p)
    mean = np.zeros(p, np.float32)
    for s in range(len(triangles)):
        load(mean, triangles[s], m, S)
        for i in range(n):
            _, out[i, s] = project(m, S, v[i], sv)
    return out
