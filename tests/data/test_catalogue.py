from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table

from photoz_lit.data.catalogue import TableRules, standard_table
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
    "nan": (lambda t: t["ebv"].__setitem__(4, np.nan), "column ebv has an empty cell"),
    "infinite": (lambda t: t["spec_z"].__setitem__(4, np.inf), "column spec_z is not finite"),
    "negative redshift": (lambda t: t["spec_z"].__setitem__(4, -0.1), "spec_z is negative"),
    "beyond the survey": (lambda t: t["spec_z"].__setitem__(4, 0.5), "outside the survey's 0-0.4"),
    "negative extinction": (lambda t: t["ebv"].__setitem__(4, -0.1), "column ebv is no E(B-V) (0 to 10 mag)"),
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


def test_galaxies_without_labels_are_all_kept_and_only_what_is_used_is_asked_for() -> None:
    given = table(mag_g=np.full(60, 18.0))
    given["dered_petro_r"][[5, 6]] = -9999, np.nan
    given["spec_z"][:3] = np.nan, -1, 7
    given["ebv"][[3, 4]] = np.nan, -999
    given["ra"] = np.linspace(0, 359, 60)
    given["ra"][7] = np.nan
    given["dec"] = np.linspace(-95, 50, 60)
    given["mag_g"][[8, 9]] = np.nan, 99
    given["split"], given["flag"] = "exclude", "mine"
    rules = TableRules(columns={}, z_range=(0, 0.4), labelled=False, magnitudes=["mag_g"])
    out, rows = standard_table(given, "t", rules)
    assert rows.tolist() == list(range(60))
    assert np.flatnonzero(out["flag"] == "table").tolist() == [8, 9]
    assert out["ebv"][[3, 4]].tolist() == [0, 0]
    assert np.flatnonzero(~out["ebv_known"]).tolist() == [3, 4]
    assert np.flatnonzero(np.isnan(out["ra"])).tolist() == [7]
    assert np.flatnonzero(np.isnan(out["dered_petro_r"])).tolist() == [5, 6]
    np.testing.assert_array_equal(out["spec_z"], given["spec_z"])
    del given["ebv"]
    without = standard_table(given, "t", rules)[0]
    assert not without["ebv_known"].any()
    assert not without["ebv"].any()
    needing = replace(rules, needed=("ra", "dec"))
    flagged = standard_table(given, "t", needing)[0]["flag"] == "table"
    assert np.flatnonzero(flagged).tolist() == [0, 1, 2, 7, 8, 9]


def test_unknown_positions_cost_no_labelled_galaxy_where_they_are_not_needed() -> None:
    given = table(ra=np.linspace(0, 359, 60), dec=np.linspace(-60, 60, 60))
    given["ra"][4] = np.nan
    assert len(checked(given)[0]) == 60
    with pytest.raises(DataError, match=r"column ra has an empty cell in 1 of 60 rows .counted from 0.: 4"):
        standard_table(given, "t", TableRules(columns={}, z_range=(0, 0.4), needed=("ra", "dec")))
    with pytest.raises(DataError, match=r"no column 'ra' .set by data.columns.ra"):
        standard_table(table(), "t", TableRules(columns={}, z_range=(0, 0.4), needed=("ra", "dec")))


def test_text_in_a_column_that_is_not_needed_costs_nothing_unlabelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = table(ra=["10:00:00"] * 60)
    out, _ = standard_table(given, "t", TableRules(columns={}, z_range=(0, 0.4), labelled=False))
    assert "ra" not in out.colnames
    assert "column ra holds text" in caplog.text
    with pytest.raises(DataError, match="column ra holds text where numbers are needed: '10:00:00' in row 0"):
        checked(given)


