"""Traffic between versions: the split's arithmetic as properties, its grammar, and a real server that divides users by it."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from conftest import MODELS, Server, free_port, run, wait_for
from hypothesis import given
from hypothesis import strategies as st
from inference_server.errors import StartError
from inference_server.traffic import PLACES, Split, parse, parse_file, place_of
from openai import OpenAI

places = st.integers(0, PLACES - 1)
weights = st.integers(0, 1_000_000)


@given(place=places, total=st.integers(1, 1_000_000), data=st.data())
def test_nobody_leaves_the_version_that_grows(place: int, total: int, data: st.DataObject) -> None:
    """The higher version's weight grows at the lower one's cost: who has it keeps it, and the other way round."""
    small = data.draw(st.integers(0, total))
    large = data.draw(st.integers(small, total))
    before = Split({"1": total - small, "2": small}, "1").version(place)
    after = Split({"1": total - large, "2": large}, "1").version(place)
    assert (before, after) in {("1", "1"), ("1", "2"), ("2", "2")}


@given(place=places, low=weights, high=st.integers(1, 1_000_000), more=st.integers(0, 1_000_000))
def test_nor_when_only_its_own_weight_is_raised(place: int, low: int, high: int, more: int) -> None:
    if Split({"9": low, "10": high}, "9").version(place) == "10":
        assert Split({"9": low, "10": high + more}, "9").version(place) == "10"


@given(place=places, split=st.lists(weights, min_size=1, max_size=6).filter(any))
def test_every_place_has_a_version_with_weight(place: int, split: list[int]) -> None:
    versions = {str(index): weight for index, weight in enumerate(split)}
    chosen = Split(versions, "0").version(place)
    assert versions[chosen] > 0
    for edge in (0, PLACES - 1):
        assert versions[Split(versions, "0").version(edge)] > 0
    # In the order of versions, in whatever order they were written down.
    assert Split(dict(reversed(versions.items())), "0").version(place) == chosen
    assert Split({version: 3 * weight for version, weight in versions.items()}, "0").version(place) == chosen


@given(split=st.lists(weights, min_size=1, max_size=6).filter(any))
def test_each_part_is_as_large_as_its_weight(split: list[int]) -> None:
    """The place where a part begins is the sum of what comes before it: looked for at the edges themselves."""
    versions = {str(index): weight for index, weight in enumerate(split)}
    whole, below = Split(versions, "0"), 0
    for version, weight in versions.items():
        if weight:
            first = -(-below * PLACES // sum(split))
            assert whole.version(first) == version
            assert first == 0 or whole.version(first - 1) != version
        below += weight
    assert math.isclose(sum(whole.share(version) for version in versions), 1)


def test_a_place_is_a_published_hash() -> None:
    """A learner's own line of Python finds the same version."""
    wanted = int.from_bytes(hashlib.sha256(b"tutor:ada").digest()[:8], "big")
    assert place_of("tutor", b"ada") == wanted
    assert place_of("digits", b"ada") != wanted


def test_users_spread_as_the_weights_say() -> None:
    split = Split({"1": 90, "2": 10}, "1")
    counted = Counter(split.version(place_of("tutor", f"user-{number}".encode())) for number in range(10_000))
    assert 900 < counted["2"] < 1100  # 10 standard deviations would be 300


def test_the_line() -> None:
    wanted = {"tutor": Split({"2": 10, "1": 90}, "2"), "digits": Split({"1": 0, "2": 5}, "1")}
    assert parse("tutor:2=10,tutor:1=90,digits:1=0,digits:2=5") == wanted
    assert parse(" tutor:2=10; digits:1=0\ntutor:1=90 , digits:2=5;") == wanted


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "tutor",
            "'tutor' is not name:version=weight with a whole number from 0 to 1,000,000, as in tutor:1=90,tutor:2=10.",
        ),
        ("tutor=90", "is not name:version=weight"),
        ("tutor:1=-1", "is not name:version=weight"),
        ("tutor:1=0.5", "is not name:version=weight"),
        ("tutor:1=nan", "is not name:version=weight"),
        ("tutor:1=٣", "is not name:version=weight"),
        ("tutor:1=99999999", "is not name:version=weight"),
        ("tutor:1=9999999", "the weight of tutor:1 has to be a whole number from 0 to 1,000,000"),
        ("tutor:1=90%", "is not name:version=weight"),
        (",", "is not name:version=weight"),
        ("tutor:1=1,tutor:1=2", "names tutor:1 twice: keep one"),
        ("tutor:1=0,tutor:2=0", "every weight of tutor is 0, so that nobody would answer"),
    ],
)
def test_a_line_that_is_refused(line: str, said: str) -> None:
    with pytest.raises(StartError) as refused:
        parse(line)
    assert str(refused.value).startswith("TRAFFIC: ") or said.startswith("names")
    assert said in str(refused.value)


