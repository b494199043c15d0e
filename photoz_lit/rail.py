"""Stages of RAIL (pz-rail-base 2.x): `inform` trains on magnitudes, `estimate` gives p(z) as a qp ensemble.

    informer = PhotozLitInformer.make_stage(name="inform", correction="best")
    estimator = PhotozLitEstimator.make_stage(name="estimate", model=informer.inform(table))
    estimator.estimate(table)().ancil["zmode"]

`PhotozLitPretrainedEstimator` needs no informer: its model, of magnitudes or of cutouts, comes with the
package or is a run folder. Pipeline files: conf/data/README.md.
"""

import io
import shutil
import weakref
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np
from astropy.table import Table

from photoz_lit.api import Estimates, Model, load
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.estimates import estimates_of
from photoz_lit.files import beside, read_json, write_json, write_table

try:
    from ceci.config import StageParameter as Param
    from rail.core.common_params import SharedParams
    from rail.core.data import ModelHandle, TableHandle
    from rail.core.enums import DistributionType
    from rail.estimation.estimator import CatEstimator
    from rail.estimation.informer import CatInformer
except ImportError as error:
    raise DataError("RAIL is not installed: type pip install 'photoz_lit[rail]'") from error

UNSEEN_ERROR = 1.0  # mag: of a magnitude that is a 1-sigma limit (RAIL's CMNN estimator)
OPTIONS = "rail.json"  # beside the model
SLICES = 11  # of the reference band, in which the corrections are measured
SHARED = ("bands", "err_bands", "mag_limits", "nondetect_val", "nonobserved_val", "ref_band")
GRID = ("zmin", "zmax", "nzbins")
OWN = (*SHARED, *GRID, "ebv_col")  # what a model has to be used with as it was trained
PHOTOMETRY = {
    **{name: SharedParams.copy_param(name) for name in (*SHARED, "id_col")},
    "ebv_col": Param(str, "", msg="column of E(B-V), mag; empty: magnitudes are dereddened"),
}


class PhotozLitModelHandle(ModelHandle):
    """A trained model in a file: the zip of an exported folder. RAIL's own handle would read a pickle."""

    suffix = "zip"

    @classmethod
    def _read(cls, path: str, **kwargs: Any) -> bytes:
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path} is no model of PhotozLitInformer, which writes a zip")
        return Path(path).read_bytes()

    _open = _read  # as RAIL's own does

    @classmethod
    def _write(cls, data: bytes, path: str, **kwargs: Any) -> None:
        with beside(Path(path)) as partial:
            partial.write_bytes(data)


class _Stage:
    """What the stages share: which columns they read, and how ceci is to run them."""

    config: Any
    one_column: tuple[str, ...] = ("ref_band", "ebv_col")  # options that name a column, or none

    def validate(self: Any) -> None:
        """Raise KeyError, with their names, where the table lacks columns."""
        c = self.config
        cutouts = "cutouts_col" in c and c.cutouts_col
        wanted = [*([cutouts] if cutouts else [*c.bands, *c.err_bands]), *(c[key] for key in self.one_column)]
        columns = [name for name in dict.fromkeys(wanted) if name]
        self._check_column_names(self.get_handle("input", allow_missing=True), columns)

    @classmethod
    def generate_command(cls: Any, *args: Any, **kwargs: Any) -> str:
        """Return the command; `python -m photoz_lit`, which ceci would type, reads settings."""
        command: str = super().generate_command(*args, **kwargs)  # type: ignore[misc]
        return command.replace(f"-m photoz_lit {cls.name}", f"-m ceci {__name__}.{cls.name}", 1)