def spoilt(name: str, value: object, rows: object = 4, **columns: object) -> Table:
    given = table(
        ra=np.linspace(0, 359, 60),
        dec=np.linspace(-60, 60, 60),
        mag_u=np.full(60, 19.0),
        err_u=np.full(60, 0.1),
    )
    for other, values in columns.items():
        given[other] = values
    given[name][rows] = value
    return given


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        *(("spec_z", v, "spec_z is negative") for v in (-9999.0, -999.0, -1.0)),
        *(("spec_z", v, "spec_z is outside the survey's 0-0.4") for v in (0.41, 9.99, 99.0)),
        *(("ebv", v, r"column ebv is no E\(B-V\)") for v in (-999.0, -0.1, 99.0, 9999.0)),
        *(("dered_petro_r", v, "column dered_petro_r is no magnitude") for v in (-9999.0, 0.0, 99.0, 1e20)),
        *(("dered_petro_r", v, "dered_petro_r is 6 mag from all others") for v in (3.0, 30.0)),
        *(("mag_u", v, "column mag_u is no magnitude") for v in (-9999.0, 0.0, 99.0)),
        *(("err_u", v, "column err_u is no error of a magnitude") for v in (-1.0, 99.0, 14749.5)),
        *(("ra", v, "column ra is outside -360 to 360 degrees") for v in (-999.0, 9999.0)),
        *(("dec", v, "column dec is outside -90 to 90 degrees") for v in (-999.0, 91.0)),
        *((name, np.nan, f"column {name} has an empty cell") for name in ("spec_z", "ebv", "mag_u", "err_u")),
        *((name, np.inf, f"column {name} is not finite") for name in ("spec_z", "ebv", "mag_u", "err_u")),
    ],
)
def test_every_column_has_limits_on_both_sides(name: str, value: float, said: str) -> None:
    rules = TableRules(columns={}, z_range=(0, 0.4), magnitudes=["mag_u"], magnitude_errors=["err_u"])
    assert len(standard_table(spoilt("mag_u", 20.0), "t", rules)[0]) == 60
    with pytest.raises(DataError, match=f"t: (column )?{said}.* in 1 of 60 rows .counted from 0.: 4"):
        standard_table(spoilt(name, value), "t", rules)


def test_not_detected_and_not_observed_are_two_things() -> None:
    """The conventions of the field, told apart in the message; each row is counted in one kind."""
    given = table(mag_u=np.full(60, 19.0), err_u=np.full(60, 0.1))
    given["mag_u"][:8] = 99, 99.0, -99, -999, -9999, np.nan, 45, 19.5
    given["err_u"][:2] = 28.4, 27.9  # BPZ's limits
    rules = TableRules(columns={}, z_range=(0, 0.4), magnitudes=["mag_u"], magnitude_errors=["err_u"])
    with pytest.raises(DataError) as told:
        standard_table(given, "t", rules)
    counted = "of 60 rows (counted from 0):"
    assert (
        f"mag_u is no magnitude but 99: not detected (its error is then the limit), in 2 {counted} 0, 1;"
        in (said := str(told.value))
    )
    assert f"mag_u is no magnitude but -99: not observed, in 1 {counted} 2;" in said
    assert f"mag_u is no magnitude but a filler (such as -999): no value, in 2 {counted} 3, 4;" in said
    assert f"mag_u has an empty cell in 1 {counted} 5;" in said
    assert f"mag_u is no magnitude (above 0, up to 40; others: data=embeddings) in 1 {counted} 6;" in said
    kept = standard_table(given, "t", replace(rules, drop_invalid=True))[1]
    assert kept.tolist() == list(range(7, 60))


