"""OpenAI's contract, asked by OpenAI's own client."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from conftest import Server

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


QUESTION = [{"role": "system", "content": "Answer in short."}, {"role": "user", "content": "What is a Docker image?"}]


def test_models(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["embedder", "embedder:1", "tutor", "tutor:1"]
    assert client.models.retrieve("tutor:1").owned_by == "inference-server"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_chat(client: Any) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="tutor", messages=QUESTION, temperature=0, max_tokens=60
    )
    assert raw.headers["x-model-version"] == "1"
    answer = raw.parse()
    assert answer.model == "tutor:1"
    assert answer.object == "chat.completion"
    choice = answer.choices[0]
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert 0 < answer.usage.completion_tokens <= 60


def test_stream_is_the_same_answer_in_pieces(client: Any) -> None:
    whole = client.chat.completions.create(model="tutor", messages=QUESTION, max_tokens=40)
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(
            model="tutor", messages=QUESTION, max_tokens=40, stream=True, stream_options=options
        )
    )
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) > 3
    assert "".join(pieces) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_stream_without_usage(client: Any) -> None:
    chunks = list(client.chat.completions.create(model="tutor", messages=QUESTION, max_tokens=5, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_message_parts_and_developer_role(client: Any) -> None:
    parts = [{"type": "text", "text": "What is a "}, {"type": "text", "text": "Docker image?"}]
    messages = [{"role": "developer", "content": "Answer in short."}, {"role": "user", "content": parts}]
    one = client.chat.completions.create(model="tutor", messages=messages, max_tokens=30)
    two = client.chat.completions.create(model="tutor", messages=QUESTION, max_completion_tokens=30)
    assert one.choices[0].message.content == two.choices[0].message.content
    assert one.usage == two.usage


def test_stop_and_seed(client: Any) -> None:
    def ask(**options: Any) -> Any:
        return client.chat.completions.create(model="tutor", messages=QUESTION, max_tokens=30, **options).choices[0]

    whole = ask().message.content
    stopped = ask(stop=[whole[5:9]])
    assert stopped.message.content == whole[: whole.index(whole[5:9])]
    assert stopped.finish_reason == "stop"
    assert ask(temperature=1.3, seed=7).message.content == ask(temperature=1.3, seed=7).message.content


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (
            {"model": "gpt-4o"},
            openai.NotFoundError,
            "The model 'gpt-4o' is not loaded; loaded: digits:1, digits:2, embedder:1, tutor:1.",
        ),
        (
            {"model": "digits"},
            openai.BadRequestError,
            "digits:2 can't answer this kind of request: use POST /predict with rows.",
        ),
        ({"messages": []}, openai.BadRequestError, "messages: List should have at least 1 item"),
        ({"messages": [{"role": "robot", "content": "x"}]}, openai.BadRequestError, "messages.0.role: Input should be"),
        ({"n": 17}, openai.BadRequestError, "n is 17 and this server gives at most 16 answers: ask for fewer."),
        ({"top_logprobs": 3}, openai.BadRequestError, "top_logprobs needs logprobs: true beside it."),
        ({"logprobs": True, "top_logprobs": 21}, openai.BadRequestError, "top_logprobs: Input should be less than"),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, "does not support tools="),
        ({"logit_bias": {"99999": 1}}, openai.BadRequestError, "its ids go from 0 to 3071"),
        ({"logit_bias": {"x": 1}}, openai.BadRequestError, "logit_bias"),
        ({"max_tokens": "5"}, openai.BadRequestError, "max_tokens: Input should be a valid integer"),
        ({"model": "embedder"}, openai.BadRequestError, "embedder:1 can't answer this kind of request"),
        ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "does not support response_format"),
        ({"temperature": 3}, openai.BadRequestError, "temperature: Input should be less than or equal to 2"),
        ({"max_tokens": 100_000}, openai.BadRequestError, "max_tokens is 100000 and this server gives at most 512"),
        (
            {"messages": [{"role": "user", "content": "word " * 5000}]},
            openai.BadRequestError,
            "tokens and this server takes 1023",
        ),
        (
            {"stop": ["a", "b", "c", "d", "e"]},
            openai.BadRequestError,
            "There can be 4 stop strings; this request has 5.",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors(client: Any, change: dict[str, Any], error: type[Exception], said: str, stream: bool) -> None:
    with pytest.raises(error) as refused:
        client.chat.completions.create(**{"model": "tutor", "messages": QUESTION, "stream": stream, **change})
    assert said in refused.value.body["message"]  # type: ignore[attr-defined]
    assert refused.value.body["type"] == "invalid_request_error"  # type: ignore[attr-defined]


def test_what_changes_nothing_is_accepted(client: Any) -> None:
    options: dict[str, Any] = {
        "user": "me",
        "n": 1,
        "presence_penalty": 0,
        "response_format": {"type": "text"},
        "metadata": {"a": "b"},
    }
    assert client.chat.completions.create(model="tutor", messages=QUESTION, max_tokens=3, **options).choices


def test_chat_page(server: Server) -> None:
    reply = httpx.get(server.url)
    assert reply.headers["content-type"].startswith("text/html")
    assert "stand-in" in reply.text
    assert "http://" not in reply.text.replace("http://www.w3.org", "")
    assert "https://" not in reply.text
    assert "default-src 'none'" in reply.headers["content-security-policy"]
