"""The installed models, known without asking the disk: requests must not wait for it."""

import asyncio

from engine.errors import ModelNotFound
from engine.models.store import InstalledModel, ModelStore

LOOK_SECONDS = 2.0
"""A model that another process has removed or replaced is noticed after so long; a new one at once."""


class Catalogue:
    """What the store holds: read at the start, and again when its folders have changed."""

    def __init__(self, store: ModelStore) -> None:
        self.store = store
        self._models: dict[str, InstalledModel] = {}
        self._facts: dict[str, InstalledModel] = {}
        self._read_at: tuple[tuple[str, int, int], ...] | None = None
        self.look()

    def list(self) -> tuple[InstalledModel, ...]:
        return tuple(self._models.values())

    def get(self, model_id: str) -> InstalledModel | None:
        return self._models.get(model_id)

    def facts(self, model_id: str) -> InstalledModel | None:
        """What was last known of a model, though it may be damaged or gone by now."""
        return self._facts.get(model_id)

    def require(self, model_id: str) -> InstalledModel:
        """One that is not known may just have been installed: only that is worth a look at the disk.

        Raises ModelNotFound, naming the command that fetches the model or else the models there are.
        """
        if model_id not in self._models:
            self.look()
        try:
            return self._models[model_id]
        except KeyError:
            raise ModelNotFound(self.store.why_missing(model_id)) from None

    def look(self) -> None:
        """Read the manifests anew if a folder has changed."""
        state = self.store.state()
        if state != self._read_at:  # two threads may both find it so, and read the same
            self._models = {model.id: model for model in self.store.list()}
            self._facts |= self._models
            self._read_at = state

    async def watch(self) -> None:
        """Never returns."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self.look)
