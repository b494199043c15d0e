import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from matplotlib.image import imread

from photoz_lit.report import mock_figure


def test_simulated_galaxies_with_and_without_a_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for band in "ugriz":
        fits.writeto(tmp_path / f"stamp-{band}.fits", np.ones((20, 20), np.float32))
    shapes = []
    for more in ([], ["--stamp", str(tmp_path)]):
        monkeypatch.setattr(sys, "argv", ["mock_figure", str(tmp_path / "a.png"), "--number", "6", *more])
        mock_figure.main()
        shapes.append(imread(tmp_path / "a.png").shape)
    assert shapes[0][1] == shapes[1][1] > 6 * 100
    assert shapes[1][0] == pytest.approx(2 * shapes[0][0], abs=1)  # a row more
