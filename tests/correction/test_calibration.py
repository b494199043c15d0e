import inspect
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from photoz_lit import metrics
from photoz_lit.correction import calibration
from photoz_lit.correction.calibration import (
    ITERATIONS,
    Calibration,
    Expected,
    Sample,
    Smoothing,
    calibrate,
    choose_iterations,
    choose_smoothing,
    deconvolve,
    error_distribution,
    expected_counts,
    fit_binned,
    fit_smooth,
    held_out_weights,
    photo_z_counts,
    resample,
    start_of,
    target_weights,
    to_populated,
    wanted_numbers,
)
from photoz_lit.data.sampling import balanced_subset
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid, cell_counts, cell_index

Golden = Callable[[str], dict[str, Any]]
Floats = NDArray[np.float64]

EXPECTED: tuple[Expected, ...] = ("training", "photo", "deconvolved")
SMOOTHING: tuple[Smoothing, ...] = ("auto", "none")

GRID = RedshiftGrid(0.0, 0.4, 80, 20, 20)
SLICES = MagnitudeSlices(15.0, 1.0, 3)
SDSS = RedshiftGrid(0.0, 0.4, 180)
SDSS_SLICES = MagnitudeSlices(12.5, 0.5, 11)


def survey(n: int, seed: int, tilt: float = 0.0) -> tuple[Floats, Floats, Floats]:
    """Draw spec_z, photo_z, r: biased estimates whose scatter grows; a tilt moves spec_z up or down."""
    rng = np.random.default_rng(seed)
    z = rng.gamma(4.0, 0.03, 8 * n)
    z = z[z < 0.4]
    keep = np.exp(tilt * (z - 0.12))
    z = rng.choice(z, n, p=keep / keep.sum())
    r = np.clip(15.2 + 8 * z + rng.normal(0, 0.5, n), 15, 17.99)
    return z, z + 0.1 * (z - 0.1) + rng.normal(0, 0.012 + 0.05 * z), r


def sample(n: int = 20000, seed: int = 1) -> Sample:
    return Sample(*survey(n, seed), weights=np.ones(n))


def mean_residuals(spec_z: Floats, photo_z: Floats) -> float:
    """Mean over galaxies of abs(mean dz) of their photo_z bin."""
    binned = metrics.residuals_by_photo_z(spec_z, photo_z, GRID, min_count=100)
    return float(np.average(np.abs(binned.mean), weights=binned.count))


# The reference's own numbers


class Reference:
    """Golden training and target galaxies of one kind of estimates.

    The reference leaves out estimates that lie on the edge of a 0.01 bin; where rounding puts them on one
    side of it, they count there. Here bins are half-open and rounding does not decide. So the training
    galaxies on an edge are left out by hand and those beside it are moved off by 1e-10.
    """

    def __init__(self, golden: Golden, tag: str) -> None:
        self.step4, metrics_ = golden("a1_step4"), golden("a1_metrics")
        _, bins, sign, _ = self.step4["edge_coincidences"].T
        nudge, on_edge = np.zeros(SDSS.n_bins), np.zeros(SDSS.n_bins, dtype=bool)
        if tag == "quant":
            nudge[bins], on_edge[bins] = 1e-10 * sign, sign == 0
        self.spec_z, self.r = metrics_["zspec"], metrics_["r"]
        photo_z = metrics_[f"zphoto_{tag}"]
        self.photo_z, self.left_out = photo_z + nudge[SDSS.index(photo_z)], on_edge[SDSS.index(photo_z)]
        self.target_z, self.target_r = self.step4[f"test_zphoto_{tag}"], self.step4["test_r"]
        self.nudged = self.target_z + nudge[SDSS.index(self.target_z)]
        self.target_on_edge = on_edge[SDSS.index(self.target_z)]

    def corrected(self, multiplicity: Floats) -> Floats:
        """Correct the target with training galaxies that count so many times."""
        weights = np.where(self.left_out, 0.0, multiplicity)
        fit = fit_binned(Sample(self.spec_z, self.photo_z, self.r, weights), SDSS_SLICES)
        return fit.correct(self.nudged, self.target_r)


