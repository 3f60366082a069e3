"""All models of this machine: which can be asked, which are in memory, and what each of them is doing."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator

from engine.hosting.hosted import HostedModel
from engine.hosting.install import installed, verified
from engine.hosting.kinds import KINDS, Surroundings
from engine.hosting.stay import LoadedModel, ReportProgress
from engine.hosting.tally import Tally
from engine.models.catalogue import Catalogue
from engine.models.registry import MODELS, find, is_embedded
from engine.models.store import VERIFIED_FIRST_BYTES, InstalledModel, ModelStore
from engine.settings import Settings
from engine.types import ModelKind, ModelStatus

PREFERRED_CHAT = "phi-3-mini-4k-instruct"

TROUBLE_SECONDS = 0.5
"""How soon a model whose worker has failed is looked at."""


class Fleet:
    """`async with fleet.running():` keeps the catalogue fresh, and gives all memory back at the end."""

    def __init__(self, settings: Settings) -> None:
        self.catalogue = Catalogue(ModelStore(settings.home.models))
        self._settings = settings
        self._surroundings = Surroundings(settings, self._chat_active)
        self._hosted: dict[str, HostedModel] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        watching = asyncio.create_task(self.catalogue.watch(), name="watch of the installed models")
        try:
            yield
        finally:
            watching.cancel()
            closing = (hosted.close() for hosted in self._hosted.values())
            await asyncio.gather(watching, *closing, return_exceptions=True)

    def default(self, kind: ModelKind) -> str:
        """The id that a request without a model gets."""
        if kind == "embedding":
            return self._settings.embed
        if self._settings.chat:
            return self._settings.chat
        if self.catalogue.get(PREFERRED_CHAT):
            return PREFERRED_CHAT
        return next(spec.id for spec in MODELS if spec.kind == kind and spec.embedded)

    def kind(self, model_id: str) -> ModelKind:
        """What a model is for that is in memory, installed, or can come by itself. Raises ModelNotFound."""
        hosted = self._hosted.get(model_id)
        if hosted and hosted.state != "unloaded":
            return hosted.kind
        self.catalogue.look()  # it would have to be loaded: time enough to see whether it is still there
        return find(model_id).kind if is_embedded(model_id) else self.catalogue.require(model_id).kind

    def hosted(self, model_id: str) -> HostedModel:
        """Raises ModelNotFound."""
        kind = self.kind(model_id)
        if model_id not in self._hosted:
            minutes = self._settings.keep_alive_minutes
            kept_for_ever = kind == "embedding" or is_embedded(model_id) or not minutes
            self._hosted[model_id] = HostedModel(
                model_id,
                kind,
                lambda report: self._open(model_id, report),
                keep_alive_seconds=None if kept_for_ever else minutes * 60,
            )
        return self._hosted[model_id]

    @contextlib.asynccontextmanager
    async def _open(self, model_id: str, report: ReportProgress) -> AsyncGenerator[LoadedModel]:
        log_folder = self._settings.home.log
        found = await installed(self.catalogue, model_id, log_folder=log_folder, report=report)
        try:
            async with asyncio.TaskGroup() as group, KINDS[found.kind](found, self._surroundings) as model:
                verification = group.create_task(
                    self._verify(found, model), name=f"verification of {found.id}"
                )
                yield model
                verification.cancel()
        except* Exception as errors:  # noqa: BLE001 - raised again: the first of the two to fail
            raise errors.exceptions[0] from None

    async def _verify(self, found: InstalledModel, model: LoadedModel) -> None:
        """Large models are verified while they already answer; all of them whenever a worker has failed.

        Damage may have ended it. It ends the stay of the model, and the next one begins with fetching it
        again. Small models are verified before: by who opens them, and by each worker that starts.
        Raises ModelSupplyError.
        """
        in_doubt = found.size_bytes > VERIFIED_FIRST_BYTES
        while True:
            failures = model.worker_failures
            if in_doubt:
                await verified(self.catalogue, found)
            await asyncio.sleep(TROUBLE_SECONDS)
            in_doubt = model.worker_failures != failures

    def in_memory(self, kind: ModelKind) -> Iterator[LoadedModel]:
        for hosted in self._hosted.values():
            if hosted.kind == kind and hosted.model:
                yield hosted.model

    def loading(self, kind: ModelKind) -> bool:
        return any(hosted.kind == kind and hosted.state == "loading" for hosted in self._hosted.values())

    def status(self, model_id: str) -> ModelStatus:
        """Raises ModelNotFound."""
        self.kind(model_id)
        return self._status(model_id)

    def statuses(self) -> tuple[ModelStatus, ...]:
        """The installed models, and those that are still on their way or failed to come."""
        on_disk = [model.id for model in self.catalogue.list()]
        coming = (
            model_id
            for model_id, hosted in self._hosted.items()
            if model_id not in on_disk and hosted.state != "unloaded"
        )
        return tuple(self._status(model_id) for model_id in (*on_disk, *coming))

    def _status(self, model_id: str) -> ModelStatus:
        on_disk = self.catalogue.get(model_id)
        hosted = self._hosted.get(model_id)
        model = hosted.model if hosted else None
        facts = self.catalogue.facts(model_id) or find(model_id)
        tally = hosted.tally if hosted else Tally()
        return ModelStatus(
            id=model_id,
            kind=facts.kind,
            state=hosted.state if hosted else "unloaded",
            device=model.device if model else None,
            revision=on_disk.revision if on_disk else None,
            detail=hosted.detail if hosted else None,
            context_tokens=model.context_tokens if model else facts.context_tokens,
            dimensions=facts.dimensions,
            rss_bytes=model.rss_bytes() if model else 0,
            requests=tally.requests,
            tokens=tally.tokens,
            tokens_per_second=tally.tokens_per_second,
            installed_at=on_disk.installed_at if on_disk else None,
        )

    def _chat_active(self) -> bool:
        return any(model.in_flight for model in self.in_memory("chat"))
