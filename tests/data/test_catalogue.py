import itertools
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet
import pytest
from astropy.table import Table
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from photoz_lit.data.catalogue import TableRules, standard_table
from photoz_lit.data.formats import read_table
from photoz_lit.data.splits import assign_splits, same_object, with_ids
from photoz_lit.errors import DataError


def table(n: int = 60, **columns: object) -> Table:
    rng = np.random.default_rng(0)
    own = {
        "object_id": np.arange(n) + 1000,
        "spec_z": rng.uniform(0.01, 0.39, n),
        "dered_petro_r": rng.uniform(14, 17.7, n),
        "ebv": rng.uniform(0, 0.1, n),
    }
    return Table({**own, **columns})


def checked(given: Table, drop_invalid: bool = False) -> tuple[Table, np.ndarray]:
    rules = TableRules(columns={}, z_range=(0.0, 0.4), drop_invalid=drop_invalid)
    return standard_table(given, "galaxies.csv", rules)


@pytest.mark.parametrize("name", ["a.csv", "a.ecsv", "a.fits", "a.parquet", "a.hdf5"])
def test_tables_of_every_kind_are_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "a.hdf5":
        with h5py.File(path, "w") as file:
            for column in table().colnames:
                file[column] = np.asarray(table()[column])
    elif name == "a.parquet":
        columns = {column: np.asarray(table()[column]) for column in table().colnames}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    else:
        table().write(path)
    read = read_table(path)
    np.testing.assert_allclose(read["spec_z"], table()["spec_z"])
    assert list(read["object_id"]) == list(table()["object_id"])


def test_empty_cells_of_parquet_are_found(tmp_path: Path) -> None:
    columns = {"spec_z": [0.1, None, 0.2], "dered_petro_r": [15.0, 16.0, 17.0], "object_id": ["a", "b", "c"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"column spec_z has an empty cell in 1 of 3 rows"):
        checked(read_table(tmp_path / "a.parquet"))


def test_hdf5_of_one_compound_data_set_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["galaxies"] = table().as_array()
    assert set(read_table(tmp_path / "a.h5").colnames) == set(table().colnames)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.xyz", b"1", "unknown kind of table '.xyz'. Known: .csv"),
        ("a.csv", bytes(range(256)) * 9, "cannot be read"),
        ("a.fits", b"SIMPLE  =                    T", "cannot be read"),
        ("a.hdf5", b"rubbish", "cannot be read"),
        ("a.parquet", b"rubbish", "cannot be read"),
        ("a.csv", b"spec_z,mag_r\n", "the table has no rows"),
    ],
)
def test_unreadable_tables_are_named(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name) as caught:
        read_table(tmp_path / name)
    assert said in str(caught.value)


