"""Positions as they are typed, what the catalogue says there, and what cutouts show."""

import re
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.coordinates.name_resolve import NameResolveError
from astropy.table import Table
from faulty_server import SkyServer
from synthetic_frames import FIELDS, Survey, write_survey

from photoz_lit.data.dust import EXTINCTION_PER_EBV, ebv_at
from photoz_lit.data.sdss.fields import Stamps
from photoz_lit.data.sdss.positions import positions_table, typed_positions, with_sources
from photoz_lit.errors import ConfigError, DataError

R = "ugriz".index("r")


@pytest.mark.parametrize(
    "text",
    [
        "150.0 12.7",
        "150 +12.7",
        "150.0, 12.7",
        "150.0+12.7",
        "150d 12d42m",
        "10:00:00 +12:42:00",
        "10:00:00+12:42:00",
        "10 00 00 12 42 00.0",
        "10h00m00s +12d42m00s",
        "SDSS J100000.00+124200.0",
        "[150.0 12.7]",
        "['150.0 12.7']",
        " 150.0  12.7 ;",
    ],
)
def test_one_position_in_many_ways(text: str) -> None:
    (found,) = typed_positions(text)
    assert (found.ra, found.dec) == (pytest.approx(150.0), pytest.approx(12.7))
    assert np.isnan([found.r, found.ebv]).all()


@pytest.mark.parametrize(
    "text",
    ["150 -1 r=16.3 ebv=0.03; NGC 1; 10:00:00 2:00:00 ebv=0", "[150 -1 ebv=0.03 r=16.3, NGC 1, 150 2 ebv=0]"],
)
def test_several_with_what_is_known_of_them(text: str) -> None:
    first, named, last = typed_positions(text)
    assert first[1:] == (150.0, -1.0, 16.3, 0.03)
    assert named.name == "NGC 1"
    assert np.isnan(named[1:]).all()
    assert last.ebv == 0
    assert np.isnan(last.r)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is none"),
        ("[]", "there is none"),
        ("r=16.3", "only r= and ebv= may follow a position"),
        ("150 12 z=0.1", "only r= and ebv= may follow a position"),
        ("150", "must have ra and dec"),
        ("150 12, 151 13", "must have ra and dec"),
        ("150 95", "Latitude"),
        ("10:00:00 +95:00:00", "Latitude"),
        ("400 12", "ra must be 0 to 360"),
        ("-10 12", "ra must be 0 to 360"),
        ("25:00:00 +12:00:00", "25"),
        ("10:75:00 +12:00:00", "75"),
        ("150 12 r=bright", "bright"),
        ("150 12 r=-9999", "r is no magnitude"),
        ("150 12 ebv=-1", "ebv is no E(B-V)"),
        ("150 12 ebv=nan", "ebv is no E(B-V)"),
    ],
)
def test_what_is_no_position_is_told(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as error:
        typed_positions(text)
    assert "10:00:00 +12:42:00" in str(error.value)


def test_names_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"Coma A": SkyCoord(10.0, 20.0, unit="deg")}

    def look_up(name: str) -> SkyCoord:
        if name not in known:
            raise NameResolveError(f"Unable to find coordinates for name '{name}'")
        return known[name]

    monkeypatch.setattr(SkyCoord, "from_name", look_up)
    table = positions_table(typed_positions("Coma A ebv=0.1;11 21"), None, "none")
    assert list(table["object_id"]) == ["Coma A", "11 21"]
    np.testing.assert_allclose(table["ra"], [10, 11])
    np.testing.assert_array_equal(table["ebv_known"], [True, False])
    np.testing.assert_array_equal(table["ebv"], [0.1, 0])
    with pytest.raises(DataError, match=r"no coordinates, and as a name.*Unable to find.*type coordinates"):
        positions_table(typed_positions("nonsense"), None, None)


def test_dust_that_is_not_typed_is_that_of_the_maps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    of_sky = "photoz_lit.data.sdss.positions.ebv_from_maps"
    monkeypatch.setattr(of_sky, lambda ra, dec, folder: ra / 1000 if folder == tmp_path else np.nan)
    table = positions_table(typed_positions("100 2; 100 2 ebv=0.3"), None, str(tmp_path))
    np.testing.assert_allclose(table["ebv"], [0.1, 0.3])
    assert [s.strip() for s in table["ebv_from"]] == ["maps", "typed"]
    table = positions_table(typed_positions("150.05477 12.70730"), None, None)
    np.testing.assert_allclose(table["ebv"], ebv_at(150.05477, 12.70730))
    assert table["ebv_from"][0].strip() == "SFD map"


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    return write_survey(tmp_path_factory.mktemp("frames"), neighbours=True)


