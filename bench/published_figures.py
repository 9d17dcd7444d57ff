"""Table 2 of the IntTower paper (CIKM 2022), as printed: AUC and log loss.

Its protocol leaks: features of the test rows are means of test labels (see
:mod:`bench.split`). These figures are for comparison only.
"""

from __future__ import annotations

# by log, then by model
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "ml-1m": {
        "lr": (0.8501, 0.4845),
        "two-tower": (0.8697, 0.4559),
        "dat": (0.8712, 0.4556),
        "cold": (0.8836, 0.3297),
        "wide-deep": (0.8820, 0.3344),
        "deepfm": (0.8920, 0.3211),
        "dcn": (0.8964, 0.3151),
        "autoint": (0.8948, 0.3192),
        "inttower-paper": (0.8974, 0.3128),
    },
    "amazon-electronics": {
        "lr": (0.7952, 0.4677),
        "two-tower": (0.8469, 0.4313),
        "dat": (0.8480, 0.4278),
        "cold": (0.8633, 0.3402),
        "wide-deep": (0.8615, 0.3409),
        "deepfm": (0.8643, 0.3405),
        "dcn": (0.8665, 0.3366),
        "autoint": (0.8686, 0.3351),
        "inttower-paper": (0.8696, 0.3309),
    },
    "ali-display-ads": {
        "lr": (0.6496, 0.2350),
        "two-tower": (0.6579, 0.2292),
        "dat": (0.6598, 0.2279),
        "cold": (0.6816, 0.2248),
        "wide-deep": (0.6814, 0.2250),
        "deepfm": (0.6820, 0.2247),
        "dcn": (0.6831, 0.2244),
        "autoint": (0.6867, 0.2238),
        "inttower-paper": (0.6827, 0.2245),
    },
}
