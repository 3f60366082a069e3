"""What /metrics tells Prometheus. Names follow OpenTelemetry's gen_ai conventions where they have one."""

import time
from collections.abc import Iterator, Sequence
from http import HTTPMethod

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sanic import HTTPResponse

from engine.engine import Engine
from engine.types import EmbeddingWork
from openai_shim.http.context import Request, RequestAccount
from openai_shim.http.routes import Route

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""From one short embedding to a long answer on a slow machine."""


def metrics_routes(metrics: "Metrics") -> tuple[Route, ...]:
    async def scrape(request: Request) -> HTTPResponse:
        return HTTPResponse(metrics.text(), content_type=CONTENT_TYPE_LATEST)

    return (Route("GET", "/metrics", scrape),)


class Metrics:
    """Own registry: the library's global one would mix the gateways of one test run."""

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(EngineCollector(engine))
        self._requests = Counter(
            "npu_gateway_http_requests",
            "HTTP requests answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._duration = self._histogram(
            "request_duration", "From a request's arrival to the end of its reply."
        )
        self._first_token = self._histogram(
            "time_to_first_token", "From a request's arrival to its first token."
        )
        self._per_token = self._histogram("time_per_output_token", "Between tokens, after the first.")
        self._queued = self._histogram(
            "request_queue_time", "From a conversation's arrival to the first reading of its prompt."
        )
        self._tokens = Counter(
            "gen_ai_server_tokens",
            "Tokens read and written.",
            ["operation", "model", "token_type"],
            registry=self.registry,
        )
        self._devices = Counter(
            "npu_gateway_device_requests",
            "Requests by the device that computed them.",
            ["operation", "device"],
            registry=self.registry,
        )

    def _histogram(self, name: str, meaning: str) -> Histogram:
        return Histogram(
            f"gen_ai_server_{name}_seconds",
            meaning,
            ["operation", "model"],
            buckets=SECONDS,
            registry=self.registry,
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def record(self, request: Request, status: int) -> None:
        route = f"/{request.route.path}" if request.route else "unknown"
        method = request.method if request.method in HTTPMethod.__members__ else "unknown"  # it is any word
        self._requests.labels(method, route, status).inc()
        if request.ctx.account is not None:
            self.record_account(request.ctx.account, time.perf_counter(), request.ctx.started_at)

    def record_account(self, account: RequestAccount, now: float, started_at: float) -> None:
        """Times by time.perf_counter."""
        self._duration.labels(account.operation, account.model).observe(now - started_at)
        self._tokens.labels(account.operation, account.model, "input").inc(account.input_tokens)
        self._tokens.labels(account.operation, account.model, "output").inc(account.output_tokens)
        for device in account.devices:
            self._devices.labels(account.operation, device).inc()
        if account.first_token_at is not None:
            self._first_token.labels(account.operation, account.model).observe(
                account.first_token_at - started_at
            )
        for seconds in account.seconds_per_token:
            self._per_token.labels(account.operation, account.model).observe(seconds)
        for seconds in account.queue_seconds:
            self._queued.labels(account.operation, account.model).observe(seconds)


class EngineCollector(Collector):
    """What the engine knows by itself, read when asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        health = self._engine.health()
        yield GaugeMetricFamily("npu_gateway_uptime_seconds", "Since the start.", health.uptime_seconds)
        yield GaugeMetricFamily("npu_gateway_resident_bytes", "Of all processes.", health.memory.rss_bytes)
        queue = GaugeMetricFamily("npu_gateway_queue_length", "Waiting or running.", labels=["kind"])
        queue.add_metric(["embedding"], health.queue.embedding)
        queue.add_metric(["chat"], health.queue.chat)
        yield queue
        state = GaugeMetricFamily("npu_gateway_model_state", "1 for its state.", labels=["model", "state"])
        resident = GaugeMetricFamily("npu_gateway_model_resident_bytes", "Of its process.", labels=["model"])
        tokens = CounterMetricFamily("npu_gateway_model_tokens", "Read and written.", labels=["model"])
        for model in health.models:
            state.add_metric([model.id, model.state], 1)
            resident.add_metric([model.id], model.rss_bytes)
            tokens.add_metric([model.id], model.tokens)
        yield from (state, resident, tokens)
        yield from _embedding_families(self._engine.embedding_work())


_OF_DEVICE = {
    "batches": "Batches that were run.",
    "texts": "Texts in those batches.",
    "tokens": "Tokens of those texts, without padding.",
    "failed_batches": "Batches that the device could not run.",
    "expected_seconds": "Time that the batches were planned to take; 0 while there is no device to choose.",
    "actual_seconds": "Time that they took.",
    "queue_seconds": "Time that those texts waited, each until its batch began, added up.",
}
"""Fields of DeviceWork, each a counter."""


def _embedding_families(works: Sequence[EmbeddingWork]) -> Iterator[CounterMetricFamily]:
    for name, meaning in _OF_DEVICE.items():
        family = CounterMetricFamily(
            f"npu_gateway_embedding_{name}", meaning, labels=["model", "device", "up_to_tokens"]
        )
        for work in works:
            for done in work.devices:
                labels = [work.model, done.device, str(done.up_to_tokens)]
                family.add_metric(labels, getattr(done, name))
        yield family
    cache = CounterMetricFamily(
        "npu_gateway_embedding_cache", "Texts looked up.", labels=["model", "outcome"]
    )
    for work in works:
        cache.add_metric([work.model, "hit"], work.cache_hits)
        cache.add_metric([work.model, "miss"], work.cache_misses)
    yield cache
