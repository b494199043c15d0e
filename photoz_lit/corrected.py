"""Corrections to anyone's embeddings in one call: vectors, spec_z and r in, a model out.

    model = photoz_lit.correct(vectors, spec_z, r)
    result = model.predict(other_vectors, r=other_r)

It is `experiment=embeddings stage=classifier` on files that it writes, and gives the same numbers.
"""

import hashlib
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike, NDArray

from photoz_lit.__main__ import work
from photoz_lit.api import Model, load
from photoz_lit.config import Config, for_hydra, parse
from photoz_lit.config.parse import composition
from photoz_lit.errors import DataError
from photoz_lit.files import beside
from photoz_lit.grids import Floats
from photoz_lit.usage import conf_folder

LEAST = 50  # galaxies: fewer do not part into training, validation and test
N_SLICES = 11  # of r


def correct(
    vectors: ArrayLike,
    spec_z: ArrayLike,
    r: ArrayLike,
    *,
    correction: str = "best",
    z_range: tuple[float, float] = (0.0, 0.4),
    n_bins: int = 90,
    r_range: tuple[float, float] | None = None,
    seed: int = 1,
    settings: Sequence[str] = (),
    folder: str | Path | None = None,
) -> Model:
    """Fit a corrected classifier to vectors of any network, and return it as a model that predicts.

    A fifth of the galaxies is held out: `metrics.json` in `model.models[0].folder` has the numbers on it.

    Parameters
    ----------
    vectors : (n, d)
        Of n galaxies with spec_z, an array or tensor.
    spec_z, r : (n,)
        Redshift, and the dereddened magnitude by which galaxies are balanced and calibrated, mag.
    correction : str
        A name of `conf/correction`, e.g. best, full or none.
    z_range, n_bins : (float, float), int
        Range of the redshift bins, and their number.
    r_range : (float, float), optional
        Ends of the slices of r, mag; without, those of the galaxies.
    seed : int
        Of splits, initial weights and order.
    settings : sequence of str
        Words of the command line for all else, e.g. `data.test_fraction=0.1` or `training.hidden.lr=1e-3`.
    folder : path, optional
        Where files and results are kept, and found by the same call again; without, for as long as the model
        lives.

    Raises
    ------
    DataError
        Arrays differ in length or hold what is no number, galaxies are too few or out of range.
    ConfigError
        There is no such correction or setting.
    """
    array = np.asarray(vectors.detach().cpu() if hasattr(vectors, "detach") else vectors, dtype=np.float32)
    if array.ndim != 2 or len(array) < LEAST:
        raise DataError(f"vectors are of shape {array.shape}: give (n, d), of {LEAST} galaxies at least")
    true, mag = (_checked(name, values, len(array)) for name, values in (("spec_z", spec_z), ("r", r)))
    if (bad := ~np.isfinite(array).all(axis=1)).any():
        raise DataError(f"vectors: no number in {_rows(bad)}: leave such galaxies out")
    low, high = r_range or (np.floor(10 * mag.min()) / 10, np.ceil(10 * mag.max() + 0.01) / 10)
    for name, values, ends in (("spec_z", true, z_range), ("r", mag, (low, high))):
        bad = np.asarray((values < ends[0]) | (values > ends[1]))
        if bad.any():
            key = "z_range" if name == "spec_z" else "r_range"
            raise DataError(
                f"{name} is outside {ends[0]:g} to {ends[1]:g} in {_rows(bad)}: leave such galaxies out, "
                f"or give another {key}"
            )
    with ExitStack() as stack:
        place = Path(stack.enter_context(TemporaryDirectory()) if folder is None else folder)
        place = place.expanduser().absolute()
        words = (
            *_written(place, array, true, mag),
            *("experiment=embeddings", "stage=classifier", f"correction={correction}", "logger=none"),
            *(f"survey.z_min={z_range[0]}", f"survey.z_max={z_range[1]}", f"survey.n_bins={n_bins}"),
            *(f"survey.extend_left={n_bins // 2}", f"survey.extend_right={n_bins // 2}"),
            *(f"survey.r_min={low}", f"survey.r_width={(high - low) / N_SLICES}"),
            *(f"survey.n_slices={N_SLICES}", f"seed={seed}", f"data.split_seed={seed}"),
            *("trainer.progress=false", f"output_dir={place / 'runs'}", f"data_dir={place / 'data'}"),
        )
        typed = {word.partition("=")[0] for word in settings}
        config = _done(*(word for word in words if word.partition("=")[0] not in typed), *settings)
        model = load(config.folder("classifier"), device=config.trainer.accelerator)
        weakref.finalize(model, stack.pop_all().close)
    return model


def _checked(name: str, values: ArrayLike, n: int) -> Floats:
    """Return a number for each of n galaxies, or say what is none."""
    column: Floats = np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan)
    if column.shape != (n,):
        raise DataError(f"{name} is of shape {column.shape} for {n} vectors: give one number each")
    if (bad := ~np.isfinite(column)).any():
        raise DataError(f"{name}: no number in {_rows(bad)}: leave such galaxies out")
    return column


def _written(place: Path, vectors: NDArray[np.float32], spec_z: Floats, r: Floats) -> Iterator[str]:
    """Write galaxies into a folder, unless they are there, and yield the words that name the files."""
    place.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(b"".join(part.tobytes() for part in (vectors, spec_z, r))).hexdigest()[:12]
    table, array = place / f"galaxies-{name}.fits", place / f"vectors-{name}.npy"
    if not array.is_file():
        Table({"spec_z": spec_z, "dered_petro_r": r}).write(table, overwrite=True)
        with beside(array) as partial, partial.open("wb") as file:
            np.save(file, vectors)
    yield from (f"data.path={table}", f"data.images={array}")


def _rows(mask: ArrayLike) -> str:
    mask = np.asarray(mask)
    return f"{int(mask.sum())} of {mask.size} rows, first in row {int(mask.argmax())}"


def _done(*words: str) -> Config:
    """Do the work of a command line, and return its settings."""
    from hydra import initialize_config_dir

    conf = conf_folder()
    put = for_hydra(list(words), [conf], multirun=False)
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = parse(composition(tuple(put)).settings, put)
        work(config)
    return config
