"""Sample ratio mismatch, by a test that may be looked at after every user.

If users do not arrive in the shares of the experiment, the assignment or the logging is broken and
no other figure means anything. The test compares the counts under the shares with the counts under
any other shares (a Dirichlet prior centred on them): Lindon and Malek, "Anytime-valid inference for
multinomial count data" (arXiv 2011.03567). Its p-value holds at every time at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.special import gammaln

RATIO_ALARM = 0.001
# how closely the prior sits round the shares, in users: mismatches of a few percent are what occurs
_PRIOR_USERS = 100.0


@dataclass(frozen=True, slots=True)
class RatioCheck:
    """Users seen and expected, by variant. ``p_value`` 1: nothing speaks against the shares."""

    seen: dict[str, int]
    expected: dict[str, float]
    p_value: float

    @property
    def alarm(self) -> bool:
        """The shares that were seen cannot be chance."""
        return self.p_value < RATIO_ALARM


def ratio_check(seen: Mapping[str, int], shares: Mapping[str, float]) -> RatioCheck:
    """Test the number of users a variant against the shares; shares of 0 are left out.

    >>> ratio_check({"a": 5000, "b": 5100}, {"a": 0.5, "b": 0.5}).alarm
    False
    >>> ratio_check({"a": 5000, "b": 5600}, {"a": 0.5, "b": 0.5}).alarm
    True
    """
    live = {name: share for name, share in shares.items() if share > 0}
    users = {name: seen.get(name, 0) for name in live}
    total, whole = sum(users.values()), sum(live.values())
    theta = {name: share / whole for name, share in live.items()}
    expected = {name: total * part for name, part in theta.items()}
    if total == 0 or len(live) < 2:
        return RatioCheck(users, expected, 1.0)
    # log of the Bayes factor: Dirichlet-multinomial over multinomial
    log_factor = float(gammaln(_PRIOR_USERS) - gammaln(_PRIOR_USERS + total))
    for name, part in theta.items():
        prior = _PRIOR_USERS * part
        log_factor += float(gammaln(prior + users[name]) - gammaln(prior))
        log_factor -= users[name] * math.log(part)
    return RatioCheck(users, expected, min(1.0, math.exp(-log_factor)) if log_factor > 0 else 1.0)