class PhotozLitInformer(_Stage, CatInformer):
    """Train a representation of magnitudes and a corrected classifier on it, of a table with redshifts."""

    name = "PhotozLitInformer"
    entrypoint_function = "inform"
    config_options = CatInformer.config_options.copy()
    config_options.update(
        **PHOTOMETRY,
        **{name: SharedParams.copy_param(name) for name in ("redshift_col", *GRID)},
        correction=Param(str, "best", msg="a file of conf/correction; nzbins are bins from zmin to zmax"),
        settings=Param(list, [], msg="more words of photoz_lit's command line, such as seed=2"),
    )
    outputs = [("model", PhotozLitModelHandle)]  # noqa: RUF012
    one_column = (*_Stage.one_column, "redshift_col")

    def run(self) -> None:
        """Train, and add the model to the data of the stage."""
        c, data = self.config, self.get_data("input")
        data = data[c.hdf5_groupname] if c.hdf5_groupname else data
        data = data if isinstance(data, Mapping) else self._convert_table_format(data)
        table = photometry(data, c)
        table["spec_z"] = np.asarray(data[c.redshift_col], dtype=np.float64)
        if c.id_col in data:
            table["object_id"] = np.asarray(data[c.id_col])
        with TemporaryDirectory() as place:
            write_table(Path(place) / "training.fits", table)
            low, high = np.nanpercentile(table["dered_petro_r"], (1, 99))
            words = {
                **{"experiment": "rail", "correction": c.correction, "data.path": f"{place}/training.fits"},
                "data.magnitudes": f"[{','.join(c.bands)}]",
                "data.magnitude_errors": f"[{','.join(c.err_bands)}]",
                **({} if c.err_bands else {"encoder.noise": 0}),
                **{"survey.z_min": c.zmin, "survey.z_max": c.zmax, "survey.n_bins": c.nzbins},
                **{"survey.r_min": low, "survey.r_width": (high - low) / SLICES, "survey.n_slices": SLICES},
                "survey.bands": "".join(band.removeprefix("mag_")[:1] for band in c.bands),
                **{"output_dir": f"{place}/runs", "data_dir": f"{place}/data"},
                **dict(word.partition("=")[::2] for word in c.settings),
            }
            own = {key: str(c[key]) for key in OWN}
            self.model = trained([f"{key}={value}" for key, value in words.items()], own)
        self.add_data("model", self.model)


class PhotozLitEstimator(_Stage, CatEstimator):
    """Estimate p(z) with a model of `PhotozLitInformer`, chunk by chunk."""

    name = "PhotozLitEstimator"
    entrypoint_function = "estimate"
    config_options = CatEstimator.config_options.copy()
    config_options.update(**PHOTOMETRY, device=Param(str, "auto", msg="auto, cpu or gpu"))
    inputs = [("model", PhotozLitModelHandle), ("input", TableHandle)]  # noqa: RUF012
    _trained: Model

    @classmethod
    def default_distribution_type(cls) -> Any:
        """Say that p(z) are posteriors, under the n(z) of the training or what a correction makes it."""
        return DistributionType.posterior

    def open_model(self, **kwargs: Any) -> Any:
        """Load the model; ConfigError where it was trained with other options."""
        content = super().open_model(**kwargs)
        place = Path(mkdtemp())  # read when there are galaxies
        weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(place)
        self._trained = load(place, device=self.config.device)
        c, own = self.config, read_json(place / OPTIONS)
        if told := [f"{key}: {c[key]}, not {own[key]}" for key in own if str(c[key]) != own[key]]:
            raise ConfigError(f"{self.instance_name}: options are not those of its model: {'; '.join(told)}")
        return self.model

    def _process_chunk(self, start: int, end: int, data: Any, first: bool) -> None:
        data = data if isinstance(data, Mapping) else self._convert_table_format(data)
        ensemble = ensemble_of(self._predict(data))
        if self.config.id_col in data:
            ensemble.ancil["object_id"] = np.asarray(data[self.config.id_col])
        self._do_chunk_output(ensemble, start, end, first, data=data)

    def _predict(self, data: Mapping[str, Any]) -> Estimates:
        return self._trained.predict(photometry(data, self.config))


