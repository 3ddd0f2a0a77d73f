"""What chance alone would do."""

from __future__ import annotations

from scipy import stats

#: Once in ten thousand: a check that is run every day should not cry wolf.
_SELDOM = 1e-4


def plausible(hits: int, trials: int, share: float, *, slack: float = 0.0) -> bool:
    """Whether so many hits come by chance where each trial hits with this probability.

    Args:
        slack: by how much the probability itself may be off.
    """
    low, high = max(0.0, share - slack), min(1.0, share + slack)
    nearest = min(max(hits / trials, low), high) if trials else share
    return bool(stats.binomtest(hits, trials, nearest).pvalue > _SELDOM) if trials else False
