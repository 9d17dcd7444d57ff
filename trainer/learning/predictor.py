"""Encodes impressions when they are shown, and lets every model predict them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.samples import Shown
from inttower.core.batch import Batch, IntArray
from trainer.learning.evaluation import user_code
from trainer.learning.model_set import MODELS, Models
from trainer.learning.open_rows import OpenRows
from trainer.learning.sample_inputs import FrozenFeatures, SampleInputs


class Predictor:
    """What is made of impressions before anything is known of their labels.

    Args:
        models: that predict.
        inputs: makes the models' columns, but for those of a user state.
        frozen_features: as they stood at the end of the warm-up.
    """

    def __init__(
        self, models: Models, inputs: SampleInputs, frozen_features: FrozenFeatures
    ) -> None:
        self._models = models
        self._inputs = inputs
        self._frozen_features = frozen_features

    def predict(self, shown: Sequence[Shown]) -> dict[str, NDArray[Any]]:
        """Arrays of n impressions for the open rows: inputs as encoded, and logits.

        The user state may have learnt outcomes from after an impression; its inputs are as of the
        impression all the same.

        Returns:
            ``rows``, ``dense``, ``generation`` of the online model, ``plain`` (the dense inputs of
            the logistic regression), ``logits`` float32 [n, models], ``user`` (its code).
        """
        models = self._models
        live = dict(self._inputs.live(shown))
        then = dict(self._inputs.frozen(shown, self._frozen_features))
        if models.user_state is not None and models.frozen_user_state is not None:
            at = np.array([s.at for s in shown], np.int64)
            live |= models.user_state.inputs(live, at)
            then |= models.frozen_user_state.user_inputs(then)
            then |= models.frozen_user_state.item_inputs(then)
        online = models.online.encode(live, admit=True)
        logistic = models.logistic.encode(live, admit=True)
        # one pass for both: a step of a sample or two costs as much as a pass
        frozen = models.frozen.predict(
            Batch.concat([models.frozen.encode(c, admit=False) for c in (live, then)])
        )
        logits = {
            "online": models.online.predict(online),
            "frozen_weights": frozen[: len(shown)],
            "frozen": frozen[len(shown) :],
            "logistic_regression": models.logistic.predict(logistic),
        }
        return {
            "rows": online.rows,
            "dense": online.dense,
            "generation": np.full(len(shown), online.generation, np.int64),
            "plain": logistic.dense,
            "logits": np.stack([logits[name] for name in MODELS], axis=1),
            "user": np.fromiter((user_code(s.user_id) for s in shown), np.uint64, len(shown)),
        }


def encoded(rows: OpenRows, numbers: IntArray, models: Models) -> tuple[Batch, Batch]:
    """Open rows as batches of the online model and of the logistic regression.

    Ids that have expired since their rows were encoded are taken for unknown ones.
    """
    online = models.online.renewed(
        rows.read("rows", numbers), rows.read("dense", numbers), rows.read("generation", numbers)
    )
    plain = rows.read("plain", numbers)
    nothing = np.zeros((len(numbers), 0), np.int32)
    return online, models.logistic.renewed(nothing, plain, np.zeros(len(numbers), np.int64))