@pytest.mark.parametrize("tag", ["cont", "quant"])
@pytest.mark.parametrize("resampled", [False, True])
def test_correction_is_the_references(golden: Golden, tag: str, resampled: bool) -> None:
    reference = Reference(golden, tag)
    drawn = reference.step4["resample_seed5_multiplicity_rowsfixed_cont"].astype(float)
    corrected = reference.corrected(drawn if resampled else np.ones_like(drawn))
    name = "resampled" if resampled else "notresampled"
    expected = reference.step4[f"corr_{name}_rowsfixed_{tag}"]
    # The reference corrects neither estimates on an edge nor those in a bin without training galaxies; here
    # everyone is corrected.
    corrects = expected != reference.target_z
    np.testing.assert_allclose(corrected[corrects], expected[corrects], atol=3e-10)
    assert (~corrects[~reference.target_on_edge]).sum() < 80
    assert np.all(corrected[~corrects] != reference.target_z[~corrects])


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


# The pieces


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
    distance = {}
    for expected in EXPECTED:
        counts = expected_counts(expected, one, photo_z, r, GRID, SLICES)
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
    counts = {e: expected_counts(e, one, photo_z, r, grid, slices) for e in EXPECTED}
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


def test_unknown_distribution_is_refused() -> None:
    with pytest.raises(ValueError, match="expected must be"):
        expected_counts("flat", sample(10), [0.1], [16.0], GRID, SLICES)  # type: ignore[arg-type]


# The correction


@pytest.mark.parametrize("edge", [0.03, 0.07, 0.29])
def test_bins_are_half_open(edge: float) -> None:
    # On either side of an edge the residual is another; 0.07 / 0.01 and 0.29 / 0.01 round to below it.
    photo_z = np.array([edge - 0.005, edge + 0.005])
    fit = fit_binned(Sample(photo_z - [0.001, 0.002], photo_z, np.full(2, 16.5), np.ones(2)), SLICES)
    inside = np.array([edge - 0.01, edge - 1e-6, edge, edge + 0.00999])
    np.testing.assert_allclose(inside - fit.correct(inside, np.full(4, 16.5)), [0.001, 0.001, 0.002, 0.002])


@pytest.mark.parametrize("smooth", [False, True])
def test_every_galaxy_is_corrected(smooth: bool) -> None:
    z = np.repeat([0.1, 0.2], 50)
    one = Sample(z - np.where(z < 0.15, 0.01, 0.02), z, np.full(100, 16.5), np.ones(100))
    fit = fit_smooth(one, SLICES, 1.0, 0.0) if smooth else fit_binned(one, SLICES)
    photo_z, r = np.array([-1, 0.1, 0.12, 0.18, 0.2, 3]), np.array([10.0, 16.5, 17.5, 15.5, 16.5, 30])
    shift = photo_z - fit.correct(photo_z, r)
    np.testing.assert_allclose(shift, [0.01, 0.01, 0.01, 0.02, 0.02, 0.02], rtol=1e-6)


def test_smooth_correction_is_exact_for_a_straight_line() -> None:
    rng = np.random.default_rng(0)
    photo_z = rng.uniform(0.05, 0.35, 20000)
    one = Sample(photo_z - (0.01 - 0.1 * photo_z), photo_z, rng.uniform(15, 18, 20000), np.ones(20000))
    target, r = np.linspace(0.06, 0.34, 50), np.full(50, 16.2)
    binned, smooth = (
        fit.correct(target, r) - (target - (0.01 - 0.1 * target))
        for fit in (fit_binned(one, SLICES), fit_smooth(one, SLICES, 2.0, 0.5))
    )
    assert np.abs(smooth).max() < 1e-4
    assert np.abs(binned).max() > 3e-4


def test_more_noise_is_smoothed_more() -> None:
    def chosen(n: int) -> float:
        width, slice_width = choose_smoothing(sample(n), SLICES)
        return width * (1 + slice_width)

    assert chosen(300) > chosen(30000)


def test_smoothing_beats_plain_bins_on_few_galaxies() -> None:
    spec_z, photo_z, r = survey(20000, 5)
    mse = []
    for smoothing in SMOOTHING:
        fit, _ = calibrate(sample(1500), photo_z, r, GRID, SLICES, smoothing=smoothing)
        mse.append(np.mean((fit.correct(photo_z, r) - spec_z) ** 2))
    assert mse[0] < mse[1] < np.mean((photo_z - spec_z) ** 2) + 1e-5


