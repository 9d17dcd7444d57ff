"""MovieLens: a rating is an impression, and a click too if it is over 3.

The only features written by hand; those of all other logs are generated (features/generate.py).
"""

from __future__ import annotations

from features.declaration import Declaration, Dense, SmoothedRate, Static, Streaming

_BASE_RATE = 0.78
# one sitting: IntTower+ without a user state reaches an AUC of .8851 without such a window, .8898
# with one of an hour, .8909 with this one (MovieLens-1M, predicted before learnt)
_SITTING_MS = 10 * 60_000

MOVIELENS = Declaration(
    name="movielens",
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
        Streaming("user_last_click_ts", "user", "click", "last_ts"),
        Streaming("user_sitting_impressions", "user", "impression", "count", _SITTING_MS),
        Streaming("user_sitting_clicks", "user", "click", "count", _SITTING_MS),
        Streaming("item_impressions", "item", "impression", "count"),
        Streaming("item_clicks", "item", "click", "count"),
        Streaming("item_first_ts", "item", "impression", "first_ts"),
        # for freshness and for people; no tower reads it, because a published item vector
        # cannot know the gap at the time of a request
        Streaming("item_last_ts", "item", "impression", "last_ts"),
    ),
    statics=(
        Static("gender", "user", "sparse"),
        Static("age", "user", "sparse"),
        Static("occupation", "user", "sparse"),
        Static("genres", "item", "multi"),
        Static("decade", "item", "sparse"),
    ),
    dense=(
        Dense("user_log_impressions", "log_count", ("user_impressions",)),
        Dense("user_logit", "logit_rate", ("user_clicks", "user_impressions")),
        Dense("user_residual", "residual", ("user_clicks", "user_expected", "user_impressions")),
        Dense("user_gap", "log_gap", ("user_last_ts",)),
        Dense("user_age", "log_gap", ("user_first_ts",)),
        Dense("user_cold", "cold", ("user_impressions",)),
        Dense("user_sitting_log_impressions", "log_count", ("user_sitting_impressions",)),
        Dense(
            "user_sitting_logit", "logit_rate", ("user_sitting_clicks", "user_sitting_impressions")
        ),
        Dense("item_log_impressions", "log_count", ("item_impressions",)),
        Dense("item_logit", "logit_rate", ("item_clicks", "item_impressions")),
        Dense("item_cold", "cold", ("item_impressions",)),
    ),
    base_rate=_BASE_RATE,
)
