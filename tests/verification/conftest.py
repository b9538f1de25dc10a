"""Models that several tests of speculation share."""

import pytest

from tests.speculation import Speculation


@pytest.fixture(scope="session")
def speculation(tmp_path_factory: pytest.TempPathFactory) -> Speculation:
    return Speculation(tmp_path_factory.mktemp("speculation"))
