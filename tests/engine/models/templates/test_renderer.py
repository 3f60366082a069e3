"""A chat template is a program: one that does harm is stopped, at import and at use."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from engine.chat.chat_messages import ChatReady
from engine.errors import BadInput, EngineError, ModelSupplyError
from engine.models.pull import import_gguf
from engine.models.store import ModelStore
from engine.models.templates import renderer
from engine.models.templates.renderer import TemplateRenderer
from engine.types import ChatFinished
from tests.engine.chat.worker_client import chat_worker
from tests.engine.models.gguf_files import LLAMA_TEMPLATE, TinyGguf

TEMPLATE_WORKER = "engine.models.templates.template_worker"
ENDS = ChatFinished | EngineError
FOREVER = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"
DOUBLING = "{% set ns = namespace(x='ab') %}{% for a in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"
HOSTILE = {
    "loops": FOREVER,
    "doubles a text": DOUBLING,
    "repeats a text": "{{ ('a' * 2000000000)|length }}",
    "calls itself": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "nests blocks": "{% if true %}" * 20_000 + "{% endif %}" * 20_000,
    "nests parentheses": "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
    "writes much for little": "{% for a in range(100000) %}abcdefghij{% endfor %}",
    "is unfinished": "{% for a in messages %}",
    "calls what is not there": "{{ nothing.at.all() }}",
    "doubles with every message": (
        "{% set ns = namespace(x='ab') %}{% for m in messages %}{% set ns.x = ns.x + ns.x %}{% endfor %}x"
    ),
}


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def imported(store: ModelStore, template: str) -> Path:
    file = TinyGguf(layers=1, chat_template=template).write(store.folder.parent / "tiny.gguf")
    return import_gguf(store, file, model_id="tiny").folder


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_a_model_whose_template_does_harm_is_not_imported(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    monkeypatch.setattr(renderer, "_LOAD_SECONDS", 2.0)
    with pytest.raises(ModelSupplyError, match="The chat template of tiny ") as refused:
        imported(store, template)

    assert "\n" not in str(refused.value)
    assert store.list() == ()


SLEEPERS = {
    "loops": FOREVER,
    "doubles a text": DOUBLING,
    "calls itself": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
}


@pytest.mark.parametrize("harm", SLEEPERS.values(), ids=SLEEPERS)
def test_a_template_that_does_harm_to_one_conversation_ends_that_one_only(
    store: ModelStore, harm: str
) -> None:
    folder = imported(store, "{% if messages[0].content == 'NOW' %}" + harm + "{% endif %}" + LLAMA_TEMPLATE)
    with chat_worker(folder) as worker:
        assert isinstance(worker.receive(), ChatReady)

        refused = worker.refusal(worker.ask("NOW"))

        assert isinstance(refused, BadInput)
        assert refused.field == "messages"
        assert str(refused).startswith("The chat template of tiny ")
        assert worker.answer("hello", max_tokens=5)[1].usage.completion_tokens > 0


def test_nobody_waits_for_a_template_that_loops(store: ModelStore) -> None:
    folder = imported(
        store, "{% if messages[0].content == 'NOW' %}" + FOREVER + "{% endif %}" + LLAMA_TEMPLATE
    )
    with chat_worker(folder) as worker:
        assert isinstance(worker.receive(), ChatReady)
        running = worker.ask("hello", max_tokens=20)
        looping = worker.ask("NOW")

        ended = [whose for whose, what in worker.replies(running, looping) if isinstance(what, ENDS)]

        assert ended == [running, looping]


def test_the_process_of_a_template_ends_with_its_user(store: ModelStore) -> None:
    with chat_worker(imported(store, LLAMA_TEMPLATE)) as worker:
        assert isinstance(worker.receive(), ChatReady)
        template = _template_of(psutil.Process(worker.process.pid))

        worker.process.kill()

        assert psutil.wait_procs([template], timeout=20) == ([template], [])


def test_a_template_that_loops_ends_even_if_nobody_is_left_to_stop_it(store: ModelStore) -> None:
    folder = imported(
        store, "{% if messages[0].content == 'NOW' %}" + FOREVER + "{% endif %}" + LLAMA_TEMPLATE
    )
    with chat_worker(folder) as worker:
        assert isinstance(worker.receive(), ChatReady)
        template = _template_of(psutil.Process(worker.process.pid))
        began = template.cpu_times().user
        worker.ask("NOW")
        _eventually(lambda: template.cpu_times().user > began + 0.2)

        worker.process.kill()

        assert psutil.wait_procs([template], timeout=20) == ([template], [])


def test_a_template_whose_process_was_ended_by_others_is_started_again(store: ModelStore) -> None:
    messages = json.dumps([{"role": "user", "content": "hello"}])
    with TemplateRenderer(imported(store, LLAMA_TEMPLATE), "tiny") as tiny:
        prompt = tiny.render(messages)
        template = _template_of(psutil.Process())
        template.kill()
        psutil.wait_procs([template], timeout=20)

        assert tiny.render(messages) == prompt


def _template_of(user: psutil.Process) -> psutil.Process:
    (template,) = (child for child in user.children() if TEMPLATE_WORKER in child.cmdline())
    return template


def _eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 20 s"
        time.sleep(0.01)