def test_the_catalogue_tells_field_r_and_dust(survey: Survey) -> None:
    first = survey.photo[0]
    at = [f"{first['ra'] + step / 3600:.7f} {first['dec']:.7f}" for step in (0, 1, 30, 3600)]
    typed = f"{at[0]} r=15 ebv=0.5"
    with SkyServer(survey.photo, survey.spec) as server:
        table = positions_table(typed_positions(";".join([*at, typed])), f"{server.address}/dr17", "none")
    field = FIELDS[0]
    places = [tuple(row) for row in table["run", "camcol", "field"]]
    assert places == [tuple(field)] * 3 + [(-1, -1, -1), tuple(field)]
    r = 17 - 0.05 * EXTINCTION_PER_EBV["r"]
    np.testing.assert_allclose(table["dered_petro_r"], [r, r, np.nan, np.nan, 15])
    np.testing.assert_allclose(table["ebv"], [0.05, 0.05, 0.05, 0, 0.5], rtol=1e-4)
    np.testing.assert_array_equal(table["ebv_known"], [True, True, True, False, True])
    assert [s.strip() for s in table["r_from"]] == ["catalogue", "catalogue", "", "", "typed"]
    np.testing.assert_allclose(table["rowc"], [first["rowc"], np.nan, np.nan, np.nan, first["rowc"]])


def test_a_server_that_does_not_answer_is_told_at_once() -> None:
    with pytest.raises(DataError, match=r"on which frames 150 2 is.*data\.images, which needs no network"):
        positions_table(typed_positions("150 2"), "http://127.0.0.1:9", None)


def light(pixels: int, x: float, y: float, flux: float, scale: float) -> np.ndarray:
    """Draw an exponential disc so far from the middle, nanomaggies."""
    rows, columns = np.indices((pixels, pixels)) - (pixels - 1) / 2
    return flux / (2 * np.pi * scale**2) * np.exp(-np.hypot(columns - x, rows - y) / scale)


@pytest.mark.parametrize(
    ("x", "flux", "distance"),
    [(0.0, 100.0, 0.28), (3.5, 100.0, 1.4), (0.0, 0.0, None), (9.0, 2000.0, np.nan)],
)
def test_the_peak_near_the_position(x: float, flux: float, distance: float | None) -> None:
    rng = np.random.default_rng(1)
    cutouts = rng.normal(0, 0.02, (1, 5, 64, 64)) + light(64, x, 0.0, flux, 2.0)
    table = Table({"flag": np.array([""], "U8"), "dered_petro_r": [np.nan], "ebv": [0.0]})
    table["r_from"] = np.array([""], "U9")
    seen = with_sources(table, cutouts, Stamps("ugriz"))[0]
    assert (seen["flag"] == "empty") == (distance is None)
    assert (seen["peak"] > 5) == (distance is not None)
    if distance is not None:
        assert seen["peak_distance"] == pytest.approx(distance, abs=0.2, nan_ok=True)
    assert (seen["r_from"] == "measured") == (distance is not None)


@pytest.mark.parametrize("ebv", [0.0, 0.1])
def test_r_is_measured_where_it_is_not_known(ebv: float) -> None:
    rng, flux = np.random.default_rng(2), np.array([100.0, 300.0])
    cutouts = rng.normal(0, 0.02, (2, 5, 64, 64))
    cutouts += np.array([light(64, 0.3, 0.2, f, 3.0) for f in flux])[:, None]
    table = Table({"flag": np.array(["", "edge"], "U8"), "dered_petro_r": [np.nan] * 2, "ebv": [ebv] * 2})
    table["r_from"] = np.array(["", ""], "U9")
    r = np.asarray(with_sources(table, cutouts, Stamps("ugriz"))["dered_petro_r"])
    # A Petrosian aperture holds 99 % of an exponential disc's light.
    assert r[0] == pytest.approx(22.5 - 2.5 * np.log10(100) + 0.01 - ebv * EXTINCTION_PER_EBV["r"], abs=0.03)
    assert np.isnan(r[1])
    assert np.isnan(with_sources(table, cutouts[:, :3], Stamps("ugr"))["dered_petro_r"]).all()


def test_r_of_real_galaxies(real_data: Path) -> None:
    """Beside the Kron-like magnitude of another program, about which Petrosian ones scatter."""
    folder = real_data / "sdss_cutouts"
    known = Table.read(folder / "galaxies.csv")
    bright = np.asarray((known["mag_r"] < 17.9) & (known["mag_r"] > 16))
    cutouts = np.load(folder / "cutouts.npy")[bright]
    n = len(cutouts)
    table = Table({"flag": np.full(n, "", "U8"), "dered_petro_r": np.full(n, np.nan), "ebv": np.zeros(n)})
    table["r_from"] = np.full(n, "", "U9")
    seen = with_sources(table, cutouts, Stamps("ugriz"))
    off = np.asarray(seen["dered_petro_r"]) - np.asarray(known["r_kron"])[bright]
    assert n == 5
    assert abs(np.median(off)) < 0.05
    assert np.abs(off).max() < 0.2
    assert (seen["peak_distance"] < 0.7).all()
