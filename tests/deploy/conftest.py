"""The chart with everything on."""

from typing import Any

import pytest

from tests.deploy.rendered import objects


@pytest.fixture(scope="session")
def everything() -> list[dict[str, Any]]:
    return objects("everything")
