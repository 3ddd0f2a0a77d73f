"""The embedding engine is closed while it computes: everybody is told, nobody gets a bug."""

import asyncio

import pytest
from conftest import MODELS
from inference_server.engines.numpy_embed import EmbedEngine
from inference_server.models import find_models
from inference_server.settings import Settings


def test_an_engine_closed_in_mid_work_says_so() -> None:
    engine = EmbedEngine(next(spec for spec in find_models(MODELS) if spec.kind == "embed"), Settings())

    async def close() -> list[object]:
        asked = [asyncio.ensure_future(engine.embed(["a pod and an image " * 40] * 400)) for _ in range(3)]
        await asyncio.sleep(0.01)
        engine.close()
        return list(await asyncio.gather(*asked, return_exceptions=True))

    found = asyncio.run(close())
    assert [getattr(each, "code", each) for each in found] == ["engine_down"] * 3
    assert engine.vitals().running == engine.vitals().waiting == 0


def test_who_leaves_is_cancelled() -> None:
    engine = EmbedEngine(next(spec for spec in find_models(MODELS) if spec.kind == "embed"), Settings())

    async def leave() -> None:
        asked = asyncio.ensure_future(engine.embed(["a pod and an image " * 40] * 400))
        await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(leave())
    assert engine.vitals().waiting == 0
    engine.close()
