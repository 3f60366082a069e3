"""What the registry promises about every model in it."""

import re

import pytest

from engine.models.registry import MODELS, HubSource, ModelSpec


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.id)
def test_every_file_is_pinned(spec: ModelSpec) -> None:
    """To its hash; and where it is part of a history, to a point in it. A branch would move."""
    hashes = [file.sha256 for source in spec.sources for file in source.files]
    commits = [source.commit for source in spec.sources if isinstance(source, HubSource)]

    assert [value for value in hashes if not re.fullmatch(r"[0-9a-f]{64}", value)] == []
    assert [value for value in commits if not re.fullmatch(r"[0-9a-f]{40}", value)] == []
