from collections.abc import Callable
from typing import Any

import pytest
from estimates import Reference


@pytest.fixture(scope="module", params=["cont", "quant"])
def reference(request: pytest.FixtureRequest, golden: Callable[[str], dict[str, Any]]) -> Reference:
    return Reference(golden("a1_metrics"), request.param)
