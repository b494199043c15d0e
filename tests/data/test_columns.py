import numpy as np
import pytest
from astropy import units as u
from astropy.table import MaskedColumn, Table

from photoz_lit.data.columns import find_column, identities, numbers, text
from photoz_lit.errors import DataError

BIG = 1237648720693755000


def column(values: object, unit: str | None = None) -> Table:
    table = Table({"c": values})
    table["c"].unit = None if unit is None else u.Unit(unit, parse_strict="silent")
    return table


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([BIG, BIG + 1]), [BIG, BIG + 1]),
        (np.array([7, 8], dtype=">i2"), [7, 8]),
        (np.array([7, 8], dtype=np.uint64), [7, 8]),
        (np.array([2**64 - 1, 8], dtype=np.uint64), [str(2**64 - 1), "8"]),
        (np.array([7.0, 2.0**53]), [7, 2**53]),
        (np.array([7.0, np.nan]), [7, -1]),
        (np.array([7.0, np.nan], dtype=np.float32), [7, -1]),
        (MaskedColumn([BIG, 1], mask=[False, True]), [BIG, -1]),
        (np.array([str(BIG), "8"]), [BIG, 8]),
        (np.array([b"7", b" 8 "]), [7, 8]),
        (np.array([BIG, None], dtype=object), [BIG, -1]),
        (np.array(["7.0", "8.0", ""]), [7, 8, -1]),
        (np.array(["007", "8"]), ["007", "8"]),
        (np.array(["99999999999999999999", "8"]), ["99999999999999999999", "8"]),
        (np.array([" a1 ", "7"]), ["a1", "7"]),
        (np.array(["Größe", "NGC 1", "n/a"]), ["Größe", "NGC 1", ""]),
        (np.array(["Gro\u0308sse"]), ["Grösse"]),  # one letter or two code points
        (np.array(["Größe".encode(), "Größe".encode("latin-1")], dtype=object), ["Größe", "Größe"]),
        (np.array(["银河", "🌌"]), ["银河", "🌌"]),
        (np.array(["1e5", "abc"]), ["1e5", "abc"]),
    ],
)
def test_ids_have_one_form(values: object, expected: list[object]) -> None:
    ids, empty = identities(column(values), "c", "t")
    assert ids.tolist() == expected
    assert ids.dtype.kind == ("i" if isinstance(expected[0], int) else "U")
    assert empty.tolist() == [one in (-1, "") for one in expected]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([1.237648720693755e18, 7.0]), r"above 2\^53, .* such as 1.237648720693755e"),
        (np.array(["1.24E+18", "1.24E+18"]), r"above 2\^53"),
        (np.array([f"{BIG}.0"]), r"above 2\^53"),
        (np.array([np.inf]), r"above 2\^53"),
        (np.array([1.6e8], dtype=np.float32), r"above 2\^24"),
        (np.array([7.5, 8.0]), "numbers that are not whole, such as 7.5"),
        (np.array(["7.5", "8"]), "numbers that are not whole"),
        (np.zeros((2, 3)), "column c has 3 values a row"),
    ],
)
def test_ids_that_are_none_are_refused(values: object, said: str) -> None:
    with pytest.raises(DataError, match=f"t: column c .*{said}|t: column c has"):
        identities(column(values), "c", "t")


@pytest.mark.parametrize(
    ("kind", "unit", "factor"),
    [
        ("angle", "deg", 1.0),
        ("angle", "degrees", 1.0),
        ("angle", None, 1.0),
        ("angle", "rad", 180 / np.pi),
        ("angle", "arcsec", 1 / 3600),
        ("angle", "hourangle", 15.0),
        ("magnitude", "mag", 1.0),
        ("magnitude", "mag(AB)", 1.0),
        ("magnitude", "AB mag", 1.0),
        ("magnitude", "ABmag", 1.0),
        ("magnitude", "magnitude", 1.0),
        ("magnitude", "mmag", 1e-3),
        ("magnitude", "-", 1.0),
        ("redshift", "", 1.0),
        ("redshift", "dimensionless", 1.0),
        ("redshift", "redshift", 1.0),
        (None, "Jy", 1.0),
    ],
)
def test_units_are_converted(kind: str | None, unit: str | None, factor: float) -> None:
    np.testing.assert_allclose(numbers(column([2.0, 4.0], unit), "c", "t", kind), [2 * factor, 4 * factor])


