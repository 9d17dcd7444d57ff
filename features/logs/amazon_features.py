"""Amazon's ratings: a rating is an impression, and a click too if it is 4 or 5.

Times are whole days, so a gap is a number of days, and nobody's ratings of one day know each other.
Nothing is known of the users but what they did.
"""

from __future__ import annotations

from features.declaration import Declaration, Dense, SmoothedRate, Static, Streaming

_BASE_RATE = 0.8

AMAZON = Declaration(
    name="amazon",
    streaming=(
        Streaming("user_impressions", "user", "impression", "count"),
        Streaming("user_clicks", "user", "click", "count"),
        Streaming(
            "user_expected",
            "user",
            "impression",
            "sum_rate",
            rate=SmoothedRate("item_clicks", "item_impressions", prior=_BASE_RATE, strength=5),
        ),
        Streaming("user_first_ts", "user", "impression", "first_ts"),
        Streaming("user_last_ts", "user", "impression", "last_ts"),
        Streaming("user_liked", "user", "click", "recent_items"),
        Streaming("item_impressions", "item", "impression", "count"),
        Streaming("item_clicks", "item", "click", "count"),
        # for freshness and for people, see features/logs/movielens_features.py
        Streaming("item_last_ts", "item", "impression", "last_ts"),
    ),
    statics=(
        Static("categories", "item", "multi"),
        Static("price", "item", "sparse"),
    ),
    dense=(
        Dense("user_log_impressions", "log_count", ("user_impressions",)),
        Dense("user_logit", "logit_rate", ("user_clicks", "user_impressions")),
        Dense("user_residual", "residual", ("user_clicks", "user_expected", "user_impressions")),
        Dense("user_gap", "log_gap", ("user_last_ts",)),
        Dense("user_age", "log_gap", ("user_first_ts",)),
        Dense("user_cold", "cold", ("user_impressions",)),
        Dense("item_log_impressions", "log_count", ("item_impressions",)),
        Dense("item_logit", "logit_rate", ("item_clicks", "item_impressions")),
        Dense("item_cold", "cold", ("item_impressions",)),
    ),
    base_rate=_BASE_RATE,
)
