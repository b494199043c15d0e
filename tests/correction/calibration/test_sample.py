import numpy as np
import pytest
from biased_survey import (
    GRID,
    SDSS,
    SDSS_SLICES,
    SLICES,
    Golden,
    Reference,
    sample,
    survey,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from photoz_lit.correction.calibration.deconvolution import (
    expected_counts,
)
from photoz_lit.correction.calibration.sample import (
    Sample,
    held_out_weights,
    resample,
    target_weights,
    to_populated,
    wanted_numbers,
)
from photoz_lit.data.sampling import balanced_subset
from photoz_lit.grids import cell_counts, cell_index


def test_numbers_to_draw_are_the_references(golden: Golden) -> None:
    reference = Reference(golden, "cont")
    photo = cell_counts(reference.target_z, reference.target_r, SDSS, SDSS_SLICES)
    there = cell_counts(reference.spec_z, reference.r, SDSS, SDSS_SLICES)
    numbers = wanted_numbers(photo, 30000, there)
    np.testing.assert_array_equal(numbers, reference.step4["resample_counts_rowsfixed_cont"])
    rows = resample(reference.spec_z, reference.r, numbers, SDSS, SDSS_SLICES, np.random.default_rng(5))
    drawn = np.bincount(rows, minlength=len(reference.spec_z))
    cells = cell_index(reference.spec_z, reference.r, SDSS, SDSS_SLICES)
    np.testing.assert_array_equal(np.bincount(cells, drawn, numbers.size), numbers.ravel())
    enough = (numbers <= there).ravel()[cells]
    assert drawn[enough].max() == 1
    assert drawn[~enough].min() == 1
    # The reference draws once more where an empty cell's galaxies come from, but as many of each cell.
    theirs = reference.step4["resample_seed5_multiplicity_rowsfixed_cont"]
    np.testing.assert_array_equal(np.bincount(cells, theirs, numbers.size), numbers.ravel())


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(0, 5), min_size=12, max_size=12),
    there=st.lists(st.integers(0, 2), min_size=12, max_size=12),
)
def test_to_populated_keeps_every_galaxy_and_fills_no_empty_cell(counts: list[int], there: list[int]) -> None:
    wanted, available = np.reshape(counts, (2, 6)), np.reshape(there, (2, 6))
    moved = to_populated(wanted, available)
    assert not moved[available == 0].any()
    for s in range(2):
        assert moved[s].sum() == (wanted[s].sum() if available[s].any() else 0)


def test_to_populated_takes_the_nearest_bin_and_the_lower_of_two() -> None:
    np.testing.assert_array_equal(to_populated([[1, 2, 4, 8, 16]], [[0, 1, 0, 1, 0]]), [[0, 7, 0, 24, 0]])


def test_nothing_is_drawn_of_an_empty_cell() -> None:
    numbers = np.zeros((3, 80), dtype=int)
    numbers[0, 5] = 1
    with pytest.raises(ValueError, match="empty cell"):
        resample([0.2], [16.5], numbers, GRID, SLICES, np.random.default_rng(0))


def test_weights_are_the_mean_of_many_resamplings() -> None:
    one, (_, photo_z, r) = sample(2000), survey(3000, 2, 10.0)
    counts = expected_counts("photo", one, photo_z, r, GRID, SLICES)
    numbers = wanted_numbers(counts, 3000, one.counts(GRID, SLICES))
    rng, drawn, n = np.random.default_rng(0), np.zeros(2000), 200
    for _ in range(n):
        rows = resample(one.spec_z, one.dered_petro_r, numbers, GRID, SLICES, rng)
        drawn += np.bincount(rows, minlength=2000) / n
    weights = target_weights(one, counts, GRID, SLICES)
    assert weights.sum() == pytest.approx(3000)
    assert np.all(np.abs(drawn - weights) < 5 * np.sqrt(weights / n) + 0.01)
    assert np.corrcoef(drawn, weights)[0, 1] > 0.99


def test_held_out_galaxies_stand_for_their_cell() -> None:
    z, _, r = survey(5000, 3)
    fitted = np.zeros(5000, dtype=bool)
    fitted[balanced_subset(z, r, GRID, SLICES, 20)] = True
    weights = held_out_weights(z, r, fitted, GRID, SLICES)
    before = Sample(z, z, r, np.ones(5000)).counts(GRID, SLICES)
    np.testing.assert_allclose(Sample(z, z, r, weights).counts(GRID, SLICES), before)
    used = weights > 0
    assert used[~fitted].all()
    assert 0.1 < used[fitted].mean() < 0.9  # sparse cells have none but fitted ones
    assert not (used & fitted)[before[SLICES.index(r), GRID.index(z)] > 26].any()


def test_samples_say_what_is_wrong() -> None:
    good = np.full(3, 0.1)
    with pytest.raises(ValueError, match="one length"):
        Sample(good, good[:2], good, good)
    with pytest.raises(ValueError, match="positive weights"):
        Sample(good, good, good, np.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        Sample(good, np.array([0.1, np.nan, 0.1]), good, good)
    # What has no weight need not be finite.
    assert len(Sample(good, np.array([0.1, np.nan, 0.1]), good, np.array([1.0, 0, 1]))) == 2