@pytest.mark.parametrize(
    ("theirs", "wanted", "hint"),
    [
        ("redshift", "spec_z", "Perhaps redshift: type data.columns.spec_z=redshift"),
        ("zspec", "spec_z", "Perhaps zspec: type data.columns.spec_z=zspec"),
        ("mag_r_lsst", "dered_petro_r", "Perhaps mag_r_lsst: type data.columns.dered_petro_r=mag_r_lsst"),
        ("mag_u_lsst", "mag_u", "Perhaps mag_u_lsst: type it in data.magnitudes"),
        ("mag_err_u_lsst", "mag_u", "mag_err_u_lsst$"),
        ("zphot", "spec_z", "zphot$"),
    ],
)
def test_names_of_the_field_are_proposed_and_not_taken(theirs: str, wanted: str, hint: str) -> None:
    given = table(mag_u=np.full(60, 19.0))
    given.rename_column(wanted, theirs)
    given = given[[*(n for n in given.colnames if n != theirs), theirs]]
    with pytest.raises(DataError, match=f"no column '{wanted}' .*{hint}"):
        standard_table(given, "t", TableRules(columns={}, z_range=(0, 0.4), magnitudes=["mag_u"]))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"object_id": [-9999] * 5 + list(range(55))},
            "column object_id is no identity but stands for none in 5",
        ),
        ({"object_id": [-999.0] * 5 + list(range(55))}, "stands for none in 5 of 60 rows"),
        ({"object_id": [-1] * 2 + list(range(58))}, "stands for none in 2 of 60 rows"),
        ({"object_id": [0] * 20 + list(range(1, 41))}, "stands for none in 20 of 60 rows"),
        ({"object_id": ["-9999"] * 5 + [f"g{i}" for i in range(55)]}, "stands for none in 5 of 60 rows"),
        ({"object_id": ["42"] * 25 + [f"g{i}" for i in range(35)]}, "stands for none in 25 of 60 rows"),
        (
            {"object_id": [" ", "null", "NaN"] + [f"g{i}" for i in range(57)]},
            "object_id has an empty cell in 3",
        ),
        (
            {"ra": np.r_[[0.0] * 6, np.arange(54)], "dec": np.r_[[0.0] * 6, np.arange(54)]},
            r"dec are \(0, 0\).* in 7",
        ),
        ({"ra": np.r_[[5.0] * 30, np.arange(30)], "dec": np.ones(60)}, r"ra, dec are \(5, 1\), no positions"),
    ],
)
def test_a_filler_is_no_identity(columns: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        checked(table(**columns))
    rules = TableRules(columns={}, z_range=(0, 0.4), labelled=False)
    assert (standard_table(table(**columns), "t", rules)[0]["flag"] == "").all()


def test_repeated_observations_are_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    assert len(checked(table(object_id=np.arange(60) // 3))[0]) == 60  # object 0 among them
    checked(table(object_id=np.arange(60) // 12, spec_z=np.repeat(np.linspace(0.1, 0.3, 5), 12)))
    assert "is that one galaxy?" not in caplog.text
    checked(table(object_id=np.arange(60) // 12))
    assert "galaxies.csv: object_id 0 stands in 12 rows of spec_z" in caplog.text


@pytest.mark.parametrize("kind", ["U", "S", "O"])
def test_splits_are_said_in_known_words(kind: str) -> None:
    words = ["train", "Training", " TRAIN ", "val", "valid", "Validation", "DEV", "test", "Test ", "testing"]
    out, _ = checked(table(split=np.array(words * 6, dtype=kind)))
    assert out["split"][:10].tolist() == ["train"] * 3 + ["val"] * 4 + ["test"] * 3
    for word in ("exclude", "unused", "holdout", "0", "tset"):
        given = table(split=np.array([*["train"] * 58, word, "test"], dtype=kind))
        with pytest.raises(
            DataError, match=f"column split says '{word}' in 1 of 60 rows .* 58. It may say train"
        ):
            checked(given)
    with pytest.raises(DataError, match="column split has an empty cell in 1 of 60 rows"):
        checked(table(split=np.array([*["train"] * 59, " "], dtype=kind)))


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
    with pytest.raises(DataError, match="column feh has an empty cell in 1 of 60 rows"):
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


@pytest.mark.parametrize(
    ("name", "columns", "feature"),
    [
        ("feh", {}, "feh"),
        ("FeH", {}, "FEH"),
        ("metals", {"feh": "Metals"}, "metals"),
        ("mags", {"feh": "mags"}, "mags"),
    ],
)
def test_the_truth_is_no_feature(name: str, columns: dict[str, str], feature: str) -> None:
    given = table(**{name: np.linspace(0.1, 0.9, 60)})
    rules = TableRules(columns=columns, z_range=(0, 1), magnitudes=[feature], target="feh")
    with pytest.raises(DataError, match=rf"data\.magnitudes names {name}, the true values"):
        standard_table(given, "stars.csv", rules)