@pytest.mark.parametrize("smoothing", SMOOTHING)
@pytest.mark.parametrize("resampled", [False, True])
def test_residuals_of_other_galaxies_vanish(smoothing: Smoothing, resampled: bool) -> None:
    spec_z, photo_z, r = survey(20000, 2)
    fit, facts = calibrate(
        sample(),
        photo_z,
        r,
        GRID,
        SLICES,
        smoothing=smoothing,
        resampled=resampled,
    )
    corrected = fit.correct(photo_z, r)
    assert mean_residuals(spec_z, photo_z) > 0.002
    assert mean_residuals(spec_z, corrected) < 0.0008
    slopes = [
        metrics.fit_line(metrics.residuals_by_photo_z(spec_z, z, GRID, min_count=10)).slope
        for z in (photo_z, corrected)
    ]
    assert abs(slopes[1]) < 0.25 * abs(slopes[0])
    assert facts.iterations == 0
    assert (facts.width > 0) == (smoothing == "auto")


@pytest.mark.parametrize("tilt", [-15.0, 12.0])
def test_deconvolved_beats_training_for_another_distribution(tilt: float) -> None:
    spec_z, photo_z, r = survey(20000, 11, tilt)
    left = {}
    for expected in EXPECTED:
        fit, facts = calibrate(sample(), photo_z, r, GRID, SLICES, expected=expected)
        left[expected] = mean_residuals(spec_z, fit.correct(photo_z, r))
        assert (facts.iterations > 0) == (expected == "deconvolved")
    assert left["deconvolved"] < 0.5 * left["training"]
    assert left["deconvolved"] < left["photo"]


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 12),
    seed=st.integers(0, 100),
    expected=st.sampled_from(EXPECTED),
    resampled=st.booleans(),
)
def test_a_handful_of_galaxies_is_no_error(n: int, seed: int, expected: Expected, resampled: bool) -> None:
    _, photo_z, r = survey(20, seed + 1000)
    fit, facts = calibrate(sample(n, seed), photo_z, r, GRID, SLICES, expected=expected, resampled=resampled)
    assert np.isfinite(fit.correct(photo_z, r)).all()
    assert 1 <= facts.n_effective <= facts.n_galaxies + 1e-9


def test_the_targets_spec_z_has_no_way_in() -> None:
    for function in (calibrate, expected_counts, Calibration.correct):
        names = set(inspect.signature(function).parameters)
        assert not {name for name in names if "spec" in name}, function
    assert set(inspect.signature(Calibration.correct).parameters) == {"self", "photo_z", "dered_petro_r"}


def test_same_seed_same_calibration() -> None:
    _, photo_z, r = survey(500, 2)
    first, second = (
        calibrate(sample(1000), photo_z, r, GRID, SLICES, expected="deconvolved", resampled=True, seed=4)[0]
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.table, second.table)


# Input that cannot be used


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


def test_estimates_that_are_not_finite_are_refused() -> None:
    fit = fit_binned(sample(100), SLICES)
    with pytest.raises(ValueError, match="finite"):
        fit.correct([0.1, np.nan], [16.0, 16.0])
    with pytest.raises(ValueError, match="one length"):
        fit.correct([0.1, 0.2], [16.0])


def test_module_is_numpy_and_scipy_only() -> None:
    assert not {"torch", "astropy"} & set(vars(calibration))


def test_differences_of_another_quantity_vanish_in_its_own_bins() -> None:
    # A stellar mass with estimates too low by 0.3 at the low end: bins of 0.1, no division by 1 + truth.
    rng = np.random.default_rng(3)
    truth = rng.uniform(9.0, 11.0, 4000)
    estimate = truth - np.where(truth < 10, 0.3, 0.0) + rng.normal(0, 0.02, 4000)
    r, grid = np.full(4000, 16.0), RedshiftGrid(8.0, 12.0, 40)
    slices = MagnitudeSlices(15.0, 1.0, 3)
    sample = Sample(truth, estimate, r, np.ones(4000))
    found, _ = calibrate(sample, estimate, r, grid, slices, smoothing="none", relative=False, bin_width=0.1)
    assert found.width == 0.1
    left = found.correct(estimate, r) - truth
    bins = np.floor(estimate / 0.1 + 1e-9)
    for k in np.unique(bins):
        assert abs(left[bins == k].mean()) < 1e-9
    smooth, facts = calibrate(sample, estimate, r, grid, slices, relative=False, bin_width=0.1)
    assert facts.width in calibration.WIDTHS
    assert np.abs(smooth.correct(estimate, r) - truth).mean() < 0.5 * np.abs(estimate - truth).mean()
