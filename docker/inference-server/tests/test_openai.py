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
    assert [model.id for model in client.models.list()] == ["embedder", "embedder:1", "tutor:1", "tutor", "tutor:2"]
    assert client.models.retrieve("tutor:1").owned_by == "inference-server"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_chat(client: Any) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="tutor", messages=QUESTION, temperature=0, max_tokens=60
    )
    assert raw.headers["x-model-version"] == "2"
    answer = raw.parse()
    assert answer.model == "tutor:2"
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


def test_a_prompt_that_begins_like_another_says_how_much_was_known(server: Server, client: Any) -> None:
    counter = 'inference_cached_prompt_tokens_total{model="tutor",version="2"}'

    def counted() -> float:
        return float(
            next(line for line in httpx.get(f"{server.url}/metrics").text.splitlines() if counter in line).split()[-1]
        )

    rules = {"role": "system", "content": "Answer from this passage: a probe asks a container how it is. " * 5}
    usages, before = [], counted()
    for question in ("What does a probe ask?", "Whom does it ask?"):
        messages = [rules, {"role": "user", "content": question}]
        usages.append(client.chat.completions.create(model="tutor", messages=messages, max_tokens=5).usage)
    first, second = (usage.prompt_tokens_details.cached_tokens for usage in usages)
    assert first == 0
    assert usages[1].prompt_tokens - 40 < second < usages[1].prompt_tokens
    assert counted() - before == second


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
            "The model 'gpt-4o' is not loaded; loaded: digits:1, digits:2, embedder:1, tutor:1, tutor:2.",
        ),
        (
            {"model": "digits"},
            openai.BadRequestError,
            "digits:2 can't answer this kind of request: use POST /predict with rows.",
        ),
        ({"messages": []}, openai.BadRequestError, "messages: List should have at least 1 item"),
        ({"messages": [{"role": "robot", "content": "x"}]}, openai.BadRequestError, "messages.0.role: Input should be"),
        ({"n": 33}, openai.BadRequestError, "n is 33 and this server gives at most 32 answers: ask for fewer."),
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


