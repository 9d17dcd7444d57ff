"""The declarations by name."""

from __future__ import annotations

from features.declaration import Declaration
from features.logs.ali_features import ALI
from features.logs.amazon_features import AMAZON
from features.logs.movielens_features import MOVIELENS
from settings.errors import ConfigurationError

_DECLARATIONS = {d.name: d for d in (MOVIELENS, AMAZON, ALI)}
_DECLARATIONS |= {"ml-100k": MOVIELENS, "ml-1m": MOVIELENS}
_DECLARATIONS |= {"amazon-electronics": AMAZON, "ali-display-ads": ALI}


def declaration(name: str) -> Declaration:
    """The declaration that the setting ``log.name`` asks for.

    >>> len(declaration("movielens").of_entity("item"))
    4
    """
    try:
        return _DECLARATIONS[name]
    except KeyError:
        known = ", ".join(sorted(_DECLARATIONS))
        raise ConfigurationError(
            f"no log is declared under {name!r}; log.name may be {known}"
        ) from None
