"""A network's weights and their Adam as plain arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Arrays = dict[str, npt.NDArray[np.generic] | bytes]


def weights_state(dense: nn.Parameter, adam: torch.optim.Adam) -> Arrays:
    """All weights of a network in one vector, and what Adam knows of them, as copies."""
    state: Arrays = {"dense": _copy(dense)}
    known = adam.state.get(dense, {})
    if known:
        state["dense.mean"] = _copy(known["exp_avg"])
        state["dense.square"] = _copy(known["exp_avg_sq"])
        state["dense.steps"] = _copy(known["step"]).reshape(1)
    return state


def load_weights_state(
    dense: nn.Parameter,
    adam: torch.optim.Adam,
    state: Mapping[str, npt.NDArray[np.generic] | bytes],
) -> None:
    """The inverse of :func:`weights_state`."""
    with torch.no_grad():
        dense.copy_(_tensor(state["dense"]))
    adam.state.clear()
    if "dense.steps" in state:
        adam.state[dense] = {
            "step": _tensor(state["dense.steps"]).reshape(()).to(dense.device),
            "exp_avg": _tensor(state["dense.mean"]).to(dense.device),
            "exp_avg_sq": _tensor(state["dense.square"]).to(dense.device),
        }


def _tensor(value: npt.NDArray[np.generic] | bytes) -> Tensor:
    return torch.tensor(value)


def _copy(tensor: Tensor) -> npt.NDArray[np.generic]:
    return tensor.detach().cpu().numpy().copy()
