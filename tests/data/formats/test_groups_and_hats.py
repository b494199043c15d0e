"""Tables as RAIL groups them in HDF5, and HATS catalogues; small ones of exactly these layouts."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from command import run, run_well

from photoz_lit.config.schema import SurveyConfig
from photoz_lit.data.catalogue import TableRules, standard_table
from photoz_lit.data.formats import read_table
from photoz_lit.data.sources import catalogue
from photoz_lit.errors import DataError
from photoz_lit.target import Target

# RAIL


def write_rail(path: Path, group: str = "photometry", n: int = 40) -> Path:
    """Write the columns of rail_base's example data: test_dc2_training_9816.hdf5."""
    rng = np.random.default_rng(2)
    with h5py.File(path, "w") as file:
        table = file.require_group(group)
        table["id"] = np.arange(n) + 8062500000
        table["redshift"] = rng.uniform(0.05, 0.39, n)
        for i, band in enumerate("ugrizy"):
            table[f"mag_{band}_lsst"] = rng.uniform(16, 17, n) - 0.1 * i
            table[f"mag_err_{band}_lsst"] = np.full(n, 0.01)
    return path


RAIL = {
    "columns": {"spec_z": "redshift", "dered_petro_r": "mag_r_lsst", "object_id": "id"},
    "magnitudes": [f"mag_{band}_lsst" for band in "ugrizy"],
    "magnitude_errors": [f"mag_err_{band}_lsst" for band in "ugrizy"],
}


@pytest.mark.parametrize("group", ["photometry", "/", "catalog/deep"])
def test_a_group_of_rail_is_a_table(group: str, tmp_path: Path) -> None:
    path = write_rail(tmp_path / "rail.hdf5", group)
    plan = catalogue.plan(catalogue.Settings(path=str(path), **RAIL), SurveyConfig(), Target(), 1)
    assert plan.shape == (40, 2, 6)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(plan.catalogue["spec_z"], file[group]["redshift"][:])
        np.testing.assert_allclose(plan.chunks(0)[0][:, 0, 5], file[group]["mag_y_lsst"][:], rtol=1e-6)
    assert plan.catalogue["object_id"][0] == 8062500000


def test_what_rail_writes_where_nothing_was_detected_is_named(tmp_path: Path) -> None:
    path = write_rail(tmp_path / "rail.hdf5")
    with h5py.File(path, "a") as file:
        file["photometry/mag_u_lsst"][3], file["photometry/mag_u_lsst"][5] = 99.0, np.nan
        file["photometry/mag_err_u_lsst"][3], file["photometry/mag_err_u_lsst"][5] = 27.8, np.nan
    settings = catalogue.Settings(path=str(path), **RAIL)
    with pytest.raises(
        DataError, match=r"rail.hdf5: .*mag_u_lsst has an empty cell .*: 5; .*99: not detected"
    ):
        catalogue.plan(settings, SurveyConfig(), Target(), 1)
    settings.drop_invalid = True
    assert catalogue.plan(settings, SurveyConfig(), Target(), 1).shape == (38, 2, 6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no column 'mag_u' (set by data.magnitudes). Its columns are: id, "),
        (["data.magnitudes=[mag_u_lsst]"], "Perhaps redshift: type data.columns.spec_z=redshift"),
        (
            ["data.magnitudes=[mag_u_lsst]", "data.columns.spec_z=redshift"],
            "Perhaps mag_r_lsst: type data.columns.dered_petro_r=mag_r_lsst",
        ),
        (["photometrie"], "add the group or data set to its name; there are [photometry]"),
    ],
)
def test_names_that_rail_gives_are_proposed(words: list[str], said: str, tmp_path: Path) -> None:
    path = write_rail(tmp_path / "rail.hdf5")
    group = "[photometrie]" if words == ["photometrie"] else ""
    words = [word for word in words if "=" in word]
    command = ["stage=prepare", "data=catalogue", "encoder=mlp", f"data.path={path}{group}", *words]
    assert said in run(*command, f"data_dir={tmp_path}", "logger=none").message


