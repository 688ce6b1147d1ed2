"""The corpus that every disturbed run must equal."""

from __future__ import annotations

import pytest
from runs import SLOW, Oracle, make_oracle


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return make_oracle(tmp_path_factory.mktemp("oracle"), provider_settings=SLOW)
