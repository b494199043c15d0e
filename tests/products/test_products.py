"""Every format is read by the field's own tools, and says what the run folder says."""

import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from scipy.special import ndtr

from photoz_lit import metrics, products
from photoz_lit.config.schema import FORMATS
from photoz_lit.correction.prior import Priors
from photoz_lit.errors import DataError
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid
from photoz_lit.products import euclid, mixture, quantiles
from photoz_lit.results import Results, read_pdf
from photoz_lit.target import Target

N = 40
GRID = RedshiftGrid(0.0, 0.4, 60, 5, 5)
RNG = np.random.default_rng(3)
CENTRES = RNG.uniform(0.05, 0.35, (2, N))
PDF = sum(
    w * np.exp(-0.5 * ((GRID.centres - z[:, None]) / 0.02) ** 2)
    for w, z in zip((0.7, 0.3), CENTRES, strict=True)
)
PDF[:, [0, -1]] = 0
PDF = (PDF / PDF.sum(axis=1, keepdims=True)).astype(np.float32)
FLAGS = np.array(["good", "far", "edge", "ebv"] * (N // 4))
KNOWN = FLAGS != "edge"
SPEC_Z = RNG.uniform(0, 0.4, N)
PRIORS = Priors(*RNG.dirichlet(np.ones(210), 2).reshape(2, 3, 70), MagnitudeSlices(14, 1, 3))


def galaxies() -> Table:
    return Table(
        {
            "object_id": [f"J{i:03d}" for i in range(N)],
            "ra": RNG.uniform(0, 360, N),
            "dec": np.degrees(np.arcsin(RNG.uniform(-1, 1, N))),
            "spec_z": SPEC_Z,
            "dered_petro_r": RNG.uniform(14, 17, N),
        }
    )


def written(folder: Path, table: Table | None = None, target: Target | None = None) -> Path:
    table = galaxies() if table is None else table
    results = Results(folder, table, GRID, PRIORS, "median", target or Target())
    for start in range(0, N, 16):
        part = slice(start, start + 16)
        results.append(PDF[part], FLAGS[part])
    results.finish()
    results.forget()
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path)


def table_of(folder: Path) -> Table:
    return Table.read(folder / "photo_z.fits", character_as_bytes=False, mask_invalid=False)


def test_formats_are_those_of_the_settings() -> None:
    assert ("qp", *products.FORMATS) == FORMATS


@pytest.mark.filterwarnings("ignore:There are non-finite values")  # of qp, galaxies without an estimate
def test_qp_reads_p_of_z_and_finds_the_same_scores(folder: Path) -> None:
    qp = pytest.importorskip("qp")
    from qp.metrics.concrete_metric_classes import CDELossMetric
    from qp.metrics.pit import PIT

    ensemble, table = qp.read(str(folder / "pdf.hdf5")), table_of(folder)
    assert ensemble.npdf == N
    names = {"zmode": "photo_z_mode", "zmedian": "photo_z_median", "zmean": "photo_z_mean"}
    for name, ours in ({"photo_z": "photo_z"} | names).items():
        np.testing.assert_array_equal(ensemble.ancil[name], table[ours])
    assert list(ensemble.ancil["object_id"]) == list(table["object_id"])
    assert list(ensemble.ancil["flag"]) == list(table["flag"])
    pdf = np.concatenate(list(read_pdf(folder)))
    known = ensemble[np.flatnonzero(KNOWN)]
    np.testing.assert_allclose(known.pdf(GRID.centres) * GRID.width, pdf[KNOWN], rtol=1e-6)
    np.testing.assert_allclose(
        PIT(known, SPEC_Z[KNOWN]).pit_samps, metrics.pit(pdf[KNOWN], SPEC_Z[KNOWN], GRID), atol=1e-6
    )
    theirs = CDELossMetric(eval_grid=GRID.centres).evaluate(known, SPEC_Z[KNOWN])
    assert theirs == pytest.approx(metrics.cde_loss(pdf[KNOWN], SPEC_Z[KNOWN], GRID).mean(), rel=1e-6)
    part = qp.read(str(folder / "pdf.hdf5"), read_slice=slice(4, 9))
    np.testing.assert_array_equal(part.ancil["zmode"], table["photo_z_mode"][4:9])


def test_parquet_has_the_names_of_rubin_and_nested_p_of_z(folder: Path) -> None:
    place = products.make("parquet", folder)
    found, table = pq.read_table(place), table_of(folder)
    assert found.column_names[:3] == ["objectId", "coord_ra", "coord_dec"]
    for theirs, ours in (("z_median", "median"), ("z_err68_low", "lower"), ("z_err68_high", "upper")):
        np.testing.assert_array_equal(found[f"photoz_lit_{theirs}"], table[f"photo_z_{ours}"])
    wide = [np.asarray(found[f"photoz_lit_z_err95_{end}"])[KNOWN] for end in ("low", "high")]
    np.testing.assert_allclose(
        np.stack(wide, axis=1), np.clip(metrics.interval(PDF[KNOWN], GRID, 0.95), 0, 0.4), atol=1e-6
    )
    nested = found["photoz_lit_pdf"].to_pylist()
    np.testing.assert_allclose(nested[0]["p"], PDF[0] / GRID.width, rtol=1e-6)
    np.testing.assert_allclose(nested[0]["z"], GRID.centres, atol=1e-6)
    assert nested[2] == {"z": [], "p": []}
    assert found["photoz_lit_flag"].to_pylist() == list(FLAGS)


def test_hats_opens_the_catalogue(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hats = pytest.importorskip("hats")
    monkeypatch.setattr("photoz_lit.products.hats.MOST", 6)
    place = products.make("hats", folder)
    catalogue, table = hats.read_hats(place), table_of(folder)
    assert catalogue.catalog_info.total_rows == N
    assert catalogue.schema.names[:4] == ["_healpix_29", "objectId", "coord_ra", "coord_dec"]
    assert len(catalogue.get_healpix_pixels()) > 4
    found: dict[str, float] = {}
    for pixel in catalogue.get_healpix_pixels():
        path = next(place.rglob(f"Norder={pixel.order}/*/Npix={pixel.pixel}.parquet"))
        part = pq.read_table(path, partitioning=None)
        assert len(part) <= 6
        index = np.asarray(part["_healpix_29"])
        assert (np.diff(index) >= 0).all()
        assert set(index >> 2 * (29 - pixel.order)) == {pixel.pixel}
        found |= dict(zip(part["objectId"].to_pylist(), part["photoz_lit_z_mode"].to_pylist(), strict=True))
    for name, mode in zip(table["object_id"], table["photo_z_mode"], strict=True):
        np.testing.assert_equal(found[name], mode)


@pytest.mark.parametrize("gone", ["column", "value"])
def test_hats_without_a_position_is_refused(gone: str, tmp_path: Path) -> None:
    pytest.importorskip("hats")
    table = galaxies()
    if gone == "column":
        del table["ra"]
    else:
        table["dec"][17] = np.nan
    told = "which the galaxies have not" if gone == "column" else "row 17 has none"
    with pytest.raises(DataError, match=f"needs ra and dec.*{told}"):
        products.make("hats", written(tmp_path, table))
    assert not [path for path in tmp_path.iterdir() if "hats" in path.name]


def test_fits_has_the_names_of_euclid(folder: Path) -> None:
    place = products.make("fits", folder)
    with fits.open(place) as hdus:
        hdus.verify("exception")
        header = hdus[1].header
    found, table = Table.read(place, character_as_bytes=False, mask_invalid=False), table_of(folder)
    assert (header["PDF_Z0"], header["PDF_DZ"]) == (pytest.approx(GRID.centres[0]), pytest.approx(GRID.width))
    assert list(found["OBJECT_ID"]) == list(table["object_id"])
    np.testing.assert_array_equal(found["PHZ_MEDIAN"], table["photo_z_median"])
    np.testing.assert_allclose(found["PHZ_PDF"][KNOWN] * GRID.width, PDF[KNOWN], rtol=1e-6)
    np.testing.assert_allclose(
        found["PHZ_70_INT"][KNOWN], np.clip(metrics.interval(PDF[KNOWN], GRID, 0.7), 0, 0.4), atol=1e-6
    )
    assert np.isnan(found["PHZ_PDF"][~KNOWN]).all()
    assert np.isnan(found["PHZ_MODE_1"][~KNOWN]).all()
    twice = KNOWN & (np.abs(CENTRES[0] - CENTRES[1]) > 0.1)  # apart, of 0.7 and 0.3
    for i, (share, z) in enumerate(zip((0.7, 0.3), CENTRES, strict=True), 1):
        np.testing.assert_allclose(found[f"PHZ_MODE_{i}"][twice], z[twice], atol=0.51 * GRID.width)
        np.testing.assert_allclose(found[f"PHZ_MODE_{i}_AREA"][twice], share, atol=0.03)


@pytest.mark.parametrize(
    ("pdf", "bins", "areas"),
    [
        ([0, 0.6, 0.1, 0.3, 0], (1, 3), (0.6, 0.4)),  # a minimum belongs to the part that follows
        ([0.1, 0.2, 0.4, 0.2, 0.1], (2, None), (1, 0)),
        ([0.3, 0.1, 0.1, 0.1, 0.4], (4, 0), (0.7, 0.3)),
        ([0.5, 0, 0.3, 0.05, 0.15], (0, 2), (0.5, 0.3)),
    ],
)
def test_modes_are_the_parts_between_minima(
    pdf: list[float], bins: tuple[int, int | None], areas: tuple[float, float]
) -> None:
    grid = RedshiftGrid(0.0, 1.0, 5)
    z, area = euclid.modes(np.array([pdf]), grid)
    np.testing.assert_allclose(area[:, 0], areas, atol=1e-12)
    np.testing.assert_allclose(z[:, 0], [np.nan if b is None else grid.centres[b] for b in bins])


def test_ecsv_keeps_values_and_descriptions(folder: Path) -> None:
    found, table = Table.read(products.make("ecsv", folder), format="ascii.ecsv"), table_of(folder)
    assert found.colnames == table.colnames
    np.testing.assert_array_equal(np.ma.filled(found["photo_z"], np.nan), table["photo_z"])
    assert found["ra"].unit == "deg"


@pytest.mark.parametrize(("name", "lost"), [("quantiles", 0.02), ("mixture", 0.01)])
def test_small_files_are_read_by_qp_and_say_what_they_lost(name: str, lost: float, folder: Path) -> None:
    qp = pytest.importorskip("qp")
    place = products.make(name, folder)
    ensemble = qp.read(str(place))
    assert list(ensemble.ancil["flag"]) == list(FLAGS[KNOWN])
    cdf, true = ensemble.cdf(GRID.edges), metrics.cumulative(PDF[KNOWN].astype(float))
    single = np.abs(CENTRES[0] - CENTRES[1])[KNOWN] < 0.03
    assert np.abs(cdf - true)[single].max() < lost
    if name == "quantiles":  # qp joins them by parabolas, which overshoot between two peaks
        cdf = np.array([np.interp(GRID.edges, x, quantiles.LEVELS) for x in ensemble.objdata["locs"]])
    off = np.abs(cdf - true)
    with h5py.File(place) as file:
        said = dict(file["data"].attrs)
    assert said["mean_wasserstein"] == pytest.approx(off.sum() * GRID.width / KNOWN.sum(), rel=0.05)
    assert said["mean_largest_cdf_error"] == pytest.approx(off.max(axis=1).mean(), rel=0.05)


def test_a_mixture_is_fitted_exactly() -> None:
    grid = RedshiftGrid(0.0, 1.0, 400)
    parts = [(0.5, 0.2, 0.02), (0.3, 0.5, 0.03), (0.2, 0.8, 0.01)]
    cdf = sum(w * ndtr((grid.edges[:, None] - z) / s) for w, z, s in parts)
    arrays, fitted = mixture.fit(np.diff(cdf, axis=0).T, grid)
    np.testing.assert_allclose(arrays["means"], [[0.2, 0.5, 0.8]], atol=1e-4)
    np.testing.assert_allclose(arrays["stds"], [[0.02, 0.03, 0.01]], atol=1e-4)
    np.testing.assert_allclose(arrays["weights"], [[0.5, 0.3, 0.2]], atol=1e-4)
    np.testing.assert_allclose(fitted, cdf.T, atol=1e-3)


def test_quantiles_of_a_flat_p_of_z() -> None:
    grid = RedshiftGrid(0.0, 1.0, 10)
    pdf = np.zeros((1, 10))
    pdf[0, 3:8] = 0.2
    arrays, cdf = quantiles.fit(pdf, grid)
    np.testing.assert_allclose(arrays["locs"][0], 0.3 + 0.5 * quantiles.LEVELS, atol=1e-12)
    np.testing.assert_allclose(cdf, metrics.cumulative(pdf), atol=1e-12)


def test_what_is_there_is_kept_until_the_results_change(folder: Path) -> None:
    place = products.make("parquet", folder)
    assert place is not None
    first = place.stat().st_mtime_ns
    assert products.make("parquet", folder) == place
    assert place.stat().st_mtime_ns == first
    time.sleep(0.02)
    (folder / "photo_z.fits").touch()
    products.make("parquet", folder)
    assert place.stat().st_mtime_ns > first
    assert products.make("qp", folder) is None
    assert not list(folder.glob("*lock*"))


@pytest.mark.parametrize("name", ["parquet", "fits", "quantiles", "mixture"])
def test_names_for_redshifts_are_not_given_to_others(name: str, tmp_path: Path) -> None:
    table = galaxies()
    table.rename_column("spec_z", "log_mass")
    folder = written(tmp_path, table, Target("log_mass", unit="log M_sun"))
    with pytest.raises(DataError, match=f"format={name} has names for redshifts alone"):
        products.make(name, folder)
    assert sorted(p.name for p in folder.iterdir()) == ["lock", "pdf.hdf5", "photo_z.fits"]


def test_a_package_that_is_missing_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Any:
        return None

    monkeypatch.setattr("importlib.util.find_spec", nothing)
    with pytest.raises(DataError, match=r"pip install 'photoz_lit\[hats\]'"):
        products.check("hats")
    products.check("parquet")
