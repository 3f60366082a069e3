"""Text completions, which LlamaIndex and older programs use."""

from typing import Any

import openai
import pytest

from engine.types import ChatRequest, Message, Sampling
from tests.openai_shim.conftest import Gateway, gateway
from tests.openai_shim.fakes import CHATTER, settings

ASK = {"model": CHATTER, "prompt": "Hello"}


def asked(prompt: str, sampling: Sampling | None = None) -> ChatRequest:
    return ChatRequest((Message("user", prompt),), CHATTER, sampling or Sampling(max_tokens=16))


async def test_the_openai_client_gets_one_choice_for_each_prompt(running: Gateway) -> None:
    answer = (await running.openai.completions.create(model=CHATTER, prompt=["a", "b"])).model_dump(
        exclude_unset=True
    )

    assert answer == {
        "id": answer["id"],
        "object": "text_completion",
        "created": answer["created"],
        "model": CHATTER,
        "system_fingerprint": "fp_0123456789ab",
        "choices": [
            {"index": 0, "text": "Hello", "logprobs": None, "finish_reason": "stop"},
            {"index": 1, "text": "Hello", "logprobs": None, "finish_reason": "stop"},
        ],
        "usage": {
            "prompt_tokens": 14,
            "completion_tokens": 4,
            "total_tokens": 18,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }
    assert running.engine.requests == [asked("a"), asked("b")]


async def test_a_stream_carries_the_same_text(running: Gateway) -> None:
    stream = await running.openai.completions.create(
        model=CHATTER, prompt="Hello", stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "Hello"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices] == [None, None, "stop"]
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [9]
    assert {chunk.object for chunk in chunks} == {"text_completion"}


@pytest.mark.parametrize("wanted", [True, False])
async def test_chunks_before_the_usage_say_that_it_comes(running: Gateway, wanted: bool) -> None:
    asked = {"model": CHATTER, "prompt": "Hello", "stream": True, "stream_options": {"include_usage": wanted}}

    reply = await running.http.post("/v1/completions", json=asked)

    chunks = [line for line in reply.text.split("\n\n") if '"choices":[{' in line]
    assert [chunk.endswith(',"usage":null}') for chunk in chunks] == [wanted] * 3


async def test_each_prompt_has_n_choices_and_counts_once(running: Gateway) -> None:
    asked_for: dict[str, Any] = {"model": CHATTER, "prompt": ["a", "b"], "n": 2, "seed": 5}
    whole = await running.openai.completions.create(**asked_for)
    stream = await running.openai.completions.create(
        **asked_for, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = [chunk async for chunk in stream]

    texts = dict.fromkeys(range(4), "")
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert {choice.index: choice.text for choice in whole.choices} == texts
    assert texts == dict.fromkeys(range(4), "Hello")
    assert last.usage == whole.usage
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (14, 8)
    assert (
        running.engine.requests
        == [asked(prompt, Sampling(max_tokens=16, seed=seed)) for prompt in "ab" for seed in (5, 6)] * 2
    )


@pytest.mark.parametrize(
    ("policy", "prompt", "texts"),
    [
        ("cl100k", [9906, 1917], ["Hello world"]),
        ("cl100k", [[9906], [1917]], ["Hello", " world"]),
        ("native", [72, 105], ["Hi"]),
    ],
)
async def test_token_ids_are_read_as_in_embeddings(policy: str, prompt: object, texts: list[str]) -> None:
    async with gateway(configured=settings(token_inputs=policy)) as running:
        reply = await running.http.post("/v1/completions", json=ASK | {"prompt": prompt})

    assert running.engine.requests == [asked(text) for text in texts]
    assert reply.headers["x-token-inputs"] == policy


async def test_token_ids_can_be_switched_off() -> None:
    async with gateway(configured=settings(token_inputs="reject")) as running:
        reply = await running.http.post("/v1/completions", json=ASK | {"prompt": [1]})

    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "prompt")


async def test_native_ids_outside_the_vocabulary_are_refused_by_their_prompt() -> None:
    async with gateway(configured=settings(token_inputs="native")) as running:
        reply = await running.http.post("/v1/completions", json=ASK | {"prompt": [[72], [256]]})

    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "prompt[1]")


async def test_sampling_fields_reach_the_engine(running: Gateway) -> None:
    fields = {"max_tokens": 3, "temperature": 0, "top_p": 0.5, "seed": 1, "stop": "x", "echo": False, "n": 1}
    fields |= {"best_of": 1}
    reply = await running.http.post("/v1/completions", json=ASK | fields)

    assert reply.status_code == 200
    assert running.engine.requests == [asked("Hello", Sampling(3, 0.0, 0.5, 1, ("x",)))]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [[9906], [999999]]}, "prompt[1]"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": ["a"] * 33, "n": 2}, "n"),
        ({"echo": True}, "echo"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": 1}, "logprobs"),
        ({"best_of": 2}, "best_of"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"n": 9}, "n"),
        ({"temperature": 99}, "temperature"),
    ],
    ids=str,
)
async def test_what_cannot_be_done_is_a_400_that_names_the_parameter(
    running: Gateway, fields: dict[str, object], param: str
) -> None:
    reply = await running.http.post("/v1/completions", json=ASK | fields)

    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert running.engine.requests == []


async def test_an_unknown_model_is_a_404(running: Gateway) -> None:
    with pytest.raises(openai.NotFoundError):
        await running.openai.completions.create(model="nope", prompt=["a", "b"])
