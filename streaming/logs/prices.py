"""Prices as classes: a static feature is a category."""

from __future__ import annotations

import math

# catalogues have prices such as 99999999 for "not for sale": all of these are one class
_DEAREST = 1 << 16


def price_class(price: float) -> str:
    """The class of a price, named by its lower end; the next class begins at twice that.

    Raises:
        ValueError: it is negative, or not a number.

    >>> [price_class(price) for price in (0.01, 1, 3.99, 4, 99_999_999)]
    ['0', '1', '2', '4', '65536']
    """
    if not 0 <= price < math.inf:
        raise ValueError("is not a price")
    if price >= _DEAREST:
        return str(_DEAREST)
    return str(1 << int(price).bit_length() - 1 if price >= 1 else 0)


def parse_price(text: str) -> str:
    """The class of a price in digits.

    Raises:
        ValueError: it is not one.
    """
    try:
        price = float(text)
    except ValueError as error:
        raise ValueError("is not a price") from error
    return price_class(price)
