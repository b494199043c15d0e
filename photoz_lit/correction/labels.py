"""Soft and shifted labels of Step 3 (Lin et al. 2022, section 4.3): one table for all galaxies.

A label depends on a galaxy's redshift bin and magnitude slice only. All widths and means here are in units of
bins and on the survey's own bin index: bin k's centre is at k, the extended grid runs from -left to K - 1 +
right. Of the balanced subset, `counts` (S, K) is the histogram of spec_z in each slice and `sigma_2` (R, K)
the scatter of each output.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.dispersion import fit_dispersion, output_histogram, scatter
from photoz_lit.grids import Bools, Floats, Ints, MagnitudeSlices, RedshiftGrid, cell_counts, nearest_true

Shift = Literal["mirror", "centre_of_mass", "none"]

ONE_HOT_BELOW = 0.1  # softening width in bins below which a label is one-hot


def centre_of_mass(counts: ArrayLike, sigma_2: ArrayLike) -> Floats:
    """Centre of mass (S, K, R) of each bin's Gaussian of width sigma_2, weighted with the slice's galaxies.

    The Gaussian ends with the original redshift range, because no galaxy lies beyond it. A slice without
    galaxies pulls nothing: its centre is the bin itself. Where the Gaussian reaches no galaxy at all, it is
    the nearest populated bin, its limit.
    """
    n, width = np.asarray(counts, dtype=np.float64), np.asarray(sigma_2, dtype=np.float64)
    n_slices, n_bins = n.shape
    bins = np.arange(n_bins)
    offset = (bins[None, :] - bins[:, None]).astype(np.float64)
    nearest = np.stack([nearest_true(row > 0) if row.any() else bins for row in n])
    centre = np.empty((n_slices, n_bins, len(width)))
    for i, sigma in enumerate(width):
        weight = np.exp(-0.5 * (offset / sigma[:, None]) ** 2)
        total = (weight @ n.T).T
        pull = np.divide(((weight * offset) @ n.T).T, total, out=np.zeros_like(total), where=total > 0)
        centre[:, :, i] = np.where(total > 0, bins + pull, nearest)
    return centre


def shifted_mean(
    counts: ArrayLike, sigma_2: ArrayLike, shift: Shift = "mirror", strength: float = 1.0
) -> Floats:
    """Mean (S, K, R) of the label of each slice, bin and output, moved against the pull of the truncation.

    With c the centre of mass: "mirror" moves bin k to 2 k - c (the paper), "centre_of_mass" to c (the talk),
    "none" leaves it. `strength` multiplies the shift; 1 is the paper's.
    """
    n = np.asarray(counts, dtype=np.float64)
    each = np.arange(n.shape[1], dtype=np.float64)[None, :, None]
    bins = np.broadcast_to(each, (*n.shape, len(np.asarray(sigma_2))))
    if shift == "none":
        return bins.copy()
    if shift not in ("mirror", "centre_of_mass"):
        raise ValueError(f"shift must be mirror, centre_of_mass or none, got {shift!r}")
    pull = centre_of_mass(n, sigma_2) - bins
    return bins + (-strength if shift == "mirror" else strength) * pull


def gaussian_labels(mean: ArrayLike, sigma: ArrayLike, grid: RedshiftGrid) -> Floats:
    """Labels (..., n_outputs) on the extended grid: Gaussians of width sigma around the means, each of sum 1.

    Means (...) beyond the grid are clipped to its first or last bin, which keeps the label normalised and in
    range. Below a width of 0.1 the label is one-hot.
    """
    bins = np.arange(grid.n_outputs, dtype=np.float64) - grid.extend_left
    m, width = np.broadcast_arrays(np.asarray(mean, dtype=np.float64), np.asarray(sigma, dtype=np.float64))
    m = np.clip(m, bins[0], bins[-1])
    one_hot = width < ONE_HOT_BELOW
    scaled = (bins - m[..., None]) / np.where(one_hot, 1.0, width)[..., None]
    labels: Floats = np.exp(-0.5 * scaled**2)
    labels /= labels.sum(axis=-1, keepdims=True)
    if one_hot.any():
        # A half always rounds up, so that labels do not depend on whether a bin's number is even.
        # The original code truncates, which puts labels half a bin too low on average.
        at = np.floor(m + 0.5)
        labels[one_hot] = bins == np.minimum(at, bins[-1])[one_hot][:, None]
    return labels


@dataclass(frozen=True, eq=False)
class LabelTable:
    """The label of every (slice, z bin, output), as means and widths of Gaussians.

    Dense rows are made on request: a full table of CFHTLS would take 1.9 GB.
    """

    grid: RedshiftGrid  # the extended one
    mean: Floats  # (S, K, R), of which entries of member outputs are used
    sigma: Floats  # (R,), softening widths
    membership: Bools  # (S, R); labels of outputs that do not cover a slice are uniform
    # What was measured on the balanced subset, kept for the figures.
    counts: Ints
    spec_z_hist: Floats  # (R, K), normalised, zero for an output without galaxies
    photo_z_hist: Floats
    sigma_1: Floats  # (R,), dispersions
    sigma_2: Floats

    def rows(self, slice_index: ArrayLike, bin_index: ArrayLike) -> NDArray[np.float32]:
        """Labels (n, R, n_outputs), each of sum 1, of galaxies by their slices and original z bins (n,)."""
        s, k = np.asarray(slice_index, dtype=np.int64), np.asarray(bin_index, dtype=np.int64)
        n_extended = self.grid.n_outputs
        targets = np.full((len(s), len(self.sigma), n_extended), 1.0 / n_extended, dtype=np.float32)
        # Gaussians are made for member outputs only: one or two of a galaxy's R.
        galaxy, output = np.nonzero(self.membership[s])
        mean = self.mean[s[galaxy], k[galaxy], output]
        targets[galaxy, output] = gaussian_labels(mean, self.sigma[output], self.grid)
        return targets

    def mean_label(self, slice_index: Ints, bin_index: Ints) -> Floats:
        """Mean label by slice, (S, n_outputs), of galaxies (n,) in their outputs: the implicit prior.

        Rows have the slices' shares of the galaxies for sums.
        """
        n_slices, n_bins, _ = self.mean.shape
        occupied, counts = np.unique(slice_index * n_bins + bin_index, return_counts=True)
        s, k = np.divmod(occupied, n_bins)
        weight = self.membership[s] / self.membership[s].sum(axis=1, keepdims=True) * counts[:, None]
        prior = np.zeros((n_slices, self.grid.n_outputs))
        np.add.at(prior, s, np.einsum("cr,crj->cj", weight, self.rows(s, k).astype(np.float64)))
        return np.asarray(prior / counts.sum())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what labels were made from and, of the fullest slice of r, three of them, for figures."""
        s = int(self.counts.sum(axis=1).argmax())
        bins = np.flatnonzero(self.counts[s] > 0)
        cells = np.array([(s, k) for k in bins[[0, len(bins) // 2, -1]]])
        output = int(np.flatnonzero(self.membership[s])[0])
        return {
            "sigma_dispersion": self.sigma_1,
            "sigma_scatter": self.sigma_2,
            "spec_z_hist": self.spec_z_hist,
            "photo_z_hist": self.photo_z_hist,
            "counts": self.counts,
            "mean": self.mean,
            "membership": self.membership,
            "edges": self.grid.edges,
            "example_cells": cells,
            "examples": self.rows(*cells.T)[:, output],
        }


def build_label_table(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    dered_petro_r: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    *,
    extend: tuple[int, int] = (0, 0),
    soften: bool = True,
    width: float | None = None,
    shift: Shift = "mirror",
    strength: float = 1.0,
    membership: ArrayLike | None = None,
) -> LabelTable:
    """Build Step 3's label table from Step 2's estimates on the balanced subset.

    `photo_z` (n,) is the argmax of p(z); `extend` says how many bins the grid gets to the left and to the
    right; a `width` replaces the fitted dispersion; without `soften` labels are one-hot at the rounded,
    shifted means (`correction=hard`). A `membership` of ones (S, 1) gives a single output the same labels.
    """
    z, estimate = np.asarray(spec_z, dtype=np.float64), np.asarray(photo_z, dtype=np.float64)
    if z.size == 0:
        raise ValueError("the balanced subset is empty: labels need galaxies")
    if z.shape != estimate.shape or not np.isfinite(estimate).all():
        raise ValueError(f"photo_z must be finite and as long as spec_z, got {estimate.shape} for {z.shape}")
    member = np.asarray(slices.membership if membership is None else membership, dtype=np.bool_)
    counts = cell_counts(z, dered_petro_r, grid, slices)
    spec, photo = (output_histogram(a, dered_petro_r, grid, slices, member) for a in (z, estimate))
    sigma_1 = fit_dispersion(spec, photo)
    sigma_2 = scatter(z, estimate, slices.index(dered_petro_r), sigma_1, grid, member)
    mean = shifted_mean(counts, sigma_2, shift, strength)
    sigma = sigma_1 if width is None else np.full_like(sigma_1, width)
    sigma = sigma if soften else np.zeros_like(sigma)
    return LabelTable(grid.extended(*extend), mean, sigma, member, counts, spec, photo, sigma_1, sigma_2)
