"""The gate says no to what is bad, and no yes to what it knows nothing of; figures, chance and sample sizes are what they should be."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from course_lib.cluster.strategies import chance, experiment, figures, traffic
from course_lib.cluster.strategies.experiment import Arm, analyse, sample_size
from course_lib.cluster.strategies.figures import Figures, between, counters
from course_lib.cluster.strategies.gate import Decision, Gate, Seen, Verdict, disagreement, together
from course_lib.cluster.strategies.marks import Marked
from course_lib.cluster.strategies.traffic import Traffic, compared
from course_lib.cluster.strategies.users import UserLoad, Users, accounts, require_accounted, require_unseen
from course_lib.errors import CourseError
from course_lib.steady_load import Sent


def answered(requests: int = 100, failed: int = 0, seconds: float = 0.01) -> Figures:
    """Requests that all took about so long."""
    bounds = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, math.inf)
    return Figures(requests, failed, tuple((bound, requests if bound >= seconds else 0) for bound in bounds))


def marked(right: int, total: int = 100, why: str = "") -> Marked:
    return Marked(right, total, "2", why)


GOOD = Seen(answered(), answered(), marked(90), marked(95))
GATE = Gate()


def failing(seen: Seen) -> list[str]:
    return [one.what for one in GATE.judge(seen).findings if one.passed is False]


def test_a_good_version_goes_on() -> None:
    verdict = GATE.judge(GOOD)
    assert verdict.decision is Decision.PROMOTE and verdict.promotes
    assert [one.passed for one in verdict.findings] == [True, True, True]


@pytest.mark.parametrize(
    ("seen", "what"),
    [
        (replace(GOOD, new=answered(failed=3)), "errors"),
        (replace(GOOD, new=answered(seconds=0.25)), "p95"),
        (replace(GOOD, new_marks=marked(68)), "right answers"),
        (replace(GOOD, new_marks=marked(0, why="answered 404: no such model")), "right answers"),
    ],
)
def test_each_question_can_stop_a_version_by_itself(seen: Seen, what: str) -> None:
    assert failing(seen) == [what]
    assert GATE.judge(seen).decision is Decision.ROLL_BACK


@pytest.mark.parametrize(
    "seen",
    [
        Seen(),
        replace(GOOD, new=None),
        replace(GOOD, old=None),
        replace(GOOD, new_marks=None),
        replace(GOOD, old_marks=None),
        replace(GOOD, new=answered(0)),
        replace(GOOD, new=answered(GATE.requests - 1)),
        replace(GOOD, new_marks=Marked(0, 0, "")),
    ],
)
def test_a_gate_that_reads_too_little_does_not_promote(seen: Seen) -> None:
    assert GATE.judge(seen).decision is not Decision.PROMOTE


def test_a_gate_without_questions_does_not_promote() -> None:
    assert Verdict(()).decision is Decision.WAIT


def test_a_no_is_said_before_there_are_enough_requests() -> None:
    assert GATE.errors(answered(5, failed=5)).passed is False
    assert GATE.errors(answered(5, failed=2)).passed is None  # two may be bad luck


def test_what_is_fast_enough_is_not_slow_and_what_is_twice_as_slow_is() -> None:
    fast = replace(GOOD, old=answered(seconds=0.001), new=answered(seconds=0.1))
    assert failing(fast) == []
    assert failing(replace(GOOD, old=answered(seconds=0.1), new=answered(seconds=0.25))) == ["p95"]
    assert failing(replace(GOOD, old=answered(seconds=0.1), new=answered(seconds=0.1))) == []
    assert failing(replace(GOOD, old=answered(seconds=0.25), new=answered(seconds=0.25))) == []


def test_without_an_exam_a_wrong_version_goes_through() -> None:
    """Errors and latency alone don't tell, which is why there is an exam."""
    wrong = replace(GOOD, new_marks=marked(68))
    assert GATE.judge(wrong, exam=False).promotes
    assert not GATE.judge(wrong).promotes


@pytest.mark.parametrize(
    ("pairs", "differ", "passed"), [(100, 20, True), (100, 21, False), (99, 0, None), (0, 0, None)]
)
def test_a_shadow_may_differ_so_often(pairs: int, differ: int, passed: bool | None) -> None:
    assert disagreement(pairs, differ, most=0.2, at_least=100).passed is passed


def test_disagreement_alone_stops_a_shadow() -> None:
    rest = GATE.judge(GOOD, exam=False)
    assert together(rest, [disagreement(100, 10, most=0.2, at_least=100)]).promotes
    assert together(rest, [disagreement(100, 36, most=0.2, at_least=100)]).decision is Decision.ROLL_BACK
    assert together(rest, [disagreement(0, 0, most=0.2, at_least=100)]).decision is Decision.WAIT


