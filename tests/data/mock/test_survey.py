import numpy as np
import pytest

from photoz_lit.data.mock import survey
from photoz_lit.data.mock.measure import GRI
from photoz_lit.data.mock.population import R_FAINT
from photoz_lit.data.mock.survey import KEPT, Sky, measured, measured_on, observe
from photoz_lit.data.mock.templates import BANDS
from photoz_lit.data.sources import mock

SKY = Sky(seed=4, pixels=64)


@pytest.fixture(scope="module")
def observed():
    return observe(150, SKY, map)


def test_galaxies_do_not_depend_on_the_size_of_the_survey(observed):
    few = observe(20, SKY, map)
    for name in observed.colnames:
        np.testing.assert_array_equal(few[name], observed[name][:20])
    assert len(np.unique(observed["object_id"])) == 150


def test_selection_acts_on_what_is_measured(observed):
    r = measured(observed, SKY.draw(observed))["dered_petro_r"]
    faint = np.asarray(observed["true_petro_r"] > R_FAINT - survey.CERTAIN)
    assert (r[faint] < R_FAINT).all()
    assert (r < R_FAINT + 0.05).all()  # ones that are certain to be bright enough are not asked
    assert (observed["true_petro_r"] > R_FAINT).any()  # and measured brighter
    assert set(KEPT) <= set(observed.colnames)


def test_the_table_gets_what_is_measured_on_the_cutouts(observed, monkeypatch):
    monkeypatch.setattr(survey, "CHUNK", 40)
    cutouts = SKY.draw(observed).astype(np.float16)
    table = measured_on(observed, observed[["object_id", "spec_z"]], cutouts, map)
    columns = measured(observed, cutouts)
    assert set(columns) >= {
        "dered_petro_r",
        *(f"{kind}_{band}" for kind in ("mag", "mag_err") for band in BANDS),
    }
    for name, values in columns.items():
        np.testing.assert_allclose(table[name], values, rtol=1e-5)
        assert np.isfinite(table[name]).all()
    bright = np.asarray(observed["true_petro_r"] > 16)
    assert np.median(np.abs(table["dered_petro_r"] - observed["true_petro_r"])[bright]) < 0.1


def test_what_is_drawn_and_measured_to_be_selected_is_what_is_kept_in_these_bands(observed):
    few, whole = observed[:40], SKY.draw(observed[:40])
    part = SKY.draw(few, GRI)
    noise = whole[:, GRI, :8, :8].std(axis=(2, 3), keepdims=True)
    assert (np.abs(part - whole[:, GRI]) < 1e-3 * noise).all()
    r, expected = (measured(few, a, b)["dered_petro_r"] for a, b in ((part, GRI), (whole, survey.ALL)))
    np.testing.assert_allclose(r, expected, atol=1e-5)


@pytest.mark.parametrize("start", [0, 7, 20, 45])
@pytest.mark.parametrize("bright", [False, True])
def test_what_is_measured_while_it_is_drawn_is_what_is_measured_of_a_store(
    observed, start, bright, monkeypatch
):
    monkeypatch.setattr(survey, "CHUNK", 20)
    few = observed[:50].copy()
    if bright:  # float16 cannot hold it
        for band in BANDS:
            few[f"true_bulge_{band}"][47] *= 1e7
    drawn = mock._Drawn(few, SKY, map, measures=True)
    stored = np.concatenate([SKY.draw(few[:start]).astype(np.float16), *drawn.chunks(start)])
    fits = [drawn.inspect(part).fits_half for part in drawn.chunks(start)]
    assert all(fits) is not bright
    assert drawn.half is not bright
    if bright:  # the store is begun again, in float32
        stored = np.concatenate(list(drawn.chunks(0)))
        assert stored.dtype == np.float32
        np.testing.assert_array_equal(stored, SKY.draw(few))
    table = drawn.complete(few[["object_id"]], stored)
    expected = measured_on(few, few[["object_id"]], stored, map)
    for name in expected.colnames:
        np.testing.assert_array_equal(table[name], expected[name])