class PhotozLitPretrainedEstimator(PhotozLitEstimator):
    """Estimate p(z) of magnitudes or cutouts with a model of the package, or a run folder."""

    name = "PhotozLitPretrainedEstimator"
    config_options = PhotozLitEstimator.config_options.copy()
    config_options.update(
        model=Param(str, required=True, msg="a name such as sdss_main, a run folder, or a pattern with *"),
        cutouts_col=Param(str, "", msg="data set (n, bands, pixels, pixels), nanomaggies; empty: magnitudes"),
    )
    for _key in GRID:  # is the model's
        del config_options[_key]
    inputs = [("input", TableHandle)]  # noqa: RUF012

    def open_model(self, **kwargs: Any) -> Any:
        """Load the model, which brings its bins."""
        self._trained = load(self.config.model, device=self.config.device)
        c, survey = self.config, self._trained.models[0].config.survey
        c["zmin"], c["zmax"], c["nzbins"] = survey.z_min, survey.z_max, survey.n_bins
        return self._trained

    def _predict(self, data: Mapping[str, Any]) -> Estimates:
        c = self.config
        if not c.cutouts_col:
            return super()._predict(data)
        ebv, r = (data[name] if name else None for name in (c.ebv_col, c.ref_band))
        return self._trained.predict(np.asarray(data[c.cutouts_col]), ebv, r)


def photometry(data: Mapping[str, Any], config: Any) -> Table:
    """Return magnitudes and errors as models read them, with dered_petro_r, the reference band, and E(B-V).

    What was not detected, or is fainter than its 1-sigma limit, stands at that limit with an error of 1 mag,
    as RAIL's CMNN estimator has it; what was not observed is NaN.
    """
    table = Table()
    errors = dict(zip(config.bands, config.err_bands, strict=False))
    if lacking := [band for band in config.bands if band not in config.mag_limits]:
        raise ConfigError(f"mag_limits has no limit of {', '.join(lacking)}")
    for band in config.bands:
        mag, limit = np.array(data[band], dtype=np.float64), config.mag_limits[band]
        mag[np.isclose(mag, config.nonobserved_val)] = np.nan
        unseen = np.isclose(data[band], config.nondetect_val, equal_nan=True) | (mag > limit)
        table[band] = np.where(unseen, limit, mag)
        if name := errors.get(band):
            table[name] = np.where(unseen, UNSEEN_ERROR, np.asarray(data[name], dtype=np.float64))
    r = (table if config.ref_band in table.colnames else data)[config.ref_band]
    table["dered_petro_r"] = np.asarray(r, dtype=np.float64)
    if config.ebv_col:
        table["ebv"] = np.asarray(data[config.ebv_col], dtype=np.float64)
    return table


def ensemble_of(result: Estimates) -> Any:
    """Return p(z) as a `qp.Ensemble` of histograms, with estimates beside it by RAIL's names, and ours."""
    ensemble, known = result.to_qp(), np.isfinite(result.photo_z)
    found = estimates_of(result.pdf, known, result.grid, "mode")
    ancil = {f"z{kind}": found[kind] for kind in ("mode", "mean", "median")}
    ancil |= {"photo_z": result.photo_z, "photo_z_lower": result.lower, "photo_z_upper": result.upper}
    ancil |= {} if (own := result.photo_z_individual) is None else {"photo_z_individual": own}
    ensemble.set_ancil({**ancil, "distance": result.distance, "flag": result.flag.astype("S8")})
    return ensemble


def trained(words: list[str], own: Mapping[str, str]) -> bytes:
    """Train by words of the command line, and return the zip of what the run exports, and of options."""
    from hydra import initialize_config_dir

    from photoz_lit.__main__ import work
    from photoz_lit.config import for_hydra, parse
    from photoz_lit.config.parse import composition
    from photoz_lit.inference import open_model
    from photoz_lit.stages.export import export
    from photoz_lit.usage import conf_folder

    put, content = for_hydra(words, [conf_folder()], multirun=False), io.BytesIO()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = parse(composition(tuple(put)).settings, put)
        work(config)
    with TemporaryDirectory() as place, zipfile.ZipFile(content, "w") as archive:
        export(open_model(config.folder("classifier")), Path(place), programs=())
        write_json(Path(place) / OPTIONS, own)
        for path in sorted(Path(place).iterdir()):
            archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes())
    return content.getvalue()
