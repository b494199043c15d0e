import time

import numpy as np
import pytest
from biased_survey import (
    EXPECTED,
    GRID,
    SLICES,
    sample,
    survey,
)

from photoz_lit.correction.calibration.deconvolution import (
    ITERATIONS,
    choose_iterations,
    deconvolve,
    error_distribution,
    expected_counts,
    n_of_z_shift,
    photo_z_counts,
    start_of,
)
from photoz_lit.correction.calibration.sample import (
    Sample,
)
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid, cell_counts


def test_error_distribution_finds_bias_and_scatter() -> None:
    errors = error_distribution(sample(40000), GRID, SLICES)
    np.testing.assert_allclose(errors.sum(axis=2), 1)
    for k in (10, 25, 40):
        z, row = GRID.centres[20 + k], errors[1, k]
        mean = row @ GRID.centres
        assert mean == pytest.approx(z + 0.1 * (z - 0.1), abs=0.0025)
        assert np.sqrt(row @ (GRID.centres - mean) ** 2) == pytest.approx(0.012 + 0.05 * z, rel=0.4)


def test_error_distribution_is_the_histogram_within_the_narrowest_window_of_100() -> None:
    # The definition, galaxy by galaxy. Few galaxies at high redshift make the windows differ, and some
    # estimates lie so far off that what is moved to other redshifts piles up at both ends.
    grid, one = RedshiftGrid(0.0, 0.4, 16, 3, 2), sample(600)
    photo_z = np.where(np.arange(600) % 40 == 0, np.arange(600) % 3 * 0.2, one.photo_z)
    one = Sample(one.spec_z, photo_z, one.dered_petro_r, np.random.default_rng(0).uniform(0.5, 2, 600))
    errors, every = error_distribution(one, grid, SLICES), np.arange(16)
    k, s = grid.index(one.spec_z), SLICES.index(one.dered_petro_r)
    offset = np.floor(one.photo_z / 0.025).astype(int) - k
    widths = set()
    for row_slice in range(3):
        w = one.weights * np.exp(-0.5 * ((s - row_slice) / 0.7) ** 2)
        counts = np.bincount(k, w, 16)
        for row in every:
            for width in (1, 2, 4, 8, 1e6):
                near = np.exp(-0.5 * ((every - row) / width) ** 2) * (np.abs(every - row) <= 4 * width)
                if near @ counts >= 100:
                    break
            widths.add(width)
            expected = np.zeros(21)
            for step in range(-4, 5):
                place = np.clip(row + offset + step + 3, 0, 20)
                expected += np.bincount(place, w * near[k], 21) * np.exp(-0.5 * step**2)
            np.testing.assert_allclose(errors[row_slice, row], expected / expected.sum(), atol=1e-6)
    assert len(widths) > 2


def test_deconvolution_undoes_a_known_convolution() -> None:
    truth = np.exp(-0.5 * ((np.arange(80) - 30) / 8) ** 2)
    truth = np.tile(truth / truth.sum(), (3, 1))
    errors = error_distribution(sample(), GRID, SLICES)
    photo = np.einsum("sk,skj->sj", truth, errors)
    flat = np.full((3, 80), 1 / 80)
    few, many = deconvolve(photo, errors, flat, [1, 2000])
    assert np.abs(many - truth).sum() < 0.1 * np.abs(few - truth).sum()
    assert min(few.min(), many.min()) >= 0
    np.testing.assert_allclose(many.sum(axis=1), 1)


def test_deconvolution_leaves_a_slice_without_galaxies_at_its_start() -> None:
    errors = error_distribution(sample(500), GRID, SLICES)
    start = np.full((3, 80), 1 / 80)
    np.testing.assert_allclose(deconvolve(np.zeros((3, 120)), errors, start, [5])[0], start)


def test_several_targets_are_deconvolved_as_each_alone() -> None:
    errors, rng = error_distribution(sample(500), GRID, SLICES), np.random.default_rng(0)
    photo, start = rng.uniform(size=(4, 3, 120)), rng.uniform(size=(4, 3, 80))
    photo[1, 2] = 0
    together = deconvolve(photo, errors, start, [1, 5])
    for t in range(4):
        for several, alone in zip(together, deconvolve(photo[t], errors, start[t], [1, 5]), strict=True):
            np.testing.assert_allclose(several[t], alone, rtol=1e-9)


