"""The whole benchmark: an engine per device, each with its own worker processes."""

import datetime
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

import psutil

from engine.bench.chat import chat_speed
from engine.bench.embeddings import Texts, corpus_speed, length_speed, prepared
from engine.bench.results import (
    BenchReport,
    ChatSpeed,
    CorpusSpeed,
    LengthSpeed,
    MeasuredMachine,
    ProcessMemory,
)
from engine.bench.timing import QUICK, THOROUGH, Effort
from engine.daemon import find
from engine.embedding.devices.costs import LENGTHS
from engine.embedding.devices.npu_probe import NpuProbe, probe_npu
from engine.embedding.tokenizer import TextTokenizer
from engine.engine import Engine
from engine.errors import EngineError, GatewayRunning
from engine.hardware import physical_cores, processor_name
from engine.models.store import InstalledModel, ModelStore
from engine.settings import Settings
from engine.types import Device

PACKAGES = ("npu-gateway", "onnxruntime", "onnxruntime-genai", "onnxruntime-qnn", "tokenizers", "numpy")

Report = Callable[[str], None]
"""Says what is being measured."""


async def bench(settings: Settings, *, device: Device | None, quick: bool, report: Report) -> BenchReport:
    """device: measure this one only; None measures each there is, but not an emulated NPU.

    Raises GatewayRunning, ModelNotFound, and EngineError when `device` cannot be measured.
    """
    await _require_quiet(settings)
    embedding = _installed(settings)
    probe = probe_npu()
    machine = _machine(probe)
    devices, notes = choose_devices(device, probe)
    texts = Texts(
        TextTokenizer.load(embedding.folder, embedding.context_tokens),
        (QUICK if quick else THOROUGH).corpus_texts,
    )
    run = _Run(settings, texts, QUICK if quick else THOROUGH, report)
    for each in devices:
        await run.measure(each, with_chat=each == devices[-1])
    assert run.chat is not None
    return BenchReport(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        quick=quick,
        machine=machine,
        versions={name: found for name in PACKAGES if (found := _version(name))},
        embedding_model=embedding.id,
        lengths=tuple(run.lengths),
        corpus=tuple(run.corpus),
        chat=run.chat,
        resident=tuple(run.resident),
        notes=(*notes, *run.notes),
    )


def choose_devices(wanted: Device | None, probe: NpuProbe) -> tuple[Sequence[Device], Sequence[str]]:
    """What to measure, and notes about what is left out. Raises EngineError for an NPU that is not there."""
    status = probe.status
    if wanted == "npu" and not status.available:
        raise EngineError(f"There is no NPU to measure: {status.reason} See: npu-gateway doctor")
    if wanted:
        return (wanted,), ()
    if not status.available:
        return ("cpu",), (f"NPU not measured: {status.reason}",)
    if status.emulated:
        return ("cpu",), ("NPU not measured: it is emulated, so its times mean nothing.",)
    return ("cpu", "npu"), ()


class _Run:
    """Collects the measurements of one device after the other."""

    def __init__(self, settings: Settings, texts: Texts, effort: Effort, report: Report) -> None:
        self.lengths: list[LengthSpeed] = []
        self.corpus: list[CorpusSpeed] = []
        self.chat: ChatSpeed | None = None
        self.resident: list[ProcessMemory] = []
        self.notes: list[str] = []
        self._settings = settings
        self._texts = texts
        self._effort = effort
        self._report = report

    async def measure(self, device: Device, *, with_chat: bool) -> None:
        async with Engine.start(replace(self._settings, device=device)) as engine:
            self._report(f"Loading models ({device})")
            await prepared(engine)
            self._require_models(engine)
            await self._embeddings(engine, device)
            if with_chat:
                self._report("Chat")
                self.chat = await chat_speed(engine, self._effort)
            self._weigh(engine, device, with_chat=with_chat)

    async def _embeddings(self, engine: Engine, device: Device) -> None:
        for tokens in LENGTHS:
            self._report(f"Embeddings on {device}: {tokens} tokens")
            speed = await length_speed(engine, device, tokens, self._texts, self._effort)
            if speed is None:
                trouble = engine.model(engine.default_model("embedding")).detail or "it takes none"
                self.notes.append(f"Texts of {tokens} tokens not measured on {device}: {trouble}.")
            else:
                self.lengths.append(speed)
        self._report(f"Embeddings on {device}: docstrings")
        self.corpus.append(await corpus_speed(engine, self._texts))

    def _require_models(self, engine: Engine) -> None:
        for model in engine.models():
            if model.state == "failed":
                raise EngineError(f"{model.id} cannot be measured: {model.detail}")

    def _weigh(self, engine: Engine, device: Device, *, with_chat: bool) -> None:
        for model in engine.models():
            if model.rss_bytes and model.kind == "embedding":
                self.resident.append(ProcessMemory(f"{model.id} ({device})", model.rss_bytes))
            elif model.rss_bytes and with_chat:
                self.resident.append(ProcessMemory(model.id, model.rss_bytes))
        if with_chat:
            own = psutil.Process(os.getpid()).memory_info().rss
            self.resident.append(ProcessMemory("engine (this process)", own))


async def _require_quiet(settings: Settings) -> None:
    running = await find(settings.home)
    if running:
        raise GatewayRunning(
            f"The gateway at {running.url} holds the same models and would compete for this machine. "
            "End it first: npu-gateway stop",
            url=running.url,
        )


def _installed(settings: Settings) -> InstalledModel:
    """The embedding model. Raises ModelNotFound if it or the chat model is missing; fetches nothing."""
    store = ModelStore(settings.home.models)
    store.require(Engine(settings).default_model("chat"))
    return store.require(settings.embed)


def _machine(probe: NpuProbe) -> MeasuredMachine:
    return MeasuredMachine(
        processor=processor_name(),
        cores=physical_cores(),
        memory_bytes=psutil.virtual_memory().total,
        system=platform.platform(),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        npu=probe.status.name,
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # onnxruntime-qnn, without the extra npu
        return None
