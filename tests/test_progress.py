import logging

import pytest

from photoz_lit import progress


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY", -1.0)
    with caplog.at_level(logging.INFO), progress.counted("galaxies", 100, 200, wanted=True) as tick:
        tick(50)
    assert "150 of 200 galaxies, " in caplog.text
    assert " a second, 0:00:0" in caplog.text
