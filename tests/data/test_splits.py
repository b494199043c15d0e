import itertools
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from photoz_lit.data.splits import assign_splits, draw, object_names, same_object, with_ids
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


FRACTIONS = {"test_fraction": 0.2, "val_fraction": 0.1}


def nameless(n: int, digits: int = 9) -> Table:
    """Return a table without ids and positions, whose rows may be equal where they have few digits."""
    given = table(n)[["spec_z", "dered_petro_r", "ebv"]]
    return Table({name: np.round(given[name], digits) for name in given.colnames})


def test_rows_without_id_and_position_are_different_objects() -> None:
    numbered = with_ids(nameless(2000, digits=1))
    assert len(set(same_object(numbered))) == 2000
    assert numbered["object_id"].tolist() == list(range(2000))
    assert object_names(numbered) is None
    assert list(with_ids(table())["object_id"]) == list(range(1000, 1060))


def test_equal_rows_of_training_and_test_without_ids_are_told(caplog: pytest.LogCaptureFixture) -> None:
    given = nameless(6)[[0, 1, 2, 3, 2, 5]]
    given["split"] = ["train"] * 4 + ["test"] * 2
    with_ids(given)
    assert "1 test rows equal rows that are trained on in every column" in caplog.text


def test_numbered_rows_are_drawn_by_a_permutation(tmp_path: Path) -> None:
    """As they always were: the simulated survey's splits are part of published numbers."""
    n, seed = 200, 3
    numbered = with_ids(nameless(n))
    rng = np.random.default_rng([seed, 71])
    place = np.empty(n)
    place[rng.permutation(n)] = (np.arange(n) + 0.5) / n
    expected = np.where(place < 0.2, "test", np.where(place < 0.3, "val", "train"))
    np.testing.assert_array_equal(assign_splits(numbered, seed=seed, **FRACTIONS), expected)
    few = rng.permutation(np.flatnonzero(expected == "train"))[:30]
    chosen = assign_splits(numbered, seed=seed, n_train=30, **FRACTIONS)
    assert set(np.flatnonzero(chosen == "train")) == set(few)
    numbered.write(tmp_path / "a.fits")
    assert object_names(Table.read(tmp_path / "a.fits")) is None


IDENTITIES = {
    "integers": {"object_id": np.arange(400) * 7 + 1237648720693755000},
    "small integers": {"object_id": np.arange(400)},
    "text": {"object_id": [f"Größe {i}" for i in range(400)]},
    "positions": {"ra": np.linspace(0, 359, 400), "dec": np.linspace(-60, 60, 400)},
    "both": {"object_id": np.arange(400), "ra": np.linspace(0, 359, 400), "dec": np.linspace(-60, 60, 400)},
}


@pytest.mark.parametrize("kind", IDENTITIES)
def test_no_object_moves_when_rows_are_shuffled_or_others_go(kind: str) -> None:
    def drawn(rows: np.ndarray, **options: object) -> np.ndarray:
        given = nameless(400)
        for name, values in IDENTITIES[kind].items():
            given[name] = values
        return assign_splits(with_ids(given[rows]), seed=5, **FRACTIONS, **options)

    whole, few = drawn(np.arange(400)), drawn(np.arange(400), n_train=40)
    shuffled = np.random.default_rng(0).permutation(400)
    np.testing.assert_array_equal(drawn(shuffled), whole[shuffled])
    np.testing.assert_array_equal(drawn(shuffled, n_train=40), few[shuffled])
    np.testing.assert_array_equal(
        drawn(shuffled, thin=[0, 1, 0.5]), drawn(np.arange(400), thin=[0, 1, 0.5])[shuffled]
    )
    fewer = shuffled[:300]
    np.testing.assert_array_equal(drawn(fewer), whole[fewer])


def test_integers_and_their_text_are_one_object() -> None:
    ids = np.arange(50) + 1237648720693755000
    split = assign_splits(table(50, object_id=ids), seed=0, **FRACTIONS)
    np.testing.assert_array_equal(
        split, assign_splits(table(50, object_id=ids.astype(str)), seed=0, **FRACTIONS)
    )


def test_lots_are_even_and_follow_the_seed() -> None:
    names = np.arange(10_000).astype(str)
    lots = draw(names, len(names), [1, 2]) / 2.0**64
    counts = np.histogram(lots, bins=10, range=(0, 1))[0]
    assert np.abs(counts - 1000).max() < 150  # five standard deviations
    assert (lots != draw(names, len(names), [1, 3]) / 2.0**64).all()
    np.testing.assert_array_equal(np.sort(draw(None, 50, 1)), np.arange(50))


def test_few_objects_still_fill_each_split() -> None:
    for seed in range(30):
        assert set(assign_splits(table(10), seed=seed, **FRACTIONS)) == {"train", "val", "test"}


def test_unknown_positions_join_nothing() -> None:
    given = table(4, ra=[np.nan, np.nan, 10.0, 10.0], dec=[np.nan, 1.0, 5.0, 5.0])
    assert same_object(given)[2] == same_object(given)[3]
    assert len(set(same_object(given))) == 3
    given["ra"] = np.nan
    assert len(set(same_object(given))) == 4


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
    assert [(split == name).sum() for name in ("train", "val", "test")] == pytest.approx(
        [700, 100, 200], abs=60
    )
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
    with pytest.raises(DataError, match=r"the (train|val|test) split is empty with 2 galaxies: use more"):
        splits_of(table(2))