def test_the_file() -> None:
    assert parse_file("f", b'{"tutor": {"weights": {"1": 90, "2": 10}, "default": "2"}}') == {
        "tutor": Split({"1": 90, "2": 10}, "2")
    }
    assert parse_file("f", b'{"tutor": {"weights": {"2": 1, "1": 0}}}')["tutor"].default == "2"
    assert parse_file("f", b"{}") == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "can't be read"),
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "has to hold an object"),
        (b'{"tutor": {"1": 90}}', "'tutor' has to have \"weights\""),
        (b'{"tutor": {"weights": {}}}', 'has to have "weights"'),
        (b'{"tutor": {"weights": {"1": 1}, "defualt": "1"}}', 'has to have "weights"'),
        (b'{"tutor": {"weights": {"1": true}}}', "the weight of tutor:1 has to be a whole number"),
        (b'{"tutor": {"weights": {"1": NaN}}}', "the weight of tutor:1 has to be a whole number"),
        (b'{"tutor": {"weights": {"1": 1, "1": 2}}}', "a key comes twice"),
        (b'{"tutor": {"weights": {"1": 1}, "default": "3"}}', "the default of tutor has to be one of its versions, 1"),
        (b'{"tutor": {"weights": {"1": 1}, "default": 1}}', "the default of tutor has to be one of its versions, 1"),
        (b" " * 1_000_001, "is larger than 1,000,000 bytes"),
    ],
)
def test_a_file_that_is_refused(content: bytes | None, said: str) -> None:
    with pytest.raises(StartError) as refused:
        parse_file("/etc/traffic.json", content)
    assert str(refused.value).startswith("TRAFFIC_FILE=/etc/traffic.json")
    assert said in str(refused.value)


@given(st.binary(max_size=200))
def test_any_other_file_is_refused_in_a_sentence(content: bytes) -> None:
    try:
        parse_file("f", content)
    except StartError as refused:
        assert len(str(refused)) < 500


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"TRAFFIC": "digits"}, "inference-server: TRAFFIC: 'digits' is not name:version=weight"),
        ({"TRAFFIC": "digits:1=1", "TRAFFIC_FILE": "x"}, "TRAFFIC and TRAFFIC_FILE are both set: leave one out."),
        ({"TRAFFIC_FILE": "/no/such"}, "TRAFFIC_FILE=/no/such can't be read"),
        (
            {"TRAFFIC": "digits:7=1"},
            "TRAFFIC has digits:7 as a default, and it is not loaded; loaded: digits:1, digits:2.",
        ),
    ],
)
def test_a_start_that_is_refused(settings: dict[str, str], said: str) -> None:
    ended = run("serve", MODEL_PATH=MODELS / "digits", HOST="127.0.0.1", PORT=free_port(), **settings)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def splitting() -> Iterator[Server]:
    """Both digits 50 : 50; tutor 9, which is not there, would get everybody."""
    with Server(TRAFFIC="digits:1=50,digits:2=50,tutor:1=0,tutor:9=1", GRPC_PORT=free_port()) as running:
        yield running


def count(server: Server, series: str) -> float:
    """A series' value, 0 where there is none."""
    for line in server.client.get("/metrics").text.splitlines():
        if line.startswith(f"{series} "):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


def test_users_stay(splitting: Server, samples: list[dict[str, Any]]) -> None:
    row = {"inputs": samples[0]["pixels"], "model": "digits"}
    split = Split({"1": 50, "2": 50}, "1")
    got = set()
    for user in ("ada", "grace", "alan", "edsger", "Frédéric", "李"):
        for _ in range(3):
            reply = splitting.client.post("/predict", json=row, headers={b"X-User-Id": user.encode()})
            version = reply.json()["version"]
            assert version == split.version(place_of("digits", user.encode())) == reply.headers["x-model-version"]
            got.add(version)
    assert got == {"1", "2"}


