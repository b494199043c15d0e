import numpy as np
import pytest

from photoz_lit.report.table_checks import table_suspicions

N = 400
RNG = np.random.default_rng(0)
COLUMNS = {
    "spec_z": RNG.gamma(3.6, 0.034, N),
    "dered_petro_r": 17.77 - RNG.exponential(0.9, N),
    "ebv": RNG.lognormal(-3.5, 0.6, N),
    "ra": RNG.uniform(0, 360, N),
    "dec": np.where(np.arange(N) % 9, RNG.normal(20, 0.1, N), -20),
    "mag_u": 20 + RNG.normal(size=N),
    "err_u": RNG.lognormal(-3, 0.8, N),
    "log_mass": RNG.normal(10, 0.6, N),
}
NAMES = np.array([f"object_id g{i}" for i in range(N)])


def said(column: str, value: float, rows: int = 1) -> list[str]:
    values = COLUMNS[column].copy()
    values[7 : 7 + rows] = value
    return table_suspicions({column: values}, NAMES)


def test_usual_columns_raise_no_suspicion() -> None:
    assert table_suspicions(COLUMNS, NAMES) == []


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("spec_z", -9999.0, "holds a number that stands for none"),
        ("spec_z", -0.5, "lies outside -0.01 to 8"),
        ("spec_z", 30_000.0, "lies outside -0.01 to 8"),
        ("spec_z", 7.0, "lies far from all others"),
        ("dered_petro_r", -999.0, "holds a number that stands for none"),
        ("dered_petro_r", 99.0, "holds a number that stands for none"),
        ("dered_petro_r", 0.0, "lies outside 5 to 30"),
        ("ebv", 10.2, "lies outside 0 to 3"),
        ("ebv", -0.1, "lies outside 0 to 3"),
        ("ebv", 2.9, "lies far from all others"),
        ("ra", 725.0, "lies outside 0 to 360"),
        ("dec", -99.0, "holds a number that stands for none"),
        ("dec", 91.0, "lies outside -90 to 90"),
        ("mag_u", 1500.0, "lies outside 5 to 35"),
        ("err_u", 14_749.0, "lies outside 0 to 5"),
        ("err_u", -0.1, "lies outside 0 to 5"),
        ("log_mass", -99.0, "holds a number that stands for none"),
        ("log_mass", 1e10, "lies far from all others"),
    ],
)
def test_an_extreme_is_named_once_with_its_galaxy(column: str, value: float, what: str) -> None:
    assert said(column, value) == [
        f"Column {column} {what} in 1 of {N} galaxies, first {value:g} of object_id g7."
    ]
    assert said(column, value, 3) == [
        f"Column {column} {what} in 3 of {N} galaxies, first {value:g} of object_id g7."
    ]


def test_missing_values_are_counted_where_some_are_known() -> None:
    assert said("ebv", np.nan, 5) == [f"Column ebv is empty or not finite in 5 of {N} galaxies."]
    assert table_suspicions({"spec_z": np.full(N, np.nan)}, NAMES) == []
