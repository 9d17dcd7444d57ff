"""Alibaba's display ads: an ad was shown on a page, and clicked or not.

The place on the page (``pid``) is in the impression's context. It belongs to no tower: a tower
knows the user or the ad alone.
"""

from __future__ import annotations

from features.declaration import Declaration, Dense, SmoothedRate, Static, Streaming

_BASE_RATE = 0.05
# impressions that the base rate is worth: at one click in twenty, fewer say next to nothing
_STRENGTH = 50

ALI = Declaration(
    name="ali",
    streaming=(
        Streaming("user_impressions", "user", "impression", "count"),
        Streaming("user_clicks", "user", "click", "count"),
        Streaming(
            "user_expected",
            "user",
            "impression",
            "sum_rate",
            rate=SmoothedRate(
                "item_clicks", "item_impressions", prior=_BASE_RATE, strength=_STRENGTH
            ),
        ),
        Streaming("user_last_ts", "user", "impression", "last_ts"),
        # what was clicked is rare, and all the more telling how long ago
        Streaming("user_last_click_ts", "user", "click", "last_ts"),
        Streaming("user_clicked", "user", "click", "recent_items"),
        Streaming("item_impressions", "item", "impression", "count"),
        Streaming("item_clicks", "item", "click", "count"),
        # for freshness and for people, see features/logs/movielens_features.py
        Streaming("item_last_ts", "item", "impression", "last_ts"),
    ),
    statics=(
        Static("cms_segid", "user", "sparse"),
        Static("cms_group_id", "user", "sparse"),
        Static("final_gender_code", "user", "sparse"),
        Static("age_level", "user", "sparse"),
        Static("pvalue_level", "user", "sparse"),
        Static("shopping_level", "user", "sparse"),
        Static("occupation", "user", "sparse"),
        Static("new_user_class_level", "user", "sparse"),
        Static("cate_id", "item", "sparse"),
        Static("campaign_id", "item", "sparse"),
        Static("customer", "item", "sparse"),
        Static("brand", "item", "sparse"),
        Static("price", "item", "sparse"),
    ),
    dense=(
        Dense("user_log_impressions", "log_count", ("user_impressions",)),
        Dense("user_log_clicks", "log_count", ("user_clicks",)),
        Dense("user_logit", "logit_rate", ("user_clicks", "user_impressions")),
        Dense("user_residual", "residual", ("user_clicks", "user_expected", "user_impressions")),
        Dense("user_gap", "log_gap", ("user_last_ts",)),
        Dense("user_click_gap", "log_gap", ("user_last_click_ts",)),
        Dense("user_cold", "cold", ("user_impressions",)),
        Dense("item_log_impressions", "log_count", ("item_impressions",)),
        Dense("item_log_clicks", "log_count", ("item_clicks",)),
        Dense("item_logit", "logit_rate", ("item_clicks", "item_impressions")),
        Dense("item_cold", "cold", ("item_impressions",)),
    ),
    base_rate=_BASE_RATE,
)