@pytest.mark.parametrize("tilt", [-15.0, 12.0])
def test_deconvolved_recovers_a_distribution_better_than_photo(tilt: float) -> None:
    one, (spec_z, photo_z, r) = sample(), survey(5000, 7, tilt)
    truth = cell_counts(spec_z, r, GRID, SLICES)
    distance, n = {}, choose_iterations(one, len(photo_z), GRID, SLICES)
    for expected in EXPECTED[1:]:
        counts = expected_counts(expected, one, photo_z, r, GRID, SLICES, n)
        np.testing.assert_allclose(counts.sum(axis=1), truth.sum(axis=1))
        distance[expected] = np.abs(np.cumsum(counts - truth, axis=1)).sum()
    assert distance["deconvolved"] < 0.6 * distance["photo"]
    assert distance["deconvolved"] < 0.3 * distance["training"]


@pytest.mark.slow
@pytest.mark.parametrize("tilt", [-15.0, 12.0])
def test_deconvolved_is_as_good_and_soon_done_on_a_thousand_bins(tilt: float) -> None:
    # A deep survey's grid: as many bins, outputs and slices as CFHTLS has.
    grid, slices = RedshiftGrid(0.0, 0.4, 1000, 750, 750), MagnitudeSlices(15.0, 0.16, 19)
    one, (spec_z, photo_z, r) = sample(30000), survey(30000, 7, tilt)
    began = time.process_time()
    n = choose_iterations(one, len(photo_z), grid, slices)
    counts = {e: expected_counts(e, one, photo_z, r, grid, slices, n) for e in EXPECTED[1:]}
    assert time.process_time() - began < 60  # 6 s on one core; the arrays' plain formulae take many minutes
    truth = cell_counts(spec_z, r, grid, slices)
    distance = {e: np.abs(np.cumsum(n - truth, axis=1)).sum() for e, n in counts.items()}
    assert distance["deconvolved"] < 0.6 * distance["photo"]
    assert distance["deconvolved"] < 0.3 * distance["training"]


def test_small_targets_bear_no_more_iterations() -> None:
    one = sample(4000)
    few, many = (choose_iterations(one, n, GRID, SLICES) for n in (200, 20000))
    assert few <= many
    assert {few, many} <= set(ITERATIONS)


def test_start_is_nowhere_empty() -> None:
    photo = photo_z_counts([-0.05, 0.1, 0.45], [15.5] * 3, GRID, SLICES)
    start = start_of(np.zeros((3, 80)), photo, GRID)
    assert start.min() > 0
    assert {0, 79} < set(np.argsort(start[0])[-20:].tolist())


def test_one_n_of_z_is_rarely_told_from_itself_and_a_tilt_always() -> None:
    one = sample(4000)
    weighted = one.take(np.arange(4000), np.random.default_rng(0).choice([1.0, 4.0], 4000))
    for known in (one, weighted):
        same = [n_of_z_shift(known, *survey(1000, seed)[1:], SLICES) for seed in range(100, 200)]
        assert {shift.degrees for shift in same} == {6}
        assert sum(shift.expected == "deconvolved" for shift in same) <= 12  # 5 +- 2.2 by chance
        for tilt in (-8.0, 8.0):
            for seed in range(100, 120):
                shift = n_of_z_shift(known, *survey(1000, seed, tilt)[1:], SLICES)
                assert (shift.expected, "differs from" in str(shift)) == ("deconvolved", True)


def test_another_share_of_bright_galaxies_is_no_shift_of_n_of_z() -> None:
    _, photo_z, r = survey(4000, 3)
    bright = (r < 16) | (np.arange(4000) % 4 == 0)
    assert n_of_z_shift(sample(), photo_z[bright], r[bright], SLICES).expected == "training"


@pytest.mark.parametrize(("n", "n_target"), [(20000, 30), (99, 2000)])
def test_too_few_galaxies_are_not_compared(n: int, n_target: int) -> None:
    _, photo_z, r = survey(n_target, 3, 15.0)
    r = np.tile([15.5, 16.5, 17.5], n_target)[:n_target]
    shift = n_of_z_shift(sample(n), photo_z, r, SLICES)
    assert (shift.degrees, shift.expected) == (0, "training")
    assert str(shift).startswith("too few galaxies")


def test_unknown_distribution_is_refused() -> None:
    with pytest.raises(ValueError, match="expected must be"):
        expected_counts("flat", sample(10), [0.1], [16.0], GRID, SLICES)  # type: ignore[arg-type]