PAGE = """\
# HELP http_requests_total HTTP requests answered.
# TYPE http_requests_total counter
http_requests_total{{method="POST",route="/predict",status="200"}} {ok}
http_requests_total{{method="POST",route="/predict",status="404"}} {bad}
http_requests_total{{method="GET",route="/ready",status="503"}} 7
# HELP http_request_duration_seconds Time.
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{{le="0.01",route="/predict"}} {fast}
http_request_duration_seconds_bucket{{le="0.1",route="/predict"}} {ok}
http_request_duration_seconds_bucket{{le="+Inf",route="/predict"}} {ok}
http_request_duration_seconds_bucket{{le="+Inf",route="/ready"}} 99
"""


def page(ok: float, bad: float = 0, fast: float = 0) -> dict[tuple[str, str], float]:
    return counters(PAGE.format(ok=ok, bad=bad, fast=fast), "/predict")


def test_figures_are_what_was_counted_in_between() -> None:
    found = between({"a": page(10, 1, 5)}, {"a": page(30, 3, 15), "b": page(20, 0, 20)})
    assert (found.requests, found.failed) == (42, 2)
    assert found.buckets == ((0.01, 30), (0.1, 40), (math.inf, 40))
    assert found.error_rate == 2 / 42


def test_a_pod_that_was_restarted_began_at_nothing() -> None:
    found = between({"a": page(100, 9, 50)}, {"a": page(30, 1, 10)})
    assert (found.requests, found.failed) == (31, 1)


def test_a_page_without_requests_is_no_page_of_the_servers() -> None:
    with pytest.raises(CourseError, match="no http_requests_total"):
        counters("# TYPE up gauge\nup 1\n", "/predict")


def test_a_quantile_lies_where_prometheus_puts_it() -> None:
    found = Figures(100, 0, ((0.01, 50), (0.1, 90), (1.0, 100), (math.inf, 100)))
    assert found.quantile(0.5) == pytest.approx(0.01)
    assert found.quantile(0.7) == pytest.approx(0.055)
    assert found.quantile(0.95) == pytest.approx(0.55)
    assert figures.Figures(4, 0, ((0.01, 0), (math.inf, 4))).quantile(0.95) == 0.01
    assert math.isnan(Figures(0, 0).quantile(0.95))


def test_traffic_is_written_as_nginx_reads_it() -> None:
    assert "10% candidate" in Traffic(candidate=10).files()["split.conf"]
    assert "candidate" not in Traffic().files()["split.conf"]
    assert "* candidate;" in Traffic(candidate=100).files()["split.conf"]
    assert "$http_x_user_id" in Traffic(candidate=50, by="user").files()["split.conf"]
    assert "mirror /shadow;" in Traffic(mirror=True).files()["mirror.conf"]
    assert "mirror /" not in Traffic().files()["mirror.conf"]
    marks = {one.mark for one in (Traffic(), Traffic(10), Traffic(10, "user"), Traffic(mirror=True))}
    assert len(marks) == 4  # the door says which one is in force
    with pytest.raises(CourseError, match="0 to 100"):
        Traffic(candidate=101)


def test_kept_answers_are_compared_by_request() -> None:
    said = '{{"predicted_class":"{}"}}'
    lines = [f"/tmp/shadow-stable/{n}:{said.format(3)}" for n in range(5)]
    lines += [f"/tmp/shadow-candidate/{n}:{said.format(3 if n < 2 else 8)}" for n in range(4)]
    lines += ["/tmp/shadow-candidate/4:{", "/tmp/shadow-candidate/9:[]", "grep: what"]  # half written, no answer, noise
    found = compared(lines)
    assert (found.pairs, found.differ, found.examples) == (4, 2, (("3", "8"), ("3", "8")))
    assert compared([]) == traffic.Compared(0, 0, ())


def test_a_share_is_plausible_where_chance_makes_it() -> None:
    assert chance.plausible(10, 100, 0.1) and chance.plausible(33, 100, 1 / 3)
    assert not chance.plausible(33, 100, 0.1) and not chance.plausible(0, 100, 0.1)
    assert not chance.plausible(0, 0, 0.1)


def test_the_sample_size_is_the_textbooks() -> None:
    """R's manual: `power.prop.test(p1 = .50, p2 = .75, power = .90)` gives n = 76.7."""
    assert sample_size(0.5, 0.75, power=0.9) == 77
    assert sample_size(0.5, 0.6) == 388
    assert sample_size(0.9, 0.97) == 194
    assert sample_size(0.97, 0.9) == 194
    assert sample_size(0.5, 0.6, power=0.9) > sample_size(0.5, 0.6, alpha=0.1)
    for wrong in ((0.5, 0.5), (0, 0.5), (0.5, 1)):
        with pytest.raises(CourseError, match="no number of users"):
            sample_size(*wrong)