def test_users_stay_whichever_way_they_ask(splitting: Server, samples: list[dict[str, Any]]) -> None:
    client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{splitting.settings['GRPC_PORT']}")
    rows = tritonclient.grpc.InferInput("pixels", [1, 64], "FP32")
    rows.set_data_from_numpy(np.array([samples[0]["pixels"]], np.float32))
    tensor = {"name": "pixels", "datatype": "FP32", "shape": [1, 64], "data": samples[0]["pixels"]}
    split = Split({"1": 50, "2": 50}, "1")
    got = set()
    for user in map("user-{}".format, range(4)):
        version = split.version(place_of("digits", user.encode()))
        got.add(version)
        headers = {"x-user-id": user}
        for _ in range(3):
            assert client.infer("digits", [rows], headers=headers).get_response().model_version == version
            for path, body in (
                ("/invocations", {"instances": [samples[0]["pixels"]]}),
                ("/vertex/predict", {"instances": [samples[0]["pixels"]]}),
                ("/v2/models/digits/infer", {"inputs": [tensor]}),
            ):
                reply = splitting.client.post(path, json=body, headers=headers)
                assert reply.headers["x-model-version"] == version
    assert got == {"1", "2"}
    client.close()


def test_without_a_user_each_request_draws(splitting: Server, samples: list[dict[str, Any]]) -> None:
    row = {"inputs": samples[0]["pixels"]}
    for headers in ({}, {"X-User-Id": ""}):
        got = {splitting.client.post("/predict", json=row, headers=headers).json()["version"] for _ in range(40)}
        assert got == {"1", "2"}
    batch = splitting.client.post("/batch_predict", json={"inputs": [samples[0]["pixels"]] * 20})
    assert batch.json()["version"] == batch.headers["x-model-version"]


def test_who_names_a_version_gets_it(splitting: Server, samples: list[dict[str, Any]]) -> None:
    for version in ("1", "2"):
        row = {"inputs": samples[0]["pixels"], "model": f"digits:{version}"}
        assert {splitting.client.post("/predict", json=row).json()["version"] for _ in range(8)} == {version}


def test_the_default_answers_for_a_version_that_is_not_there(splitting: Server) -> None:
    series = 'inference_traffic_fallbacks_total{model="tutor",reason="not_loaded",version="9"}'
    before = count(splitting, series)
    chat = {"model": "tutor", "messages": [{"role": "user", "content": "What is a pod?"}], "max_tokens": 3}
    reply = splitting.client.post("/v1/chat/completions", json=chat)
    assert (reply.json()["model"], reply.headers["x-model-version"]) == ("tutor:1", "1")
    assert count(splitting, series) == before + 1
    assert count(splitting, 'inference_traffic_share_ratio{model="tutor",version="9"}') == 1
    listed = {model["id"]: model for model in splitting.client.get("/models").json()["models"]}
    assert [listed[name]["default_version"] for name in ("digits:1", "digits:2", "tutor:1")] == [True, False, True]
    assert [listed[name]["traffic_share"] for name in ("digits:1", "digits:2", "tutor:1")] == [0.5, 0.5, 0]


def test_openais_user(tmp_path: Path) -> None:
    """By OpenAI's own client: ``user``, its newer name, and the header, which goes before both."""
    models = two_tutors(tmp_path)
    split = Split({"1": 50, "2": 50}, "1")
    ones = [
        name for name in map("user-{}".format, range(100)) if split.version(place_of("tutor", name.encode())) == "1"
    ]
    twos = [
        name for name in map("user-{}".format, range(100)) if split.version(place_of("tutor", name.encode())) == "2"
    ]
    with Server(MODEL_PATH=models, TRAFFIC="tutor:1=50,tutor:2=50") as server:
        client = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)

        def ask(**more: Any) -> str:
            answer = client.chat.completions.create(
                model="tutor", messages=[{"role": "user", "content": "What is a pod?"}], max_tokens=2, **more
            )
            return str(answer.model)

        for one, two in zip(ones[:4], twos[:4], strict=True):
            assert (ask(user=one), ask(user=two)) == ("tutor:1", "tutor:2")
            assert (ask(safety_identifier=one), ask(safety_identifier=two)) == ("tutor:1", "tutor:2")
            assert ask(user=one, extra_headers={"X-User-Id": two}) == "tutor:2"
        assert {ask() for _ in range(40)} == {"tutor:1", "tutor:2"}
        bad = server.client.post(
            "/v1/chat/completions", json={"user": 5, "messages": [{"role": "user", "content": "What is a pod?"}]}
        )
        assert (bad.status_code, bad.json()["error"]["param"]) == (400, "user")
        odd = server.client.post(
            "/v1/chat/completions",
            content=b'{"user": "\\ud800", "max_tokens": 1, "messages": [{"role": "user", "content": "What is a pod?"}]}',
            headers={"Content-Type": "application/json"},
        )
        assert odd.status_code in (200, 400)


