"""The set of models of one trainer: online, its frozen copy, logistic regression, user states."""

from __future__ import annotations

from dataclasses import dataclass

from inttower.core.contract import Decoupled, Model
from inttower.state.user_state import UserState

# by which predictions are recorded, in this order
MODELS = ("online", "frozen_weights", "frozen", "logistic_regression")


@dataclass(frozen=True)
class Models:
    """The models of one learner.

    Attributes:
        online: learns, and is published.
        frozen: made as ``online``; takes its state at the end of the warm-up.
        logistic: learns on the same columns.
        user_state: used with the network, if any; its inputs are fields of the models' spec.
        frozen_user_state: made as ``user_state``; takes its state as ``frozen`` does.
    """

    online: Decoupled
    frozen: Decoupled
    logistic: Model
    user_state: UserState | None = None
    frozen_user_state: UserState | None = None

    def learnt(self) -> dict[str, Model | UserState]:
        """All that has state, by name."""
        parts: dict[str, Model | UserState] = {
            "online": self.online,
            "frozen": self.frozen,
            "logistic": self.logistic,
        }
        if self.user_state is not None and self.frozen_user_state is not None:
            parts["user_state"] = self.user_state
            parts["frozen_user_state"] = self.frozen_user_state
        return parts

    def freeze(self) -> None:
        """Copy the current weights to the frozen models."""
        self.frozen.load_state(self.online.state())
        if self.user_state is not None and self.frozen_user_state is not None:
            self.frozen_user_state.load_state(self.user_state.state())
