"""Settings section ``deploy``: how the launcher treats the parts on this machine."""

from __future__ import annotations

from pydantic import Field

from settings.section import Section


class DeploySettings(Section):
    """How the launcher treats the parts on this machine."""

    start_timeout_s: float = Field(
        900.0,
        gt=0,
        description="the longest that a part may take to get ready while it makes progress",
    )
    stall_timeout_s: float = Field(
        120.0,
        gt=0,
        description="a part that is not ready, uses no CPU and writes no line to its log for so"
        " long is taken for stuck",
    )
    restart_wait_s: float = Field(
        1.0,
        gt=0,
        description="wait before a part that died is started again; it doubles with each death",
    )
    longest_restart_wait_s: float = Field(
        60.0, gt=0, description="the wait before a restart grows no longer than this"
    )
