"""Four ways to bring a new version to its users, each under a gate that reads the servers' own figures; and a test between two."""

from course_lib.cluster.strategies import blue_green, canary, rolling, shadow, traffic
from course_lib.cluster.strategies.experiment import Arm, Result, analyse, arms, decide, sample_size
from course_lib.cluster.strategies.figures import Figures
from course_lib.cluster.strategies.gate import Decision, Finding, Gate, Seen, Verdict
from course_lib.cluster.strategies.journal import Journal, Outcome
from course_lib.cluster.strategies.marks import Marked, mark
from course_lib.cluster.strategies.release import Release
from course_lib.cluster.strategies.shadow import Rule
from course_lib.cluster.strategies.traffic import Compared, Traffic, direct
from course_lib.cluster.strategies.users import UserLoad, Users, accounts, require_accounted, require_unseen

__all__ = [
    "Arm", "Compared", "Decision", "Figures", "Finding", "Gate", "Journal", "Marked", "Outcome", "Release", "Result", "Rule",
    "Seen", "Traffic", "UserLoad", "Users", "Verdict", "accounts", "analyse", "arms", "blue_green", "canary", "decide", "direct",
    "mark", "require_accounted", "require_unseen", "rolling", "sample_size", "shadow", "traffic",
]  # fmt: skip