def test_truncated_fits_is_refused(tmp_path: Path) -> None:
    table(3000).write(tmp_path / "a.fits")
    content = (tmp_path / "a.fits").read_bytes()
    for kept in (len(content) // 2, len(content) - 2880):
        (tmp_path / "a.fits").write_bytes(content[:kept])
        with pytest.raises(DataError, match="cannot be read"):
            read_table(tmp_path / "a.fits")


def test_absent_table_says_where_paths_start(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file.*data.path.*relative paths start at"):
        read_table(tmp_path / "no.csv")


def test_standard_table_keeps_what_is_ours() -> None:
    out, rows = checked(table(colour=np.ones(60)))
    assert out.colnames == ["object_id", "spec_z", "dered_petro_r", "ebv"]
    assert rows.tolist() == list(range(60))


def test_columns_of_other_names_are_found_and_missing_ones_named() -> None:
    given = table()
    given.rename_column("spec_z", "Z")
    out, _ = standard_table(given, "t", TableRules(columns={"spec_z": "Z"}, z_range=(0, 0.4)))
    np.testing.assert_array_equal(out["spec_z"], table()["spec_z"])
    with pytest.raises(DataError, match=r"no column 'spec_z' .set by data.columns.spec_z.*Z, dered_petro_r"):
        checked(given)
    with pytest.raises(DataError, match=r"data.columns names redshift; it may name object_id, spec_z"):
        standard_table(given, "t", TableRules(columns={"redshift": "Z"}, z_range=(0, 0.4)))
    with pytest.raises(DataError, match=r"no column 'g' .set by data.magnitudes"):
        standard_table(table(), "t", TableRules(columns={}, magnitudes=["g"], z_range=(0, 0.4)))
    with pytest.raises(DataError, match="1 columns for 2 magnitudes"):
        standard_table(
            table(),
            "t",
            TableRules(columns={}, magnitudes=["g", "r"], magnitude_errors=["e"], z_range=(0, 0.4)),
        )


def masked(given: Table) -> None:
    given["spec_z"] = np.ma.masked_array(given["spec_z"], np.arange(60) == 4)


FAULTS: dict[str, tuple[Callable[[Table], object], str]] = {
    "empty cell": (masked, "column spec_z has an empty cell in 1 of 60 rows (counted from 0): 4"),
    "nan": (lambda t: t["ebv"].__setitem__(4, np.nan), "column ebv is not finite"),
    "infinite": (lambda t: t["spec_z"].__setitem__(4, np.inf), "column spec_z is not finite"),
    "negative redshift": (lambda t: t["spec_z"].__setitem__(4, -0.1), "spec_z is negative"),
    "beyond the survey": (lambda t: t["spec_z"].__setitem__(4, 0.5), "outside the survey's 0-0.4"),
    "negative extinction": (lambda t: t["ebv"].__setitem__(4, -0.1), "ebv is negative"),
    "sentinel": (lambda t: t["dered_petro_r"].__setitem__(4, -9999), "dered_petro_r is no magnitude"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_rows_that_cannot_be_used_are_named_or_left_out(name: str) -> None:
    spoil, said = FAULTS[name]
    given = table()
    spoil(given)
    with pytest.raises(DataError) as caught:
        checked(given)
    assert said in str(caught.value)
    assert "rows (counted from 0): 4." in str(caught.value)
    assert "data.drop_invalid=true" in str(caught.value)
    out, rows = checked(given, drop_invalid=True)
    assert len(out) == 59
    assert 4 not in rows


def test_text_in_a_column_of_numbers_is_named() -> None:
    given = table()
    given["spec_z"] = [*["0.1"] * 59, "high"]
    with pytest.raises(DataError, match=r"column spec_z holds text where numbers are needed.*high"):
        checked(given)


def test_no_usable_row_is_an_error() -> None:
    with pytest.raises(DataError, match="no usable rows are left"):
        checked(table(spec_z=np.full(60, 9.0)), drop_invalid=True)


def test_rows_without_an_id_are_numbered_and_equal_rows_share_a_number() -> None:
    given = table()
    given.remove_column("object_id")
    assert list(with_ids(checked(given[[5, 6, 5, 7]])[0])["object_id"]) == [0, 1, 0, 3]
    assert list(with_ids(checked(table())[0])["object_id"]) == list(range(1000, 1060))


def test_one_object_is_one_id_or_one_place_on_the_sky() -> None:
    arcsec = 1 / 3600
    ra = np.array([10.0, 10.0, 10.0, 50.0, 0.0, 360 - 0.4 * arcsec])
    dec = np.array([0.0, 0.9 * arcsec, 1.8 * arcsec, 20.0, -5.0, -5.0])
    given = table(6, object_id=["a", "b", "c", "d", "e", "f"], ra=ra, dec=dec)
    group = same_object(given)
    assert len(set(group[:3])) == 1  # a chain of neighbours
    assert group[4] == group[5]  # across ra = 0
    assert len(set(group)) == 3
    given["object_id"] = ["a", "b", "c", "d", "d", "f"]
    assert len(set(same_object(given))) == 2
    far = table(2, object_id=["a", "b"], ra=[10.0, 10.0], dec=[0.0, 1.1 * arcsec])
    assert len(set(same_object(far))) == 2


def splits_of(given: Table, seed: int = 0, n_train: int | None = None) -> np.ndarray:
    return assign_splits(given, test_fraction=0.2, val_fraction=0.1, seed=seed, n_train=n_train)


@settings(max_examples=25, deadline=None)
@given(ids=st.lists(st.integers(0, 40), min_size=80, max_size=80), seed=st.integers(0, 99))
def test_splits_never_part_an_object(ids: list[int], seed: int) -> None:
    assume(len(set(ids)) >= 20)
    given = table(80, object_id=ids)
    split = splits_of(given, seed)
    assert set(split) == {"train", "val", "test"}
    for one in set(ids):
        assert len(set(split[np.asarray(ids) == one])) == 1


def test_near_positions_are_never_parted() -> None:
    rng = np.random.default_rng(1)
    ra, dec = np.tile(rng.uniform(0, 360, 50), 2), np.tile(rng.uniform(-60, 60, 50), 2)
    dec[50:] += 0.5 / 3600
    split = splits_of(table(100, object_id=np.arange(100), ra=ra, dec=dec))
    assert (split[:50] == split[50:]).all()


def test_splits_have_their_sizes_and_are_seeded() -> None:
    given = table(1000)
    split = splits_of(given)
    assert [(split == name).sum() for name in ("train", "val", "test")] == [700, 100, 200]
    np.testing.assert_array_equal(split, splits_of(given))
    assert (split != splits_of(given, seed=1)).any()


def test_n_train_takes_from_the_training_split_only() -> None:
    given = table(1000)
    full, less = splits_of(given), splits_of(given, n_train=50)
    assert (less == "train").sum() == 50
    assert (full[less == "train"] == "train").all()
    assert (full[less == "unused"] == "train").all()
    np.testing.assert_array_equal(full[less == "test"], "test")
    np.testing.assert_array_equal(less == "val", full == "val")


@pytest.mark.parametrize("kind", ["U", "S"])
def test_a_given_test_split_stands_and_takes_duplicates_along(kind: str) -> None:
    given = table(100)
    given["split"] = np.array(["train"] * 80 + ["test"] * 20, dtype=kind)
    given["object_id"][0] = given["object_id"][99]
    split = splits_of(given)
    assert set(np.flatnonzero(split == "test")) == {0, *range(80, 100)}
    assert (split == "val").any()


def test_too_few_galaxies_for_a_split() -> None:
    with pytest.raises(DataError, match="the val split is empty with 4 galaxies: use more galaxies"):
        splits_of(table(4))


def test_galaxies_without_labels_are_all_kept_and_flagged() -> None:
    given = table()
    given.remove_column("dered_petro_r")
    given["spec_z"][:3] = np.nan, -1, 7
    given["ebv"][4] = np.nan
    given["ra"] = np.linspace(0, 359, 60)
    given["dec"] = np.linspace(-95, 50, 60)
    out, rows = standard_table(given, "t", TableRules(columns={}, z_range=(0, 0.4), labelled=False))
    assert rows.tolist() == list(range(60))
    assert np.flatnonzero(out["flag"] == "table").tolist() == [0, 1, 2, 4]
    assert np.isfinite(out["ebv"]).all()
    np.testing.assert_array_equal(out["spec_z"], given["spec_z"])


def test_flagged_galaxies_are_in_no_split() -> None:
    given = table()
    given["flag"] = np.where(np.arange(60) % 7 == 0, "pixels", "")
    split = assign_splits(given, test_fraction=0.2, val_fraction=0.2, seed=1)
    assert (split[::7] == "unused").all()
    plain = assign_splits(table(), test_fraction=0.2, val_fraction=0.2, seed=1)
    others = np.arange(60) % 7 > 0
    assert split[others].tolist() == plain[others].tolist()


def test_rows_without_labels_get_numbers_of_their_own() -> None:
    given = Table({"ebv": [0.1, 0.1, 0.1]})
    assert with_ids(given.copy())["object_id"].tolist() == [0, 0, 0]
    assert with_ids(given.copy(), labelled=False)["object_id"].tolist() == [0, 1, 2]


def test_published_validation_galaxies_stay_so() -> None:
    given = table()
    given["split"] = np.array(["train", "train", "val", "test"])[np.arange(60) % 4]
    split = assign_splits(given, test_fraction=0.2, val_fraction=0.2, seed=1)
    assert split.tolist() == given["split"].tolist()


# Other quantities than redshift


METALLICITY = TableRules(columns={}, z_range=(-3.0, 1.0), target="feh")


def test_a_table_of_another_target_needs_no_spec_z() -> None:
    given = table(feh=np.linspace(-2.9, 0.9, 60))
    out, rows = standard_table(given, "stars.csv", METALLICITY)
    assert out.colnames == ["object_id", "feh", "spec_z", "dered_petro_r", "ebv"]
    assert len(rows) == 60
    given["spec_z"][3] = np.nan  # carried, and not looked at
    given["dered_petro_r"] *= 100  # any quantity
    assert len(standard_table(given, "stars.csv", METALLICITY)[0]) == 60
    del given["spec_z"]
    assert standard_table(given, "stars.csv", METALLICITY)[0].colnames[1] == "feh"
    del given["feh"]
    with pytest.raises(DataError, match=r"no column 'feh' .set by target.column or data.columns.target"):
        standard_table(given, "stars.csv", METALLICITY)


def test_true_values_that_cannot_be_used_are_named_or_left_out() -> None:
    given = table(feh=np.linspace(-2.9, 0.9, 60))
    given["feh"][[4, 7]] = 1.5, np.nan
    with pytest.raises(DataError, match="column feh is not finite in 1 of 60 rows"):
        standard_table(given, "stars.csv", METALLICITY)
    given["feh"][7] = 0.0
    with pytest.raises(DataError, match="feh is outside the survey's -3 to 1 in 1 of 60 rows"):
        standard_table(given, "stars.csv", METALLICITY)
    given["feh"][7] = np.nan
    rules = TableRules(columns={}, z_range=(-3.0, 1.0), target="feh", drop_invalid=True)
    assert list(set(range(60)) - set(standard_table(given, "stars.csv", rules)[1])) == [4, 7]
    unlabelled = TableRules(columns={}, z_range=(-3.0, 1.0), target="feh", labelled=False)
    out, _ = standard_table(given, "stars.csv", unlabelled)
    assert (np.asarray(out["flag"]) == "").all()  # nothing is asked of what is to be predicted
    np.testing.assert_array_equal(np.isnan(out["feh"]), np.arange(60) == 7)


def test_the_truth_is_no_feature() -> None:
    given = table(feh=np.linspace(0.1, 0.9, 60))
    rules = TableRules(columns={}, z_range=(0, 1), magnitudes=["feh"], target="feh")
    with pytest.raises(DataError, match=r"data\.magnitudes names feh, the true values"):
        standard_table(given, "stars.csv", rules)


def test_thinning_keeps_the_fraction_in_the_range_and_all_else() -> None:
    given = table(1000)
    fractions = {"test_fraction": 0.2, "val_fraction": 0.1, "seed": 3}
    whole = assign_splits(given, **fractions)
    inside = (given["spec_z"] >= 0.1) & (given["spec_z"] < 0.2) & (whole == "train")
    thinned = assign_splits(given, **fractions, thin=[0.1, 0.2, 0.1])
    assert (thinned[inside] == "train").sum() == round(0.1 * inside.sum()) > 0
    assert (thinned[inside & (thinned != "train")] == "unused").all()
    np.testing.assert_array_equal(thinned[~inside], whole[~inside])
    # n_train and train_fraction count what thinning leaves.
    left = (thinned == "train").sum()
    for n, more in ((round(0.5 * left), {"train_fraction": 0.5}), (40, {"n_train": 40})):
        fewer = assign_splits(given, **fractions, thin=[0.1, 0.2, 0.1], **more)
        assert (fewer == "train").sum() == n
        assert (thinned[fewer == "train"] == "train").all()


def test_smaller_shares_of_the_training_rows_are_parts_of_larger_ones() -> None:
    splits = [
        assign_splits(table(500), test_fraction=0.2, val_fraction=0.1, seed=0, train_fraction=share)
        for share in (1.0, 0.5, 0.25)
    ]
    sizes = [(split == "train").sum() for split in splits]
    assert sizes == [350, 175, round(350 / 4)]
    for more, fewer in itertools.pairwise(splits):
        assert set(np.flatnonzero(fewer == "train")) < set(np.flatnonzero(more == "train"))
        for name in ("val", "test"):
            np.testing.assert_array_equal(fewer == name, more == name)


def test_training_rows_are_thinned_by_the_target() -> None:
    given = table(200, feh=np.linspace(0.0, 1.0, 200))
    split = assign_splits(
        given, test_fraction=0.2, val_fraction=0.1, seed=0, thin=[0.5, 2.0, 0.0], target="feh"
    )
    assert (np.asarray(given["feh"])[split == "train"] < 0.5).all()
    assert (np.asarray(given["feh"])[split == "test"] >= 0.5).any()
