"""Records and predictions to rows to Markdown: a pure function of both, so the same files give the same bytes."""

from pewb.leaderboard.board import Leaderboard
from pewb.leaderboard.comparison import Comparison, compare
from pewb.leaderboard.evidence import evidence_folder
from pewb.leaderboard.group import Group
from pewb.leaderboard.row import Row
from pewb.leaderboard.rows import rows_of

__all__ = ["Comparison", "Group", "Leaderboard", "Row", "compare", "evidence_folder", "rows_of"]
