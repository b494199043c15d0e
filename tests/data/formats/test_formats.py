"""Every format of tables with every kind of column."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.io.votable import from_table, writeto
from astropy.table import Column, MaskedColumn, Table

from photoz_lit.data.columns import find_column, identities, numbers, text
from photoz_lit.data.formats import FORMATS, read_table, table_file
from photoz_lit.errors import DataError

FIRST_ID = 1237648720693755000


def galaxies(n: int = 3) -> Table:
    """Return columns of every kind, with an empty cell of each where there is a second row."""
    second = np.arange(n) == 1
    table = Table()
    table["object_id"] = MaskedColumn(np.arange(n) + FIRST_ID, mask=second)
    table["spec_z"] = MaskedColumn(np.linspace(0.1, 0.3, n), mask=second)
    table["name"] = MaskedColumn([f"Größe {i}" for i in range(n)], mask=second)
    table["ra"] = Column(np.linspace(0.1, 1.0, n), unit=u.rad)
    table["mags"] = np.arange(5.0 * n).reshape(n, 5)
    return table


def flat(table: Table) -> Table:
    return table[[name for name in table.colnames if table[name].ndim == 1]]


def write_text(
    table: Table, path: Path, delimiter: str = ",", head: str = "", encoding: str = "utf-8"
) -> None:
    cells = [["" if c is np.ma.masked else str(c) for c in row] for row in flat(table).iterrows()]
    lines = [delimiter.join(row) for row in [flat(table).colnames, *cells]]
    content = (head + "\n".join(lines) + "\n").encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_fits(table: Table, path: Path) -> None:
    images = [fits.PrimaryHDU(), fits.ImageHDU(np.zeros((4, 4)))]
    written = table.copy()
    written["name"] = MaskedColumn(
        [s.encode() for s in np.ma.filled(table["name"], "")], mask=table["name"].mask
    )
    hdu = fits.table_to_hdu(written)
    hdu.name = "GALAXIES"
    path = Path(str(path).partition("[")[0])
    fits.HDUList([*images, hdu]).writeto(path)


def write_hdf5_columns(table: Table, path: Path, group: str = "/", text_type: Any = None) -> None:
    path = Path(str(path).partition("[")[0])
    with h5py.File(path, "w") as file:
        place = file.require_group(group)
        for name in table.colnames:
            filled = np.ma.filled(table[name], b"" if name == "name" else 0)
            if name == "name":
                filled = np.array([s.encode() if isinstance(s, str) else s for s in filled.tolist()])
                filled = filled.astype(text_type or filled.dtype)
            place[name] = filled
            if hasattr(table[name], "mask") and table[name].mask.any():
                place[f"{name}.mask"] = table[name].mask
        place["ra"].attrs["unit"] = "rad"
        place["bands"] = np.arange(5)
        place["images"] = np.zeros((len(table), 2, 4, 4))


def write_hdf5_compound(table: Table, path: Path) -> None:
    written = table.copy()
    written["name"] = MaskedColumn(
        [s.encode() for s in np.ma.filled(table["name"], "")], mask=table["name"].mask
    )
    written.write(path, path="galaxies", serialize_meta=True)
    with h5py.File(path, "a") as file:
        file["bands"] = np.arange(5)


def write_parquet(table: Table, path: Path) -> None:
    columns = {name: pa.array(table[name].tolist()) for name in table.colnames}
    columns["split"] = pa.array(["train"] * len(table)).dictionary_encode()
    fields = [
        pa.field(n, c.type, metadata={"unit": "rad"} if n == "ra" else None) for n, c in columns.items()
    ]
    pyarrow.parquet.write_table(pa.table(list(columns.values()), schema=pa.schema(fields)), path)


def write_folder(table: Table, path: Path) -> None:
    path.mkdir()
    (path / "_metadata").write_bytes(b"")
    (path / "README.md").write_text("not a table")
    for i in range(0, max(len(table), 1), 2):
        write_parquet(table[i : i + 2], path / f"part{i // 2}.parquet")


def write_votable(table: Table, path: Path) -> None:
    writeto(from_table(table), str(path))


def write_zipped(table: Table, path: Path) -> None:
    write_fits(table, path.with_suffix(""))
    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))


WRITERS: dict[str, Callable[[Table, Path], None]] = {
    "a.csv": write_text,
    "a.csv.gz": write_text,
    "semicolons.csv": lambda t, p: write_text(t, p, ";"),
    "tabs.csv": lambda t, p: write_text(t, p, "\t"),
    "a.tsv": lambda t, p: write_text(t, p, "\t"),
    "bom.csv": lambda t, p: write_text(t, p, encoding="utf-8-sig"),
    "excel.txt": lambda t, p: write_text(t, p, "\t", encoding="utf-16"),
    "latin.csv": lambda t, p: write_text(t, p, encoding="latin-1"),
    "skyserver.csv": lambda t, p: write_text(t, p, head="#Table1\n"),
    "topcat.csv": lambda t, p: write_text(t, p, head="# my galaxies\n# "),
    "a.ecsv": lambda t, p: t.write(p),
    "a.fits": write_fits,
    "a.fits[2]": write_fits,
    "a.fits[galaxies]": write_fits,
    "a.fit": write_fits,
    "a.fits.gz": write_zipped,
    "a.fits.fz": write_fits,
    "a.vot": write_votable,
    "a.xml": write_votable,
    "a.parquet": write_parquet,
    "folder": write_folder,
    "folder.parquet": write_folder,
    "columns.hdf5": write_hdf5_columns,
    "strings.h5": lambda t, p: write_hdf5_columns(t, p, text_type=h5py.string_dtype()),
    "group.hdf5": lambda t, p: write_hdf5_columns(t, p, "survey/galaxies"),
    "group.hdf5[survey/galaxies]": lambda t, p: write_hdf5_columns(t, p, "survey/galaxies"),
    "compound.hdf5": write_hdf5_compound,
}
ALIKE = {".tsv.gz", ".ecsv.gz", ".fits.bz2", ".fit.gz", ".vot.gz", ".votable", ".pq"}  # to those above
WITH_UNITS = [n for n in WRITERS if not n.endswith((".csv", ".csv.gz", ".tsv", ".txt"))]


def read(name: str, table: Table, tmp_path: Path) -> Table:
    WRITERS[name](table, tmp_path / name)
    return read_table(tmp_path / name)


def test_every_format_is_written_here() -> None:
    tested = {name.partition("[")[0] for name in WRITERS}
    untested = [e for e in FORMATS if not any(name.endswith(e) for name in tested)]
    assert set(untested) <= {
        ".tsv.gz",
        ".dat",
        ".ecsv.gz",
        ".fits.bz2",
        ".fit.gz",
        ".vot.gz",
        ".votable",
        ".pq",
    }


@pytest.mark.parametrize("name", WRITERS)
def test_empty_cells_stay_empty_and_integers_whole(name: str, tmp_path: Path) -> None:
    table = read(name, galaxies(), tmp_path)
    ids, empty = identities(table, "object_id", name)
    assert ids.dtype == np.int64
    assert ids.tolist() == [FIRST_ID, -1, FIRST_ID + 2]
    assert empty.tolist() == [False, True, False]
    np.testing.assert_array_equal(numbers(table, "spec_z", name), [0.1, np.nan, 0.3])


@pytest.mark.parametrize("name", WRITERS)
def test_text_is_decoded(name: str, tmp_path: Path) -> None:
    words, empty = text(read(name, galaxies(), tmp_path), "name", name)
    assert words.tolist() == ["Größe 0", "", "Größe 2"]
    assert empty.tolist() == [False, True, False]


@pytest.mark.parametrize("name", WITH_UNITS)
def test_units_are_known_and_vectors_have_their_values(name: str, tmp_path: Path) -> None:
    table = read(name, galaxies(), tmp_path)
    np.testing.assert_allclose(numbers(table, "ra", name, "angle"), np.rad2deg([0.1, 0.55, 1.0]))
    assert find_column(table, "mags[2]", name) == "mags[2]"
    np.testing.assert_array_equal(numbers(table, "mags[2]", name), [2.0, 7.0, 12.0])
    with pytest.raises(DataError, match=r"column mags has 5 values a row: type mags\[0\]"):
        numbers(table, "mags", name)


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_of_one_row_and_one_of_none(name: str, tmp_path: Path) -> None:
    assert identities(read(name, galaxies(1), tmp_path), "object_id", name)[0].tolist() == [FIRST_ID]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="the table has no rows"):
        read(name, flat(galaxies())[:0], empty)


def test_several_tables_of_a_file_are_told_apart(tmp_path: Path) -> None:
    file = [fits.PrimaryHDU(), *(fits.table_to_hdu(Table({"z": np.full(n, n)})) for n in (2, 3))]
    file[2].name = "TEST"
    fits.HDUList(file).writeto(tmp_path / "a.fits")
    assert [len(read_table(tmp_path / f"a.fits{part}")) for part in ("", "[1]", "[2]", "[test]")] == [
        2,
        2,
        3,
        3,
    ]
    with pytest.raises(DataError, match=r"has no table \[5\]; there are \[1\], \[2\] TEST"):
        read_table(tmp_path / "a.fits[5]")
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5["train/z"], h5["test/z"] = np.zeros(2), np.zeros(3)
    assert len(read_table(tmp_path / "a.h5[test]")) == 3
    for path in (tmp_path / "a.h5", tmp_path / "a.h5[val]"):
        with pytest.raises(DataError, match=r"there are \[test\], \[train\]"):
            read_table(path)


def test_compound_data_sets_and_columns_of_one_length_are_one_table(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = Table({"object_id": np.arange(4)}).as_array()
        file["spec_z"] = np.linspace(0.1, 0.2, 4)
        file["history"] = Table({"object_id": np.arange(2)}).as_array()
    assert set(read_table(tmp_path / "a.h5").colnames) == {"object_id", "spec_z"}
    assert len(read_table(tmp_path / "a.h5[history]")) == 2


def test_columns_may_stand_between_blanks(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_text("# SExtractor-like\nobject_id  spec_z\n  1  0.1\n 22  0.2\n")
    table = read_table(tmp_path / "a.dat")
    assert table["object_id"].tolist() == [1, 22]
    assert table["spec_z"].tolist() == [0.1, 0.2]


def test_a_name_with_brackets_is_a_name(tmp_path: Path) -> None:
    flat(galaxies()).write(tmp_path / "a [1].csv")
    assert len(read_table(tmp_path / "a [1].csv")) == 3
    (tmp_path / "a.csv[1]").write_text("x")
    assert table_file(tmp_path / "a.csv[1]") == (tmp_path / "a.csv[1]", None)
    assert table_file("a.fits[ 2 ]") == (Path("a.fits"), "2")


def test_columns_that_nobody_uses_may_hold_anything(tmp_path: Path) -> None:
    odd = [{"a": 1}, None, {"a": 3}]
    content = pa.table({"z": [0.1, 0.2, 0.3], "odd": odd, "lists": [[1], [1, 2], None]})
    pyarrow.parquet.write_table(content, tmp_path / "a.parquet")
    assert numbers(read_table(tmp_path / "a.parquet"), "z", "a").tolist() == [0.1, 0.2, 0.3]
    lengths = fits.Column("v", "PD()", array=np.array([[1.0], [1.0, 2.0]], dtype=object))
    fits.BinTableHDU.from_columns([fits.Column("z", "D", array=[0.1, 0.2]), lengths]).writeto(
        tmp_path / "a.fits"
    )
    assert numbers(read_table(tmp_path / "a.fits"), "z", "a").tolist() == [0.1, 0.2]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.xyz", b"1", "unknown kind of table '.xyz'. Known: .csv"),
        ("a.csv", bytes(range(256)) * 9, "cannot be read"),
        ("a.csv.gz", b"rubbish", "cannot be read"),
        ("a.ecsv", b"rubbish", "cannot be read"),
        ("a.fits", b"SIMPLE  =                    T", "cannot be read"),
        ("a.vot", b"rubbish", "cannot be read"),
        ("a.hdf5", b"rubbish", "cannot be read"),
        ("a.parquet", b"rubbish", "cannot be read"),
        ("a.csv", b"spec_z,mag_r\n", "the table has no rows"),
        ("a.csv", b"", "the table has no rows"),
    ],
)
def test_unreadable_tables_are_named(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name) as caught:
        read_table(tmp_path / name)
    assert said in str(caught.value)


def test_what_holds_no_table_says_so(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(tmp_path / "image.fits")
    with pytest.raises(DataError, match="it holds no table, only images"):
        read_table(tmp_path / "image.fits")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"the folder holds no \.parquet files"):
        read_table(tmp_path / "folder")
    for name, said in (
        ("a.csv", "is not known in text, which holds one table"),
        ("a.ecsv", "is not known in text, which holds one table"),
        ("a.parquet", "Its columns are: object_id, spec_z"),
    ):
        WRITERS[name](galaxies(), tmp_path / name)
        with pytest.raises(DataError, match=rf"\[2\].* {said}"):
            read_table(tmp_path / f"{name}[2]")


def test_truncated_fits_is_refused(tmp_path: Path) -> None:
    Table({"z": np.arange(9000.0)}).write(tmp_path / "a.fits")
    content = (tmp_path / "a.fits").read_bytes()
    for kept in (len(content) // 2, len(content) - 2880):
        (tmp_path / "a.fits").write_bytes(content[:kept])
        with pytest.raises(DataError, match="cannot be read"):
            read_table(tmp_path / "a.fits")


def test_absent_table_says_where_paths_start(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file.*data.path.*relative paths start at"):
        read_table(tmp_path / "no.csv")
