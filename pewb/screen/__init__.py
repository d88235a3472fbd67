"""The screen: progress on standard error, answers on standard output."""

from pewb.screen.choices import print_choice
from pewb.screen.consoles import err, out, print_json
from pewb.screen.data import print_cleaned, print_data
from pewb.screen.evidence import print_evidence
from pewb.screen.findings import print_findings
from pewb.screen.leaderboards import print_comparison, print_leaderboard
from pewb.screen.lists import print_cells, print_entry, print_matrix
from pewb.screen.plans import print_plans
from pewb.screen.progress import reporting
from pewb.screen.runs import print_runs

__all__ = [
    "err",
    "out",
    "print_cells",
    "print_choice",
    "print_cleaned",
    "print_comparison",
    "print_data",
    "print_entry",
    "print_evidence",
    "print_findings",
    "print_json",
    "print_leaderboard",
    "print_matrix",
    "print_plans",
    "print_runs",
    "reporting",
]
