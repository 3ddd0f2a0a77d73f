"""What users lose when replicas die, come and go under load: whole answers and streams, counted apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from course_lib import shell
from course_lib.bench.samples import quantiles_ms
from course_lib.errors import CourseError
from course_lib.exercises import stack_scenes
from course_lib.stacks import Stack
from course_lib.steady_load import Sent, SteadyLoad


@dataclass(frozen=True)
class Rates:
    """What is asked each second."""

    whole: float = 50
    streams: float = 4


_QUESTION = [{"role": "user", "content": "What is an image layer?"}]
WHOLE: Mapping[str, Any] = {"model": "tutor", "messages": _QUESTION, "max_tokens": 16}
#: The end token (2) is never drawn, so each goes on for a part of a second: some are on their way whenever a replica dies.
STREAM: Mapping[str, Any] = {"model": "tutor", "messages": _QUESTION, "max_tokens": 400, "logit_bias": {"2": -100}}


def crash(stack: Stack) -> None:
    """Every process in a replica is killed from inside; its restart policy brings it back."""
    stack.crash("inference")


def docker_kill(stack: Stack) -> None:
    """`docker kill`: the engine takes it for wanted, so somebody has to start it again."""
    victim = next(one for one in stack.states() if one.service == "inference" and one.status == "running")
    shell.run(["docker", "kill", victim.container])


WAYS: Mapping[str, Callable[[Stack], None]] = {"crash": crash, "docker kill": docker_kill}


def kills(
    stack: Stack, rates: Rates, moments: Sequence[float], seconds: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """One of three replicas is killed under load, once a way and moment (seconds after the load began); and once none is,
    which tells what the machine itself makes of that load."""
    stack.scale("inference", 3)
    say(f"kills: {seconds:g} s without")
    control = _under_load(stack, rates, lambda stack: None, 0, seconds)
    runs = []
    for moment in moments:
        for way, kill in WAYS.items():
            say(f"kills: {way} after {moment:g} s of {seconds:g}")
            runs.append({"way": way, "moment_s": moment, **_under_load(stack, rates, kill, moment, seconds)})
            stack.start("inference")
    stack.scale("inference", 1)
    counted = ("requests", "lost", "streams", "streams_cut", "streams_refused")
    return {
        "rate": rates.whole,
        "stream_rate": rates.streams,
        "seconds": seconds,
        **{name: sum(run[name] for run in runs) for name in counted},
        "errors": sorted({error for run in runs for error in run["errors"]}),
        "without": control,
        "runs": runs,
    }


def _under_load(
    stack: Stack, rates: Rates, kill: Callable[[Stack], None], moment: float, seconds: float
) -> dict[str, Any]:
    # The kill beside the load, and the whole answers ended before the streams, which go on for longest: the load lasts as long
    # as was said.
    with ThreadPoolExecutor(1) as pool, _streams(stack, rates) as streams, _whole(stack, rates) as whole:
        whole.run_for(moment)
        killed = pool.submit(kill, stack)
        whole.run_for(seconds - moment)
    killed.result()
    return {**fates(whole.sent), **stream_fates(streams.sent)}


def scaling(stack: Stack, rates: Rates, rounds: int, pause: float, say: Callable[[str], None]) -> dict[str, Any]:
    """1, 3, 2 replicas under one load, with a pause before and after each change."""
    runs = []
    for number in range(rounds):
        say(f"scaling: 1, 3, 2 replicas, round {number + 1} of {rounds}")
        stack.scale("inference", 1)
        with _whole(stack, rates) as steady:
            steady.run_for(pause)
        with _whole(stack, rates) as load:
            for count in (3, 2):
                load.run_for(pause)
                stack.scale("inference", count)
            load.run_for(pause)
        runs.append({**fates(load.sent), "steady_p99_ms": fates(steady.sent)["p99_ms"]})
    stack.scale("inference", 1)
    worst = {name: max(run[name] for run in runs) for name in ("p99_ms", "steady_p99_ms")}
    counted = {name: sum(run[name] for run in runs) for name in ("requests", "lost")}
    return {"rate": rates.whole, **counted, **worst, "runs": runs}


def fates(sent: Sequence[Sent]) -> dict[str, Any]:
    """How many requests, how many of them lost, what the losses say, and the p99 of the others in milliseconds.

    Lost is whoever got anything but the answer: a refusal, too (429, 404), though `Sent.lost` lets that pass.

    Raises:
        CourseError: none was answered.
    """
    lost = [one for one in sent if one.status != 200]
    answered = [one.seconds for one in sent if one.status == 200]
    if not answered:
        raise CourseError("no request was answered under load", why=f"{lost[:1]}")
    return {
        "requests": len(sent),
        "lost": len(lost),
        "errors": sorted({f"{one.status} {one.error}"[:200] for one in lost}),
        "p99_ms": round(quantiles_ms(answered)["p99_ms"], 1),
        "slowest_ms": round(max(answered) * 1000, 1),
    }


def stream_fates(sent: Sequence[Sent]) -> dict[str, int]:
    """How many streams, how many broke off after they had begun, and how many never began."""
    return {
        "streams": len(sent),
        "streams_cut": sum(one.status == 0 for one in sent),
        "streams_refused": sum(one.status not in (0, 200) for one in sent),
    }


def _whole(stack: Stack, rates: Rates) -> SteadyLoad:
    return stack_scenes.load(stack, WHOLE, rate=rates.whole)


def _streams(stack: Stack, rates: Rates) -> SteadyLoad:
    return stack_scenes.load(stack, STREAM, rate=rates.streams, streamed=True)
