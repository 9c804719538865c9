"""Is it fast: samples, their summary, and the gate. All but ``timer`` is pure.

``summarize`` and ``decide`` take durations in ms: one array per repeat, or an array of shape (repeats, samples).
"""

from pytest_trt.latency.gate import decide, decide_all
from pytest_trt.latency.priors import PRIORS, Prior
from pytest_trt.latency.stats import Summary, summarize
from pytest_trt.latency.verdict import Outcome, Verdict

__all__ = ["PRIORS", "Outcome", "Prior", "Summary", "Verdict", "decide", "decide_all", "summarize"]
