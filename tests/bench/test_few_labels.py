"""What the curves of few labels are made of."""

from pathlib import Path

import few_labels
import numpy as np
import pytest
from command import magnitude_table


def test_no_galaxy_is_judged_that_was_learnt_from() -> None:
    for draw in range(3):
        for quick, least in ((False, 2500), (True, 0)):
            order, judged = few_labels.rows_of(draw, 5000, quick)
            assert not np.intersect1d(order, judged).size
            assert len(np.unique(order)) == len(order) == (1500 if quick else 4000)
            assert len(judged) == few_labels.N_TEST
            assert judged.min() >= least
            assert not quick or max(judged.max(), order.max()) < 2500


@pytest.mark.slow
def test_every_way_is_judged_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_labels, "N_TEST", 30)
    magnitude_table(160).write(tmp_path / "real.csv")
    found = few_labels.curves(tmp_path / "real.csv", (60,), 1, False)
    assert set(found["ways"]) == set(few_labels.LOOKS)
    for by_number in found["ways"].values():
        assert np.isfinite([one["crps"] for one in by_number[60]]).all()
    assert len(few_labels.draw_curves(found).axes) == 2
