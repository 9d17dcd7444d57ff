"""Prometheus metrics of the server (``GET /metrics``); docs list each with its help text."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_MILLISECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.5, 1)

RANK_SECONDS = Histogram(
    "headrace_rank_seconds",
    "Time to answer a ranking, inside of the server",
    ["channel"],
    buckets=_MILLISECONDS,
)
CANDIDATES = Histogram(
    "headrace_rank_candidates",
    "Candidates of a request",
    buckets=(1, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000),
)
UNKNOWN_ITEMS = Counter(
    "headrace_rank_unknown_items", "Candidates that the channel has not learnt of", ["channel"]
)
BLANK_FEATURES = Counter(
    "headrace_rank_blank_features", "Rankings without the user's features, which were not readable"
)
COLD_RANKINGS = Counter(
    "headrace_rank_cold", "Rankings by popularity, for want of a version", ["channel"]
)
REQUESTS_REFUSED = Counter(
    "headrace_requests_refused", "Requests answered with an error", ["path", "status", "field"]
)
EXPOSURES = Counter("headrace_exposures", "Impressions handed to Kafka", ["variant"])
OUTBOX_PENDING = Gauge("headrace_outbox_pending", "Records not yet acknowledged by Kafka")
OUTBOX_DELIVERED = Counter("headrace_outbox_delivered", "Records acknowledged by Kafka", ["topic"])
OUTBOX_LOST = Counter(
    "headrace_outbox_lost",
    "Records that never reached Kafka, by reason: full, refused, stopped",
    ["topic", "reason"],
)
VERSION_INFO = Gauge(
    "headrace_channel_version_info", "1 for the version that serves", ["channel", "version"]
)
VERSION_CREATED = Gauge(
    "headrace_channel_version_created_seconds",
    "When the serving version was made, Unix time",
    ["channel"],
)
DELTA = Gauge("headrace_channel_delta", "Number of the last delta applied", ["channel"])
FRESHNESS = Gauge(
    "headrace_channel_freshness_seconds", "Now minus creation of the last delta", ["channel"]
)
ROWS = Gauge("headrace_channel_rows", "Learnt rows held", ["channel", "side"])
DELTAS = Counter(
    "headrace_channel_deltas",
    "Deltas by outcome: applied, other_base, repeated, refused",
    ["channel", "outcome"],
)
DELTA_LAG = Histogram(
    "headrace_channel_delta_lag_seconds",
    "From a delta's creation to its use",
    ["channel"],
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 60),
)
STALE_ROWS = Counter(
    "headrace_channel_stale_rows", "Rows of deltas older than what is held", ["channel"]
)
VERSIONS_REFUSED = Counter(
    "headrace_versions_refused", "Versions that were not taken", ["channel", "reason"]
)
FOLLOWER_ERRORS = Counter(
    "headrace_follower_errors", "Polls of model store or broker that failed", ["source"]
)