def two_tutors(folder: Path) -> Path:
    """The tutor twice, as versions 1 and 2; without the weights only transformers would read."""
    for version in ("1", "2"):
        for path in sorted((MODELS / "tutor" / "1").rglob("*")):
            if path.is_file() and path.suffix != ".safetensors":
                target = folder / "tutor" / version / path.relative_to(MODELS / "tutor" / "1")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    return folder


def test_the_file_is_read_again(tmp_path: Path, samples: list[dict[str, Any]]) -> None:
    """As Kubernetes mounts a ConfigMap: the name is a link through ``..data``, and that link is swapped."""

    def release(name: str, content: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "traffic.json").write_text(content)
        (tmp_path / "..data_tmp").symlink_to(name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    def split(one: int, two: int) -> str:
        return json.dumps({"digits": {"weights": {"1": one, "2": two}, "default": "1"}})

    def answering(server: Server) -> set[str]:
        row = {"inputs": samples[0]["pixels"]}
        return {server.client.post("/predict", json=row).json()["version"] for _ in range(30)}

    failures = "inference_traffic_load_failures_total"
    release("..first", split(1, 0))
    (tmp_path / "traffic.json").symlink_to("..data/traffic.json")
    with Server(MODEL_PATH=MODELS / "digits", TRAFFIC_FILE=tmp_path / "traffic.json") as server:
        assert answering(server) == {"1"}
        release("..second", split(0, 1))
        wait_for(lambda: answering(server) == {"2"}, 10)
        release("..third", '{"digits": ')
        wait_for(lambda: count(server, failures) == 1, 10)
        assert answering(server) == {"2"}
        said = [line["reason"] for line in server.lines() if line["message"] == "traffic stays as it was"]
        assert said == [
            f"TRAFFIC_FILE={tmp_path}/traffic.json is not JSON (Expecting value: line 1 column 12 (char 11))."
        ]
        (tmp_path / "traffic.json").unlink()
        wait_for(lambda: count(server, failures) == 2, 10)
        assert answering(server) == {"2"}
        (tmp_path / "traffic.json").write_text(split(1, 1))
        wait_for(lambda: answering(server) == {"1", "2"}, 10)
        assert count(server, failures) == 2
        assert server.terminate() == 0


def test_the_default_answers_for_a_version_that_is_unwell(samples: list[dict[str, Any]]) -> None:
    """In this process, because only here one of two engines can be hurt. One dead version makes the whole server unhealthy."""
    import asyncio
    import time

    import httpx
    from inference_server.app import create_app
    from inference_server.models import find_models
    from inference_server.registry import Registry
    from inference_server.serving import Phase, Serving
    from inference_server.settings import Settings

    serving = Serving(Settings())
    registry = Registry.load(find_models(MODELS / "digits"), serving.settings, serving.metrics)
    registry.direct(parse("digits:1=0,digits:2=1"), serving.metrics, strict=True)
    serving.loaded, serving.phase = registry, Phase.READY
    engine: Any = registry.models[1].engine
    row = {"inputs": samples[0]["pixels"]}

    def die() -> bool:
        raise MemoryError("sabotage")

    async def scene() -> None:
        transport = httpx.ASGITransport(app=create_app(serving))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            assert (await client.post("/predict", json=row)).json()["version"] == "2"
            engine.turn = die
            end = time.monotonic() + 60
            while engine.vitals().alive and time.monotonic() < end:
                await asyncio.sleep(0.05)
            reply = await client.post("/predict", json=row)
            assert (reply.status_code, reply.json()["version"]) == (200, "1")
            assert (await client.post("/predict", json={**row, "version": "2"})).status_code == 503
            health = await client.get("/health")
            assert (health.status_code, len(health.json()["problems"])) == (503, 1)
            assert health.json()["problems"][0].startswith("digits:2: ")
            said = 'inference_traffic_fallbacks_total{model="digits",reason="unwell",version="2"} 1.0'
            assert said in (await client.get("/metrics")).text

    asyncio.run(scene())
    registry.close()