@pytest.mark.parametrize(
    ("kind", "unit"),
    [
        *(
            ("magnitude", unit)
            for unit in ("uJy", "nJy", "Jy", "nmgy", "nanomaggies", "ct / s", "erg / (s cm2)", "deg")
        ),
        *(("redshift", unit) for unit in ("km / s", "m/s", "Mpc", "mag")),
        *(("angle", unit) for unit in ("mag", "h", "pix")),
    ],
)
def test_units_of_another_kind_are_refused(kind: str, unit: str) -> None:
    table = column([2.0, 4.0], unit)
    with pytest.raises(
        DataError, match=r"t: column c is in .*, (magnitudes|degrees|a redshift without a unit) expected"
    ):
        numbers(table, "c", "t", kind)


@pytest.mark.parametrize(
    ("wanted", "columns", "found"),
    [
        ("ra", ["ra", "RA"], "ra"),
        ("ra", ["RA", "Dec"], "RA"),
        ("objID", ["OBJID"], "OBJID"),
        ("ra", ["ra_deg"], None),
        ("mags[2]", ["MAGS"], "MAGS[2]"),
        ("mags[2]", ["mags[2]", "mags"], "mags[2]"),
        ("E(B-V)", ["e(b-v)"], "e(b-v)"),
    ],
)
def test_columns_are_found_by_name_then_whatever_their_capitals(
    wanted: str, columns: list[str], found: str | None
) -> None:
    assert find_column(Table({name: [1.0] for name in columns}), wanted, "t") == found


def test_a_name_of_several_columns_is_asked_for() -> None:
    with pytest.raises(DataError, match="t: column 'ra' may be RA or Ra: type which is meant"):
        find_column(Table({"RA": [1.0], "Ra": [1.0]}), "ra", "t")


def test_numbers_may_come_as_text_and_other_objects() -> None:
    for values in (["0.1", "2"], [b"0.1", b"2"], np.array([0.1, 2], dtype=object)):
        np.testing.assert_array_equal(numbers(column(values), "c", "t"), [0.1, 2])
    np.testing.assert_array_equal(
        numbers(column(np.array([0.1, None], dtype=object)), "c", "t"), [0.1, np.nan]
    )
    for values, said in (
        (["0.1", "0,2"], "'0,2' in row 1"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "text"),
    ):
        with pytest.raises(
            DataError, match=f"t: column c holds text where numbers are needed.*{said}|holds text"
        ):
            numbers(column(values), "c", "t")


def test_a_column_of_one_value_a_row_is_a_column() -> None:
    np.testing.assert_array_equal(numbers(column([[0.1], [2.0]]), "c", "t"), [0.1, 2.0])


def test_an_index_must_be_one_of_a_vector() -> None:
    table = Table({"mags": np.zeros((2, 5)), "z": np.zeros(2), "image": np.zeros((2, 3, 3))})
    with pytest.raises(DataError, match=r"there is no mags\[5\]: the last value of column mags is mags\[4\]"):
        numbers(table, "mags[5]", "t")
    with pytest.raises(DataError, match="column z has one value a row"):
        numbers(table, "z[0]", "t")
    with pytest.raises(DataError, match="column image has 3 x 3 values a row"):
        numbers(table, "image", "t")


def test_text_is_stripped_and_blank_words_are_empty() -> None:
    words, empty = text(column([" a ", "NaN", "", "none"]), "c", "t")
    assert words.tolist() == ["a", "NaN", "", "none"]
    assert empty.tolist() == [False, True, True, True]