def test_the_sample_size_has_the_power_that_it_promises() -> None:
    """And no more errors than it promises, tried by drawing 300 experiments."""
    drawn, needed = random.Random(441), sample_size(0.8, 0.9)

    def found(a: float, b: float) -> float:
        results = []
        for _ in range(300):
            right = [sum(drawn.random() < share for _ in range(needed)) for share in (a, b)]
            results.append(analyse(Arm("1", needed, right[0]), Arm("2", needed, right[1]), needed=needed).p < 0.05)
        return sum(results) / len(results)

    assert 0.7 < found(0.8, 0.9) < 0.9
    assert found(0.8, 0.8) < 0.08


def test_an_experiment_says_what_it_may_say() -> None:
    better = analyse(Arm("1", 220, 198), Arm("2", 220, 217), needed=194)
    assert better.decision == "version 2 is better" and 0 < better.low < better.high and better.p < 0.01
    assert analyse(Arm("1", 220, 217), Arm("2", 220, 198), needed=194).decision == "version 1 is better"
    assert analyse(Arm("1", 220, 198), Arm("2", 220, 200), needed=194).decision == "no difference found"
    assert "too few users" in analyse(Arm("1", 100, 50), Arm("2", 100, 90), needed=194).decision
    assert "invalid" in analyse(Arm("1", 300, 100), Arm("2", 200, 190), needed=194).decision
    with pytest.raises(CourseError, match="no users"):
        analyse(Arm("1", 0, 0), Arm("2", 10, 9), needed=5)


ROWS = [((0.0,) * 64, "0"), ((1.0,) * 64, "1")]


def load(users: int, *sent: Sent) -> UserLoad:
    """A load that has been, as it was recorded."""
    made = UserLoad.__new__(UserLoad)
    made.users, made.url, made._sent = Users(ROWS, users), "http://here/predict", list(sent)
    return made


def sent(number: int, version: str = "1", status: int = 200, right: bool = True) -> Sent:
    label = Users(ROWS).row(number)[1]
    said = label if right else "x"
    return Sent(number / 10, 0.01, status, "", number, version, f'{{"predicted_class": "{said}"}}')


def test_every_request_is_accounted_for_once() -> None:
    rows = accounts(load(0, sent(0), sent(1, right=False), sent(2, "2"), sent(3, "", 404), sent(4, "", 0)))
    assert [(r.version, r.requests, r.right, r.wrong, r.failed, r.lost) for r in rows] == [
        ("", 2, 0, 0, 1, 1),
        ("1", 2, 1, 1, 0, 0),
        ("2", 1, 1, 0, 0, 0),
    ]
    assert require_accounted(load(0, sent(1), sent(0)))
    assert require_accounted(load(0, sent(0), sent(1, "", 404)), failed=1)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([sent(0), sent(2)], "of 3 requests 2 came to an end"),
        ([sent(0), sent(0), sent(1)], "came to an end"),
        ([sent(0), sent(1, "", 0)], "1 were lost"),
        ([sent(0), sent(1, "", 404)], "1 failed"),
    ],
)
def test_a_request_that_is_missing_lost_or_failed_is_found(found: list[Sent], says: str) -> None:
    with pytest.raises(CourseError, match=says):
        require_accounted(load(0, *found))


def test_a_shadow_that_was_heard_is_found() -> None:
    require_unseen(load(0, sent(0), sent(1)), ["1"])
    with pytest.raises(CourseError, match="users heard"):
        require_unseen(load(0, sent(0), sent(1, "3")), ["1"])
    with pytest.raises(CourseError, match="users heard"):
        require_unseen(load(0, sent(0, "", 0)), ["1"])


def test_a_user_who_saw_both_versions_is_found() -> None:
    found = experiment.arms(load(2, sent(0), sent(1, "2"), sent(2, right=False), sent(3, "2")))
    assert found == {"1": Arm("1", 1, 1), "2": Arm("2", 1, 1)}  # each user once, by the first answer
    with pytest.raises(CourseError, match="1 users saw both"):
        experiment.arms(load(2, sent(0), sent(1, "2"), sent(2, "2"), sent(3, "2")))
    with pytest.raises(CourseError, match="was answered 503"):
        experiment.arms(load(2, sent(0), sent(1, "", 503)))


def test_users_ask_the_same_again_when_they_are_drawn_again() -> None:
    first, second = Users(ROWS, 3), Users(ROWS, 3)
    assert [first(n) for n in range(20)] == [second(n) for n in range(20)]
    assert [first.user(n) for n in range(4)] == ["user-0", "user-1", "user-2", "user-0"]
    assert len({first.row(n)[1] for n in range(20)}) == 2
