"""A store that the tests of a file share."""

from __future__ import annotations

import pytest

from pipelines.tracking.client import Tracker


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return Tracker(tmp_path_factory.mktemp("store"))