def test_several_answers(client: Any) -> None:
    def ask(**options: Any) -> Any:
        return client.chat.completions.create(model="tutor", messages=QUESTION, max_tokens=20, seed=5, **options)

    one, four = ask(temperature=1.4), ask(temperature=1.4, n=4)
    texts = [choice.message.content for choice in four.choices]
    assert [choice.index for choice in four.choices] == [0, 1, 2, 3]
    assert texts[0] == one.choices[0].message.content
    assert len(set(texts)) > 1
    assert four.usage.prompt_tokens == one.usage.prompt_tokens
    assert four.usage.completion_tokens > one.usage.completion_tokens
    streamed = [""] * 4
    finishes = []
    for chunk in ask(temperature=1.4, n=4, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
            finishes += [choice.finish_reason] if choice.finish_reason else []
        usage = chunk.usage
    assert streamed == texts
    assert finishes == ["length"] * 4 or len(finishes) == 4
    assert usage == four.usage
    greedy = ask(n=16)
    assert {choice.message.content for choice in greedy.choices} == {ask().choices[0].message.content}


def test_logprobs_are_the_models_own(client: Any) -> None:
    """Compared with the model run alone, without server or sampler, also at a temperature and with a bias, which must not show."""
    import numpy as np
    from conftest import MODELS
    from inference_server.engines.chat import ChatTokenizer
    from inference_server.engines.onnx_slots import OnnxSlots
    from inference_server.models import find_models

    folder = MODELS / "tutor" / "2"
    model, tokenizer = OnnxSlots(find_models(folder)[0], 1, 1, 1024), ChatTokenizer(folder)
    options: dict[str, Any] = {"model": "tutor", "messages": QUESTION, "max_tokens": 12, "temperature": 1.2, "seed": 3}
    options |= {"logprobs": True, "top_logprobs": 3}
    choice = client.chat.completions.create(**options).choices[0]
    content = choice.logprobs.content
    assert bytes(byte for each in content for byte in each.bytes).decode() == choice.message.content
    ids, token = tokenizer.encode(QUESTION), 0
    by_bytes = {tokenizer.token_bytes(token): token for token in range(6, tokenizer.vocabulary)}
    for at, each in enumerate(content):
        logits = (model.step([token]) if at else model.prefill(0, ids)).reshape(-1).astype(np.float64)
        true = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        token = by_bytes[(b" " if at == 0 else b"") + bytes(each.bytes)]
        assert abs(each.logprob - true[token]) < 1e-3
        assert np.allclose([rival.logprob for rival in each.top_logprobs], np.sort(true)[::-1][:3], atol=1e-3)
    chunks = client.chat.completions.create(**options, stream=True)
    streamed = [item for chunk in chunks if chunk.choices[0].logprobs for item in chunk.choices[0].logprobs.content]
    assert [(item.token, round(item.logprob, 3)) for item in streamed] == [
        (item.token, round(item.logprob, 3)) for item in content
    ]


def test_stop_strings_never_leak(client: Any) -> None:
    def ask(**options: Any) -> Any:
        return client.chat.completions.create(model="tutor", messages=QUESTION, max_tokens=40, logprobs=True, **options)

    whole = ask().choices[0].message.content
    for stop in (whole[9:16], whole[3:5], whole[12:30]):
        chunks = list(ask(stop=[stop, "\0never"], stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text == whole[: whole.index(stop)]
        items = [item for chunk in chunks if chunk.choices[0].logprobs for item in chunk.choices[0].logprobs.content]
        read = bytes(byte for item in items for byte in item.bytes).decode()
        assert read.startswith(text)
        assert len(read) - len(text) < 20  # the token in which the stop string begins


def test_penalties_and_bias(client: Any) -> None:
    def ask(**options: Any) -> str:
        answer = client.completions.create(model="tutor", prompt="a a a a a a", max_tokens=30, **options)
        return str(answer.choices[0].text)

    plain = ask().split()
    penalised = ask(frequency_penalty=2, presence_penalty=2).split()
    assert len(set(penalised)) / len(penalised) >= len(set(plain)) / len(plain)
    first = client.completions.create(model="tutor", prompt=[[100, 200]], max_tokens=1, logprobs=5)
    drawn = first.choices[0].logprobs.tokens[0]
    from conftest import MODELS
    from inference_server.engines.chat import ChatTokenizer

    tokenizer = ChatTokenizer(MODELS / "tutor" / "2")
    token = next(i for i in range(tokenizer.vocabulary) if tokenizer.token_bytes(i) == drawn.encode())
    options: dict[str, Any] = {"model": "tutor", "prompt": [[100, 200]], "max_tokens": 1, "logprobs": 0}
    other = client.completions.create(**options, logit_bias={str(token): -100})
    assert other.choices[0].logprobs.tokens[0] != drawn
    forced = client.completions.create(**options, logit_bias={"321": 100})
    assert forced.choices[0].logprobs.tokens[0].encode() == tokenizer.token_bytes(321)


def test_completions(client: Any) -> None:
    one = client.completions.create(model="tutor", prompt="A Docker image is", max_tokens=8)
    assert one.object == "text_completion"
    assert one.usage.completion_tokens == 8
    assert one.choices[0].finish_reason == "length"
    echoed = client.completions.create(model="tutor", prompt="A Docker image is", max_tokens=8, echo=True)
    assert echoed.choices[0].text == "A Docker image is" + one.choices[0].text
    many = client.completions.create(model="tutor", prompt=["A Docker image is", "A pod is"], n=2, max_tokens=8)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    assert many.choices[0].text == many.choices[1].text == one.choices[0].text
    assert many.choices[2].text == many.choices[3].text != one.choices[0].text
    chunks = list(
        client.completions.create(
            model="tutor",
            prompt=["A Docker image is", "A pod is"],
            n=2,
            max_tokens=8,
            stream=True,
            echo=True,
            logprobs=None,
        )
    )
    streamed = [""] * 4
    for chunk in chunks:
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == ["A Docker image is" + one.choices[0].text] * 2 + ["A pod is" + many.choices[2].text] * 2
    marked = client.completions.create(model="tutor", prompt="A Docker image is", max_tokens=8, logprobs=2).choices[0]
    assert "".join(marked.logprobs.tokens) == marked.text == one.choices[0].text
    assert marked.logprobs.text_offset[1] == len(marked.logprobs.tokens[0])
    assert len(marked.logprobs.top_logprobs[0]) >= 2
    assert (
        len(client.completions.create(model="tutor", prompt="Hi").choices[0].text) > 0
    )  # 16 tokens when nothing is said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"suffix": "end"}, "does not support suffix"),
        ({"best_of": 3}, "does not support best_of=3"),
        ({"logprobs": 6}, "logprobs: Input should be less than or equal to 5"),
        ({"echo": True, "logprobs": 1}, "echo with logprobs"),
        ({"prompt": ""}, "prompt.constrained-str: String should have at least 1 character"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [99999]}, "prompt names a token that this model doesn't have"),
        ({"prompt": ["a"] * 257}, "There are 257 prompts and this server takes 256"),
        ({"prompt": ["a"] * 200, "n": 16}, "This asks for 3200 texts at once"),
        ({"prompt": "word " * 3000}, "tokens and this server takes 1023"),
    ],
)
def test_completion_errors(client: Any, change: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**{"model": "tutor", "prompt": "Hi", **change})
    assert said in refused.value.body["message"]


