"""The implicit prior of p(z): the n(z), by slice of r, of the labels that a head was trained with.

A head that sees a galaxy sees its brightness too: what it multiplies the likelihood with is p(z | r) of its
training labels, not their n(z). A balanced subset is flat within each slice only. Priors here are (S,
n_outputs), on the slices of r and the bins of p(z), extension included; they sum to 1 over both, so that the
sum over slices is the n(z) of the labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.errors import DataError
from photoz_lit.files import read_arrays
from photoz_lit.grids import Floats, Ints, MagnitudeSlices, RedshiftGrid

FILE = "priors.npz"  # in an exported model; a run folder has them beside its p(z)
# Shares of a flat n(z): in the prior divided out, as bins of hardly a label have no p(z) to raise, and
# in the new one, so that a galaxy where it is zero still gets a p(z).
OLD_FLOOR, NEW_FLOOR = 0.01, 1e-4


@dataclass(frozen=True, eq=False)
class Priors:
    """What has to be known of p(z) to give them another prior."""

    implicit: Floats  # (S, n_outputs), of the labels behind p(z)
    training: Floats  # (S, n_outputs), of the whole training split
    slices: MagnitudeSlices

    def of(self, dered_petro_r: ArrayLike | None, n: int) -> Floats:
        """Return the implicit prior of each of n galaxies, (n, n_outputs), by `prior_of`."""
        return prior_of(self.implicit, dered_petro_r, self.slices, n)

    @property
    def brightness(self) -> Floats:
        """Share of the training galaxies of each redshift that are in each slice, (S, n_outputs)."""
        share = np.maximum(self.training.sum(axis=1, keepdims=True), 1e-12)
        filled = self.training + NEW_FLOOR * share / self.training.shape[1]
        return np.asarray(filled / filled.sum(axis=0))

    def converted(self, wanted: Floats | None) -> "Priors":
        """Return those of p(z) for galaxies of another n(z), (n_outputs,), or of one that is flat by slice.

        Galaxies of one redshift are taken to be as bright as those of the training split.
        """
        if wanted is None:
            share = self.training.sum(axis=1, keepdims=True)
            new = np.maximum(share, 1e-12) * np.ones_like(self.training)
        else:
            new = self.brightness * with_floor(wanted, NEW_FLOOR)
        return Priors(new / new.sum(), self.training, self.slices)

    def convert(self, pdf: ArrayLike, dered_petro_r: ArrayLike | None, new: "Priors") -> Floats:
        """Convert p(z) (n, n_outputs) of galaxies of r (n,), mag, from this implicit prior to another one."""
        n = len(np.asarray(pdf))
        return swap_prior(pdf, with_floor(self.of(dered_petro_r, n), OLD_FLOOR), new.of(dered_petro_r, n))

    def arrays(self) -> dict[str, Floats]:
        """Return everything as named arrays."""
        return {
            "implicit_prior": self.implicit,
            "training_prior": self.training,
            "r_edges": self.slices.edges,
        }

    def write(self, group: Any) -> None:
        """Write everything into a group of an HDF5 file; all its arrays are of one length, as qp wants."""
        for name, values in self.arrays().items():
            (group.attrs if name == "r_edges" else group)[name] = values

    @classmethod
    def of_labels(
        cls,
        labels: Floats | None,
        spec_z: ArrayLike,
        r: ArrayLike,
        grid: RedshiftGrid,
        slices: MagnitudeSlices,
    ) -> "Priors":
        """Return those of p(z) whose labels have the mean (S, n_outputs), or are one-hot on all galaxies.

        These are (n,) training galaxies. A few in a bin are no prior: both priors are smoothed, in a slice by
        one width, that of these galaxies. With two, their ratio, which converts p(z), would tilt at an edge.
        """
        cells = slices.index(r), grid.index(spec_z) + grid.extend_left
        training = joint_histogram(*cells, (slices.n_slices, grid.n_outputs))
        widths = silverman_widths(training, len(cells[0]))
        implicit = training if labels is None else labels
        return cls(smoothed(implicit, widths), smoothed(training, widths), slices)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Priors":
        """Build them again."""
        edges = np.asarray(arrays["r_edges"][:], dtype=np.float64)
        slices = MagnitudeSlices(float(edges[0]), float(edges[1] - edges[0]), len(edges) - 1)
        implicit, training = (
            np.asarray(arrays[f"{n}_prior"][:], np.float64) for n in ("implicit", "training")
        )
        return cls(implicit, training, slices)

    @classmethod
    def read(cls, folder: Path) -> "Priors":
        """Read those of the p(z) of a run folder or an exported model; DataError where it tells none."""
        import h5py

        if (folder / FILE).is_file():
            return cls.from_arrays(read_arrays(folder / FILE))
        path = folder / "pdf.hdf5"
        try:
            with h5py.File(path) as file:
                place = file.get("priors", file)  # at the root in files of old
                return cls.from_arrays(dict(place) | dict(place.attrs))
        except (OSError, KeyError) as error:
            raise DataError(
                f"{path}: cannot be read ({error}): bring the whole run folder, or run it again"
            ) from error


def mean_priors(of: Sequence[Priors]) -> Priors:
    """Return the priors of the mean of several p(z)."""
    implicit, training = np.mean([(priors.implicit, priors.training) for priors in of], axis=0)
    return Priors(implicit, training, of[0].slices)


def joint_histogram(
    r_slice: Ints, z_bin: Ints, shape: tuple[int, int], weight: ArrayLike | None = None
) -> Floats:
    """Histogram, (S, K) as `shape`, of galaxies by their slices and bins (n,), weighted or not, of sum 1."""
    flat = np.bincount(r_slice * shape[1] + z_bin, weight, minlength=shape[0] * shape[1])
    return np.asarray(flat.reshape(shape) / flat.sum())


def silverman_widths(joint: Floats, n: int) -> Floats:
    """Width in bins, (S,), that suits each slice of a histogram of n galaxies, (S, K).

    0.9 min(std, iqr / 1.34) n^(-1/5), the n of the slice (Silverman 1986, section 3.4).
    """
    bins, widths = np.arange(joint.shape[1]), np.zeros(len(joint))
    for i in np.flatnonzero(joint.any(axis=1)):
        row = joint[i] / joint[i].sum()
        quartiles = np.interp([0.25, 0.75], np.cumsum(row), bins)
        std = max(np.sqrt(row @ (bins - row @ bins) ** 2), 12**-0.5)  # galaxies of one bin fill it
        spread = min(std, max(np.ptp(quartiles), 1.0) / 1.34)
        widths[i] = 0.9 * spread * (n * joint[i].sum()) ** -0.2
    return widths


def smoothed(joint: Floats, widths: Floats) -> Floats:
    """Convolve each slice of (S, K) with a Gaussian of a width in bins, reflected at the ends."""
    pairs = zip(joint, widths, strict=True)  # no width: no galaxies
    return np.stack([gaussian_smoothed(row, width) if width > 0 else row for row, width in pairs])


def gaussian_smoothed(values: Floats, width: float) -> Floats:
    """Convolve values (K,) with a Gaussian of a width in bins, reflected at the ends.

    It is SciPy's `gaussian_filter1d`, whose import takes a twentieth of a correction's time.
    """
    radius = int(4 * width + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / width) ** 2)
    return np.convolve(np.pad(values, radius, "symmetric"), kernel / kernel.sum(), "valid")


def smoothed_prior(counts: ArrayLike) -> Floats:
    """Normalise counts of galaxies by bin, (..., K), with one galaxy more spread over them: none is empty."""
    n = np.asarray(counts, dtype=np.float64)
    filled = n + 1 / n.shape[-1]
    return np.asarray(filled / filled.sum(axis=-1, keepdims=True))


def with_floor(prior: ArrayLike, share: float) -> Floats:
    """Mix priors (..., K), of any scale, with a flat one of this share; rows of sum 1."""
    p = np.asarray(prior, dtype=np.float64)
    filled = p / p.sum(axis=-1, keepdims=True) + share / p.shape[-1]
    return np.asarray(filled / filled.sum(axis=-1, keepdims=True))


def floored(joint: Floats, share: float) -> Floats:
    """Mix each slice of a prior, (S, n_outputs), with a flat one of this share of its own."""
    filled = joint + share * joint.sum(axis=1, keepdims=True) / joint.shape[1]
    return np.asarray(filled / filled.sum())


def prior_of(joint: Floats, dered_petro_r: ArrayLike | None, slices: MagnitudeSlices, n: int) -> Floats:
    """Return what p(z) of n galaxies was multiplied with, (n, n_outputs), rows of sum 1.

    That of their slice of r (n,), mag; of galaxies of unknown r, the mean over slices.
    """
    total = joint.sum(axis=0, keepdims=True)
    # A slice without training galaxies has the mean too.
    rows = np.concatenate([np.where(joint.sum(axis=1, keepdims=True) > 0, joint, total), total])
    return np.asarray((rows / rows.sum(axis=1, keepdims=True))[slices_of(dered_petro_r, slices, n)])


def slices_of(dered_petro_r: ArrayLike | None, slices: MagnitudeSlices, n: int) -> Ints:
    """Slice of each of n galaxies of r (n,), mag; where that is unknown, the one after the last."""
    r = np.full(n, np.nan) if dered_petro_r is None else np.asarray(dered_petro_r, dtype=np.float64)
    of = np.full(n, slices.n_slices)
    of[np.isfinite(r)] = slices.index(r[np.isfinite(r)])
    return of


def swap_prior(pdf: ArrayLike, prior: ArrayLike, target: ArrayLike) -> Floats:
    """Convert p(z) (n, K) from its implicit prior to another, (K,) or (n, K) each; rows of sum 1."""
    old, new = np.asarray(prior, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if not (old > 0).all() or not (new >= 0).all():
        raise ValueError("the implicit prior must be positive in all bins and the target not negative")
    p = np.asarray(pdf, dtype=np.float64) * (new / old)
    total = p.sum(axis=1, keepdims=True)
    if not (total > 0).all():
        raise ValueError("p(z) and the target prior have no bin in common")
    return np.asarray(p / total)
