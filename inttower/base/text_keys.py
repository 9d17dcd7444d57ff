"""Hashes texts to 64-bit keys, so that no vocabulary is stored, bounded or sent."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.int64]

# keys that are remembered, to save hashing: a few hundred bytes each
_REMEMBERED = 1 << 18


@lru_cache(_REMEMBERED)
def key_of(field: str, text: str) -> int:
    """The key of a field's value; 0, which is no key, for the empty text.

    >>> key_of("genres", "Drama") != key_of("mood", "Drama")
    True
    >>> key_of("genres", "")
    0
    """
    if not text:
        return 0
    digest = blake2b(f"{field}\x1f{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) | 1


def keys_of(field: str, texts: Sequence[str]) -> Keys:
    """One key a text, int64 [B]."""
    return np.array([key_of(field, text) for text in texts], np.int64)


def list_keys(field: str, lists: Sequence[Sequence[str]], width: int) -> Keys:
    """The first ``width`` values of each list, int64 [B, width], 0 behind the last."""
    out = np.zeros((len(lists), width), np.int64)
    for row, values in enumerate(lists):
        for at, text in enumerate(values[:width]):
            out[row, at] = key_of(field, text)
    return out
