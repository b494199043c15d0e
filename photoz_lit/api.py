"""Photo-z in three lines of Python, without Lightning, Hydra or files in between.

    model = photoz_lit.load("sdss_main")
    result = model.predict(cutouts, ebv, r)
    result.photo_z, result.lower, result.upper, result.flag

`stage=predict` is the same for more galaxies than memory holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.config import TrainerConfig, finished_runs
from photoz_lit.config.schema import ESTIMATES
from photoz_lit.data.columns import numbers
from photoz_lit.data.pixels import inspect_cutouts, inspect_numbers
from photoz_lit.data.store import ESTIMATED
from photoz_lit.errors import DataError
from photoz_lit.estimates import estimates_of
from photoz_lit.grids import Floats, RedshiftGrid, Texts
from photoz_lit.inference import CHUNK, Predictor, Trained, check_agreement, flags_for, open_model

if TYPE_CHECKING:
    from astropy.table import Table
    from matplotlib.figure import Figure

KINDS = {4: "images", 3: "features", 2: "vectors"}


@dataclass(frozen=True)
class Estimates:
    """What a model says of n galaxies, in order; NaN where there is no estimate.

    Attributes
    ----------
    pdf : (n, n_outputs) float32
        Probability in each bin, of sum 1.
    grid : RedshiftGrid
        The bins; `z` has their centres, `grid.edges` their edges.
    photo_z, lower, upper : (n,)
        The chosen estimate, and its 68 % interval.
    photo_z_individual : (n,) or None
        For galaxies of one spec_z, where the model has such an estimate; NaN where it does not hold.
    flag : (n,) str
        `good`, or what speaks against an estimate (`photoz_lit.data.store.FLAGS`).
    prior : (n, n_outputs)
        n(z) of the labels behind p(z), which they were multiplied with; rows of sum 1.
    distance : (n,)
        From the training galaxies, in the embedding.
    """

    pdf: NDArray[np.float32]
    grid: RedshiftGrid
    photo_z: Floats
    lower: Floats
    upper: Floats
    photo_z_individual: Floats | None
    flag: Texts
    prior: Floats
    distance: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.flag)

    @property
    def z(self) -> Floats:
        """Centres of the bins, (n_outputs,)."""
        return self.grid.centres

    def to_table(self) -> "Table":
        """Return a table without p(z), a row a galaxy."""
        names = ("photo_z", "lower", "upper", "photo_z_individual", "flag", "distance")
        from astropy.table import Table

        columns = {name: getattr(self, name) for name in names}
        return Table({name: values for name, values in columns.items() if values is not None})

    def to_qp(self) -> Any:
        """Return p(z) as a `qp.Ensemble` of histograms (needs qp-prob), with photo_z and flag beside them.

        Galaxies without an estimate have NaN there too.
        """
        try:
            import qp
        except ImportError as error:
            raise DataError("qp is not installed: type pip install 'photoz_lit[qp]'") from error
        density = self.pdf / self.grid.width
        ancil = {"photo_z": self.photo_z, "flag": self.flag}
        return qp.Ensemble(qp.hist, data={"bins": self.grid.edges, "pdfs": density}, ancil=ancil)

    def plot(self, i: int, spec_z: float | None = None) -> "Figure":
        """Draw p(z) of galaxy i as a density, with estimate and interval, and spec_z if it is given."""
        from matplotlib.figure import Figure

        from photoz_lit.report.figures.style import BLUE, GREY, VERMILION

        figure = Figure(figsize=(6, 3.2), layout="constrained")
        ax = figure.subplots()
        ax.stairs(self.pdf[i] / self.grid.width, self.grid.edges, color=BLUE, fill=True, alpha=0.4)
        ax.stairs(self.prior[i] / self.grid.width, self.grid.edges, color=GREY, label="n(z) of its training")
        ax.axvspan(self.lower[i], self.upper[i], color=BLUE, alpha=0.12, label="68 %")
        ax.axvline(self.photo_z[i], color=BLUE, label=f"photo_z {self.photo_z[i]:.3f}")
        if spec_z is not None:
            ax.axvline(spec_z, color=VERMILION, linestyle="--", label=f"spec_z {spec_z:.3f}")
        ax.set(xlabel="redshift z", ylabel="p(z)", xlim=(self.grid.z_min, self.grid.z_max), ylim=(0, None))
        ax.set_title(f"galaxy {i}: {self.flag[i]}", loc="left", fontsize=10)
        ax.legend(frameon=False, fontsize=9)
        return figure


class Model:
    """A trained model, or an ensemble of them, that estimates p(z)."""

    def __init__(self, models: Sequence[Trained], trainer: TrainerConfig | None = None) -> None:
        check_agreement(models)
        self.models, self.trainer = list(models), trainer
        self._predictors: dict[tuple[str, tuple[int, ...]], Predictor] = {}

    @cached_property
    def bands(self) -> str:
        """Letters of the bands, in the order of a cutout."""
        return self.models[0].config.survey.bands

    def predict(
        self, inputs: Any, ebv: ArrayLike | None = None, r: ArrayLike | None = None, *, estimate: str = ""
    ) -> Estimates:
        """Estimate p(z) of galaxies.

        Parameters
        ----------
        inputs : array, tensor or Table
            Cutouts (n, bands, pixels, pixels) in nanomaggies; of a model of magnitudes a table with
            mag_<band> and, if it reads them, mag_err_<band>, or (n, 2, F) of magnitudes and errors; vectors
            (n, d).
        ebv, r : (n,) or a number, optional
            E(B-V) and the dereddened Petrosian magnitude in r, mag; of a table, its columns `ebv` and
            `dered_petro_r`. Without E(B-V) 0 is taken and the flag says so.
        estimate : str, optional
            mode, median or mean; without, what the model was trained to give.

        Raises
        ------
        DataError
            Inputs, E(B-V) and r differ in length, the table lacks a column, or there is no such estimate.
        ConfigError
            Inputs are not what the model reads.
        """
        if hasattr(inputs, "colnames"):
            ebv = inputs["ebv"] if ebv is None and "ebv" in inputs.colnames else ebv
            r = inputs["dered_petro_r"] if r is None and "dered_petro_r" in inputs.colnames else r
            inputs = self._magnitudes(inputs)
        array = inputs.detach().cpu().numpy() if hasattr(inputs, "detach") else np.asarray(inputs)
        if array.ndim not in KINDS or array.dtype.kind not in "fiu":
            raise DataError(
                f"inputs are of shape {array.shape}, type {array.dtype}: give cutouts (n, bands, pixels, "
                "pixels), a table of magnitudes, or vectors (n, d)"
            )
        if estimate not in ("", *ESTIMATES):
            raise DataError(f"estimate={estimate}: there are {', '.join(ESTIMATES)}")
        n, kind = len(array), KINDS[array.ndim]
        of_r, of_ebv = _column("r", r, n), _column("ebv", ebv, n)
        predictor = self._predictor(kind, array.shape[1:])
        parts = [
            self._chunk(predictor, kind, array[s], of_ebv[s], of_r[s], estimate)
            for s in (slice(i, i + CHUNK) for i in range(0, max(n, 1), CHUNK))
        ]
        joined: dict[str, Any] = {
            name: None if parts[0][name] is None else np.concatenate([part[name] for part in parts])
            for name in parts[0]
        }
        return Estimates(grid=predictor.grid, **joined)

    def _chunk(
        self,
        predictor: Predictor,
        kind: str,
        inputs: NDArray[Any],
        ebv: Floats,
        r: Floats,
        estimate: str,
    ) -> dict[str, Any]:
        inspected = (inspect_cutouts if kind == "images" else inspect_numbers)(inputs)
        marks = np.where(inspected.bad, "pixels" if kind == "images" else "table", "")
        flag, known = flags_for(marks, np.isfinite(ebv), r, self.models), np.nan_to_num(ebv)
        usable = np.isin(flag, ESTIMATED)
        pdf = np.full((len(inputs), predictor.grid.n_outputs), np.nan, np.float32)
        distance = np.full(len(inputs), np.nan, np.float32)
        if usable.any():
            rows = slice(None) if usable.all() else usable  # a view: cutouts are large
            pdf[rows], distance[rows] = predictor(inputs[rows], known[rows], r[rows])
        flag = np.where(distance > predictor.threshold, "far", flag)
        chosen = estimate or self.models[0].config.estimate
        found = estimates_of(pdf, usable, predictor.grid, chosen, responses=predictor.responses, r=r)
        kept = {"photo_z": "", "lower": "lower", "upper": "upper", "photo_z_individual": "individual"}
        own = {name: found[key] for name, key in kept.items() if key in found}
        return {
            **{"photo_z_individual": None, "pdf": pdf, "flag": flag, "distance": distance},
            **own,
            "prior": predictor.priors.of(r, len(r)),
        }

    def _predictor(self, kind: str, shape: tuple[int, ...]) -> Predictor:
        key = (kind, shape)
        if key not in self._predictors:
            self._predictors[key] = Predictor(self.models, kind, shape, trainer=self.trainer)
        return self._predictors[key]

    def _magnitudes(self, table: "Table") -> NDArray[np.float32]:
        """Return the magnitudes and errors of a table, (n, 2, F)."""
        data = self.models[0].config.data
        names = list(getattr(data, "magnitudes", [])) or [f"mag_{band}" for band in self.bands]
        errors = list(getattr(data, "magnitude_errors", []))
        if missing := [name for name in (*names, *errors) if name not in table.colnames]:
            raise DataError(
                f"the table has no column {', '.join(missing)}: it has {', '.join(table.colnames)}"
            )

        def columns(of: list[str]) -> Floats:
            return np.column_stack([numbers(table, name, "the table") for name in of])

        values = columns(names)
        of_errors = columns(errors) if errors else np.zeros_like(values)
        return np.stack([values, of_errors], axis=1).astype(np.float32)


def _column(name: str, values: ArrayLike | None, n: int) -> Floats:
    """Return a number for each of n galaxies; NaN where it is not known."""
    if values is None:
        return np.full(n, np.nan)
    array: Floats = np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan)
    if array.shape not in ((), (n,)):
        raise DataError(
            f"{name} is of shape {array.shape}, for {n} galaxies: give one number each, or one for all"
        )
    return np.broadcast_to(array, (n,)).copy()


def load(model: str | Path | Sequence[str | Path], *, device: str = "auto") -> Model:
    """Load a model that comes with the package, a finished run folder, or an exported one.

    Parameters
    ----------
    model : str, path or sequence of them
        A name such as `sdss_main`, a folder, or a pattern with * for an ensemble.
    device : str
        auto, cpu or gpu.

    Raises
    ------
    ConfigError
        No model is there, or the members are of different kinds.
    DataError
        A file is damaged.
    """
    patterns = [model] if isinstance(model, str | Path) else list(model)
    folders = [folder for pattern in patterns for folder in finished_runs(str(pattern))]
    return Model([open_model(folder) for folder in folders], TrainerConfig(accelerator=device))