def test_embeddings(client: Any, server: Server) -> None:
    texts = ["What is a Docker image?", "what are docker images", "Prometheus scrapes metrics", "🐳!"]
    reply = client.embeddings.create(model="embedder", input=texts)  # the package asks for base64 and decodes it
    vectors = [item.embedding for item in reply.data]
    assert [item.index for item in reply.data] == [0, 1, 2, 3]
    assert {len(vector) for vector in vectors} == {384}
    assert reply.usage.prompt_tokens == reply.usage.total_tokens == 13

    def near(one: list[float], other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert all(abs(near(vector, vector) - 1) < 1e-5 for vector in vectors)
    assert near(vectors[0], vectors[1]) > 0.5 > near(vectors[0], vectors[2])
    floats = client.embeddings.create(model="embedder", input=texts[0], encoding_format="float").data[0].embedding
    assert max(abs(a - b) for a, b in zip(floats, vectors[0], strict=True)) < 1e-6
    short = client.embeddings.create(model="embedder:1", input=texts[0], dimensions=64).data[0].embedding
    assert len(short) == 64
    assert abs(near(short, short) - 1) < 1e-5
    for wrong, said in (
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [1, 2, 3]}, "send strings, not token ids"),
        ({"input": ["a", ""]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "dimensions": 385}, "dimensions is 385 and embedder:1 has 384"),
        ({"input": "word " * 1025}, "has 1025 words and this server takes 1024"),
        ({"input": "a", "model": "tutor"}, "tutor:2 can't answer this kind of request"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.embeddings.create(**{"model": "embedder", **wrong})
        assert said in refused.value.body["message"]
    assert server.client.post("/predict", json={"inputs": "a", "model": "embedder"}).status_code == 422


def test_the_embedding_model_finds_what_its_card_says() -> None:
    """Recall@3 of the committed model over the committed glossary, by the engine itself."""
    import asyncio
    import json
    import sys

    import numpy as np
    from conftest import MODELS, ROOT
    from inference_server.engines.numpy_embed import EmbedEngine
    from inference_server.models import find_models
    from inference_server.settings import Settings

    sys.path.insert(0, str(ROOT / "training" / "tutor"))
    from corpus import load

    entries = load().entries
    folder = MODELS / "embedder" / "1"
    engine = EmbedEngine(find_models(folder)[0], Settings())
    asked = [(question, at) for at, entry in enumerate(entries) for question in entry.heldout]
    queries, _ = asyncio.run(engine.embed([question for question, _ in asked]))
    answers, _ = asyncio.run(engine.embed([entry.answer for entry in entries]))
    engine.close()
    best = np.argsort(-(queries @ answers.T), axis=1, kind="stable")[:, :3]
    recall = float(np.mean([at in line for (_, at), line in zip(asked, best, strict=True)]))
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert abs(recall - card["metrics"]["recall_at_3"]) < 0.005
    assert recall > 0.9
    assert (folder / "model.npz").stat().st_size < 4 * 1024 * 1024
