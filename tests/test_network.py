from dataclasses import replace

import numpy as np
import pytest

from photoz_lit.config import Config
from photoz_lit.errors import ConfigError
from photoz_lit.network import build, membership


def test_network_has_the_outputs_of_its_settings() -> None:
    config = Config()
    s = config.survey
    net = build(config, "images", (0, len(s.bands), s.pixels, s.pixels))
    assert net.head.n_bins == s.n_bins
    assert membership(config).shape[0] == s.n_slices
    np.testing.assert_array_equal(membership(replace(config, head="single")), np.ones((s.n_slices, 1)))


def test_encoder_that_reads_other_inputs_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"encoder=\w+ cannot read features: type encoder=mlp"):
        build(Config(), "features", (0, 2, 5))
