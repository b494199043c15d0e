import numpy as np
import pytest

from photoz_lit.correction.labels import gaussian_labels
from photoz_lit.correction.ordinal import ordinal_labels
from photoz_lit.grids import RedshiftGrid

GRID = RedshiftGrid(0.0, 0.4, 40, 5, 5)


def test_squared_metric_is_the_gaussian_label_of_step_3() -> None:
    k = np.array([0, 7, 39])
    labels = ordinal_labels(GRID.centres[k + 5], GRID, scale=2.5 * GRID.width)
    np.testing.assert_allclose(labels, gaussian_labels(k, 2.5, GRID), atol=1e-12)


def test_absolute_metric_falls_by_one_e_fold_a_scale() -> None:
    label = ordinal_labels(GRID.centres[[20]], GRID, scale=4 * GRID.width, metric="absolute")[0]
    assert label.sum() == pytest.approx(1)
    np.testing.assert_allclose(label[20] / label[[16, 24, 28]], np.exp([1, 1, 2]))


def test_a_small_scale_is_one_hot() -> None:
    np.testing.assert_allclose(ordinal_labels(GRID.centres, GRID, 1e-4), np.eye(50), atol=1e-12)


def test_labels_need_a_scale_and_a_known_metric() -> None:
    with pytest.raises(ValueError, match="scale > 0"):
        ordinal_labels([0.1], GRID, 0.0)
    with pytest.raises(ValueError, match="metric absolute or squared"):
        ordinal_labels([0.1], GRID, 0.1, "cubic")  # type: ignore[arg-type]
