"""Records to rows to Markdown: a pure function of the records, so the same records give the same bytes."""

from pewb.leaderboard.board import Group, Leaderboard
from pewb.leaderboard.rows import Row, rows_of

__all__ = ["Group", "Leaderboard", "Row", "rows_of"]