def test_flagged_galaxies_are_in_no_split() -> None:
    given = table()
    given["flag"] = np.where(np.arange(60) % 7 == 0, "pixels", "")
    split = assign_splits(given, test_fraction=0.2, val_fraction=0.2, seed=1)
    assert (split[::7] == "unused").all()
    plain = assign_splits(table(), test_fraction=0.2, val_fraction=0.2, seed=1)
    others = np.arange(60) % 7 > 0
    assert split[others].tolist() == plain[others].tolist()


def test_published_validation_galaxies_stay_so() -> None:
    given = table()
    given["split"] = np.array(["train", "train", "val", "test"])[np.arange(60) % 4]
    split = assign_splits(given, test_fraction=0.2, val_fraction=0.2, seed=1)
    assert split.tolist() == given["split"].tolist()


def test_thinning_keeps_the_fraction_in_the_range_and_all_else() -> None:
    given = table(1000)
    fractions = {"test_fraction": 0.2, "val_fraction": 0.1, "seed": 3}
    whole = assign_splits(given, **fractions)
    inside = (given["spec_z"] >= 0.1) & (given["spec_z"] < 0.2) & (whole == "train")
    thinned = assign_splits(given, **fractions, thin=[0.1, 0.2, 0.1])
    assert (thinned[inside] == "train").sum() == round(0.1 * inside.sum()) > 0
    assert (thinned[inside & (thinned != "train")] == "unused").all()
    np.testing.assert_array_equal(thinned[~inside], whole[~inside])
    # n_train counts what thinning leaves.
    left = (thinned == "train").sum()
    for n, n_train in ((round(0.5 * left), 0.5), (40, 40)):
        fewer = assign_splits(given, **fractions, thin=[0.1, 0.2, 0.1], n_train=n_train)
        assert (fewer == "train").sum() == n
        assert (thinned[fewer == "train"] == "train").all()


def test_smaller_shares_of_the_training_rows_are_parts_of_larger_ones() -> None:
    splits = [
        assign_splits(table(500), test_fraction=0.2, val_fraction=0.1, seed=0, n_train=share)
        for share in (1.0, 0.5, 0.25)
    ]
    sizes = [(split == "train").sum() for split in splits]
    assert sizes == [sizes[0], round(sizes[0] / 2), round(sizes[0] / 4)]
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


def nested(given: Table, kind: str, seed: int, **options: float) -> np.ndarray:
    return assign_splits(given, **{**FRACTIONS, **options}, seed=seed, nested=kind)


@pytest.mark.parametrize("named", [True, False])
def test_outer_parts_are_fifths_of_all_objects_that_inner_splits_never_see(named: bool) -> None:
    given = table(1000, object_id=np.arange(1000) // 2) if named else with_ids(nameless(1000))
    outer = [nested(given, "outer", seed) == "test" for seed in range(5)]
    np.testing.assert_array_equal(np.sum(outer, axis=0), 1)
    # Of 500 objects or 1000 rows: five standard deviations; a permutation has exact fifths.
    assert np.abs(np.sum(outer, axis=1) - 200).max() <= (90 if named else 0)
    for seed in range(5):
        inner, whole = nested(given, "inner", seed), nested(given, "outer", seed)
        np.testing.assert_array_equal(inner == "unused", outer[seed])
        assert set(whole) == {"train", "val", "test"}
        for split in (inner, whole) if named else ():
            np.testing.assert_array_equal(split[::2], split[1::2])
        sizes = [(split == name).sum() for split in (inner, whole) for name in ("val", "test")]
        assert sizes[:3] == pytest.approx([80, 160, 80], abs=60 if named else 30)
    np.testing.assert_array_equal(nested(given, "outer", 7) == "test", outer[2])
    assert (nested(given, "inner", 7) != nested(given, "inner", 2)).any()  # its own splits inside


def test_the_outer_part_is_the_same_in_any_order_and_for_any_fractions() -> None:
    given, order = table(400), np.random.default_rng(3).permutation(400)
    for seed in range(5):
        split = nested(given, "outer", seed)
        np.testing.assert_array_equal(nested(given[order], "outer", seed), split[order])
        np.testing.assert_array_equal(nested(given[order[:300]], "outer", seed), split[order[:300]])
        np.testing.assert_array_equal(nested(given, "outer", seed, test_fraction=0.5), split)
        other = nested(given, "inner", seed, test_fraction=0.5, val_fraction=0.3)
        np.testing.assert_array_equal(other == "unused", split == "test")


def test_a_table_that_is_split_is_not_split_again() -> None:
    given = table(split=["train"] * 50 + ["test"] * 10)
    for kind in ("inner", "outer"):
        with pytest.raises(DataError, match=f"nested={kind} but the table has its own splits"):
            nested(given, kind, 0)


def test_fewer_and_flagged_galaxies_leave_the_outer_part_alone() -> None:
    given = table(500, flag=np.where(np.arange(500) % 10, "", "pixels"))
    outer = nested(table(500), "outer", 1) == "test"
    few = nested(given, "outer", 1, n_train=30)
    np.testing.assert_array_equal(few == "test", outer & (np.arange(500) % 10 > 0))
    assert (few == "train").sum() == 30
    assert not set(nested(given, "inner", 1, n_train=30)[outer]) - {"unused"}
