"""What only a gateway with the real models can show: that computing ends, and that it does not begin."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.openai_shim.processes import CHATTER, ENDLESS

EMBEDDER = "bge-small-en-v1.5"
PLACES = 8
"""Conversations that advance together; a ninth waits."""
BRIEF = ENDLESS | {"max_tokens": 2}


async def queue(http: httpx2.AsyncClient, kind: str) -> int:
    length: int = (await http.get("/health")).json()["queue"][kind]
    return length


async def until(http: httpx2.AsyncClient, kind: str, holds: Callable[[int], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds(await queue(http, kind)):
            await asyncio.sleep(0.02)


Begin = Callable[[AsyncExitStack, httpx2.AsyncClient], Awaitable[None]]
"""Starts an endless answer; the end of the stack is the caller's departure."""


async def begin_whole(stack: AsyncExitStack, http: httpx2.AsyncClient) -> None:
    call = asyncio.create_task(http.post("/v1/chat/completions", json=ENDLESS))
    stack.callback(call.cancel)


async def begin_stream(stack: AsyncExitStack, http: httpx2.AsyncClient) -> None:
    asked = ENDLESS | {"stream": True}
    reply = await stack.enter_async_context(http.stream("POST", "/v1/chat/completions", json=asked))
    pieces = reply.aiter_bytes()
    stack.push_async_callback(pieces.aclose)  # forgotten, it would close the stream
    await anext(pieces)


async def begin_on_a_socket(stack: AsyncExitStack, http: httpx2.AsyncClient) -> None:
    url = f"ws://127.0.0.1:{http.base_url.port}/v1/chat/stream"
    socket = await stack.enter_async_context(connect(url, proxy=None))
    await socket.send(json.dumps(ENDLESS))
    await socket.recv()


@pytest.mark.parametrize("begin", [begin_whole, begin_stream, begin_on_a_socket])
async def test_callers_who_leave_free_their_places(http: httpx2.AsyncClient, begin: Begin) -> None:
    """Were one place of the eight still taken by an endless answer, they would not do for the last eight."""
    async with asyncio.timeout(60):
        async with AsyncExitStack() as stack:
            for _ in range(PLACES):
                await begin(stack, http)
            await until(http, "chat", lambda length: length == PLACES)

        await until(http, "chat", lambda length: length == 0)
        answer = await http.post("/v1/chat/completions", json=BRIEF)

    assert answer.json()["usage"]["completion_tokens"] == 2


async def test_the_texts_of_a_caller_who_leaves_are_not_embedded(http: httpx2.AsyncClient) -> None:
    texts = [f"{index} " + "some words of no meaning " * 50 for index in range(512)]
    before = await texts_embedded(http)
    call = asyncio.create_task(http.post("/v1/embeddings", json={"model": EMBEDDER, "input": texts}))
    await until(http, "embedding", lambda length: length > 0)

    call.cancel()

    await until(http, "embedding", lambda length: length == 0)
    assert await texts_embedded(http) < before + len(texts)


async def texts_embedded(http: httpx2.AsyncClient) -> float:
    metric = "npu_gateway_embedding_texts_total"
    lines = (await http.get("/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(metric))


REQUESTS = [
    ("/v1/embeddings", {"model": EMBEDDER, "input": "a text"}),
    ("/v1/chat/completions", BRIEF),
    ("/v1/chat/completions", BRIEF | {"stream": True}),
    ("/v1/completions", {"model": CHATTER, "prompt": "Hello", "max_tokens": 2}),
    ("/v1/responses", {"model": CHATTER, "input": "Hello", "max_output_tokens": 2}),
]


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"origin": "http://evil.example"}, 403), ({"origin": "null"}, 403), ({"host": "evil.example"}, 421)],
    ids=str,
)
async def test_strangers_make_no_model_work(
    http: httpx2.AsyncClient, headers: dict[str, str], status: int
) -> None:
    before = await work(http)

    replies = [(await http.post(path, json=body, headers=headers)).status_code for path, body in REQUESTS]
    with pytest.raises(InvalidStatus) as refused:
        await knock(http, headers)

    assert (replies, refused.value.response.status_code) == ([status] * len(REQUESTS), status)
    assert await work(http) == before
    await http.post("/v1/embeddings", json={"model": EMBEDDER, "input": "a text"})
    assert await work(http) != before  # work shows


async def knock(http: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    address: dict[str, Any] = {"host": http.base_url.host, "port": http.base_url.port}
    url = f"ws://{headers.get('host', 'localhost')}:{http.base_url.port}/v1/chat/stream"
    origin = headers.get("origin")
    async with connect(url, proxy=None, additional_headers={"origin": origin} if origin else {}, **address):
        pass


async def work(http: httpx2.AsyncClient) -> dict[str, tuple[int, int]]:
    """Per model: requests and tokens since the gateway started."""
    models = (await http.get("/health")).json()["models"]
    return {model["id"]: (model["requests"], model["tokens"]) for model in models}


QUESTION = {
    "model": CHATTER,
    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
}


async def test_choices_streamed_together_are_those_of_the_whole_answer(http: httpx2.AsyncClient) -> None:
    asked = QUESTION | {"n": 2, "seed": 7, "max_tokens": 24}
    whole = (await http.post("/v1/chat/completions", json=asked)).json()
    stream = await http.post("/v1/chat/completions", json=asked | {"stream": True})

    texts = ["", ""]
    for event in stream.text.split("\n\n")[:-2]:
        choice = json.loads(event.removeprefix("data: "))["choices"][0]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == [choice["message"]["content"] for choice in whole["choices"]]
    assert texts[0] != texts[1]


async def test_a_function_that_must_be_called_is_called_with_arguments_of_its_schema(
    http: httpx2.AsyncClient,
) -> None:
    parameters = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    function = {"name": "weather", "description": "The weather now", "parameters": parameters}
    asked = QUESTION | {"functions": [function], "function_call": {"name": "weather"}, "max_tokens": 60}
    choice = (await http.post("/v1/chat/completions", json=asked)).json()["choices"][0]
    called = choice["message"]
    result = {"role": "function", "name": "weather", "content": "rain"}
    again = QUESTION | {"messages": [*QUESTION["messages"], called, result], "max_tokens": 4}
    answer = await http.post("/v1/chat/completions", json=again)

    assert choice["finish_reason"] == "function_call"
    assert called["function_call"]["name"] == "weather"
    assert json.loads(called["function_call"]["arguments"])["city"] in ("Paris", "Rome")
    assert answer.status_code == 200


async def test_a_prompt_of_token_ids_is_the_prompt_of_their_text(http: httpx2.AsyncClient) -> None:
    """9906 and 1917 are " world" after "Hello" in cl100k_base, other words in the model's own vocabulary."""
    asked = {"model": CHATTER, "temperature": 0, "max_tokens": 8}
    texts = [
        (await http.post("/v1/completions", json=asked | {"prompt": prompt})).json()["choices"][0]["text"]
        for prompt in ("Hello world", [9906, 1917])
    ]

    assert texts[0] == texts[1] != ""