def test_several_groups_must_be_told_apart(tmp_path: Path) -> None:
    path = write_rail(tmp_path / "rail.hdf5")
    with h5py.File(path, "a") as file:
        file["meta/version"] = np.zeros(3)
    assert len(read_table(f"{path}[photometry]")) == 40
    with pytest.raises(DataError, match=r"add the group .*; there are \[meta\], \[photometry\]"):
        read_table(path)


# HATS


def write_hats(folder: Path, *, suffix: str = ".parquet", name: str = "hats.properties", **says: str) -> Path:
    """Write a catalogue of two orders of pixels as lsdb 0.11 does; `suffix` "/" makes folders of files."""
    rng = np.random.default_rng(4)
    for order, pixel, n in ((1, 44, 20), (0, 10, 30), (1, 5, 10)):
        columns = {
            "_healpix_29": np.sort(rng.integers(0, 2**60, n)),
            "objID": 10000 * pixel + np.arange(n),
            "ra": rng.uniform(0, 360, n),
            "dec": rng.uniform(-30, 30, n),
            "Z": rng.uniform(0.05, 0.39, n),
            "r": rng.uniform(15, 17, n),
            **{f"mag_{band}": rng.uniform(15, 17, n) for band in "ugriz"},
            "unused": np.full(n, "text"),
            "lightcurve": [[{"mjd": 1.0, "mag": 2.0}]] * n,
        }
        place = folder / "dataset" / f"Norder={order}" / "Dir=0" / f"Npix={pixel}{suffix.rstrip('/')}"
        (place if suffix == "/" else place.parent).mkdir(parents=True, exist_ok=True)
        table = pa.table(columns)
        if suffix == "/":
            pa.parquet.write_table(table[: n // 2], place / "part0.parquet")
            pa.parquet.write_table(table[n // 2 :], place / "part1.parquet")
        else:
            pa.parquet.write_table(table, place)
    for extra in ("_metadata", "_common_metadata", "data_thumbnail.parquet"):
        pa.parquet.write_table(table[:2], folder / "dataset" / extra)
    pa.parquet.write_table(table[:2], folder / "per_partition_statistics.parquet")
    (folder / "partition_info.csv").write_text("Norder,Npix\n1,44\n0,10\n1,5\n")
    own = {
        "obs_collection": "galaxies",
        "dataproduct_type": "object",
        "hats_nrows": "60",
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": "_healpix_29",
        "hats_npix_suffix": suffix,
    }
    lines = ["#HATS catalog", *(f"{key}={value}" for key, value in {**own, **says}.items() if value)]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder


COLUMNS = {"spec_z": "Z", "dered_petro_r": "r", "object_id": "objID"}


@pytest.mark.parametrize("suffix", [".parquet", "/"])
@pytest.mark.parametrize("name", ["hats.properties", "properties"])
def test_a_hats_catalogue_is_a_table(suffix: str, name: str, tmp_path: Path) -> None:
    path = write_hats(tmp_path / "galaxies", suffix=suffix, name=name)
    table = read_table(path)
    assert len(table) == 60
    assert table["objID"][[0, 30, 40]].tolist() == [100000, 50000, 440000]  # by order, then number
    assert not {"_healpix_29", "lightcurve", "Norder", "Dir", "Npix"} & set(table.colnames)
    settings = catalogue.Settings(path=str(path), columns=COLUMNS, magnitude_errors=[])
    plan = catalogue.plan(settings, SurveyConfig(), Target(), 1)
    np.testing.assert_array_equal(plan.catalogue["spec_z"], table["Z"])
    np.testing.assert_allclose(plan.chunks(0)[0][:, 0, 1], table["mag_g"], rtol=1e-6)


def test_only_columns_that_are_needed_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_hats(tmp_path / "galaxies")
    rules = TableRules(columns=COLUMNS, z_range=(0, 0.4), magnitudes=["mag_u"])
    table = read_table(path, rules.wanted)
    assert set(table.colnames) == {"objID", "ra", "dec", "Z", "r", "mag_u"}
    assert read_table(f"{path}[mag_g, MAG_R]").colnames == ["mag_g", "mag_r"]
    with pytest.raises(DataError, match=r"it has no column \[g\]. Its columns are: _healpix_29, objID"):
        read_table(f"{path}[g]")
    nameless = TableRules(columns={}, z_range=(0, 0.4))
    with pytest.raises(
        DataError, match=r"no column 'spec_z' .*mag_z, unused, .*Perhaps Z: type data.columns"
    ):
        standard_table(read_table(path, nameless.wanted), "t", nameless)
    to_predict = TableRules(columns={}, z_range=(0, 0.4), labelled=False)
    standard_table(read_table(path, to_predict.wanted), "t", to_predict)
    assert (
        "no column object_id, rows are numbered. Its columns are: ra, dec, _healpix_29, objID" in caplog.text
    )


def test_a_collection_leads_to_its_objects(tmp_path: Path) -> None:
    write_hats(tmp_path / "objects")
    write_hats(tmp_path / "objects_margin", dataproduct_type="margin")
    (tmp_path / "collection.properties").write_text(
        "#HATS Collection\nobs_collection=galaxies\nhats_primary_table_url=objects\n"
    )
    assert len(read_table(tmp_path)) == 60
    (tmp_path / "collection.properties").write_text("obs_collection=galaxies\nhats_primary_table_url=gone\n")
    with pytest.raises(DataError, match="hats_primary_table_url=gone: no HATS catalogue there"):
        read_table(tmp_path)


def cut_short(folder: Path) -> None:
    path = next(folder.rglob("Npix=44.parquet"))
    path.write_bytes(path.read_bytes()[:500])


def emptied(folder: Path) -> None:
    for path in folder.rglob("Npix=*.parquet"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "says", "said"),
    [
        (
            None,
            {"dataproduct_type": "margin"},
            "says dataproduct_type=margin: a HATS catalogue of objects is",
        ),
        (None, {"dataproduct_type": "association"}, "says dataproduct_type=association"),
        (None, {"dataproduct_type": ""}, "says dataproduct_type=: a HATS catalogue"),
        (None, {"hats_nrows": "61"}, "its files hold 60 rows, its properties say 61: fetch it anew"),
        (
            lambda f: next(f.rglob("Npix=5.parquet")).unlink(),
            {},
            "its files hold 50 rows, its properties say 60",
        ),
        (emptied, {}, "the HATS catalogue has no dataset/Norder=.*/Npix=.*.parquet"),
        (cut_short, {}, "cannot be read as .parquet"),
    ],
)
def test_what_is_no_catalogue_of_objects_is_refused(
    spoil: Callable[[Path], None] | None, says: dict[str, str], said: str, tmp_path: Path
) -> None:
    path = write_hats(tmp_path / "galaxies", **says)
    if spoil is not None:
        spoil(path)
    with pytest.raises(DataError, match=f"galaxies: .*{said}"):
        read_table(path)


def test_hats_from_the_command_line(tmp_path: Path) -> None:
    path = write_hats(tmp_path / "galaxies")
    words = [
        "stage=prepare",
        "data=catalogue",
        "encoder=mlp",
        f"data.path={path}",
        f"data_dir={tmp_path}/data",
    ]
    words += [f"data.columns.{ours}={theirs}" for ours, theirs in COLUMNS.items()]
    assert "60 galaxies" in run_well(*words, f"output_dir={tmp_path}/runs", "logger=none").out


def test_a_plain_folder_of_parquet_files_stays_one(tmp_path: Path) -> None:
    for i in range(2):
        pa.parquet.write_table(
            pa.table({"objID": np.arange(3) + 3 * i, "Z": np.ones(3)}), tmp_path / f"{i}.pq"
        )
    assert read_table(tmp_path)["objID"].tolist() == list(range(6))
    assert read_table(tmp_path, ["z"]).colnames == ["Z"]
