import numpy as np
import pytest
from astropy.table import Table
from scipy.spatial import cKDTree
from scipy.special import gammainc

from photoz_lit.data.mock import photometry, population
from photoz_lit.data.mock.population import draw_galaxies
from photoz_lit.data.mock.render import render_cutouts
from photoz_lit.data.mock.survey import Sky, measured_on, observe
from photoz_lit.data.mock.templates import BANDS
from photoz_lit.data.sources.mock import VERSION

COLOURS = (("u", "g"), ("g", "r"), ("r", "i"), ("i", "z"))


def with_magnitudes(galaxies):
    """Add true magnitudes mag_u to mag_z."""
    for band in BANDS:
        flux = np.asarray(galaxies[f"true_bulge_{band}"] + galaxies[f"true_disc_{band}"])
        galaxies[f"mag_{band}"] = 22.5 - 2.5 * np.log10(flux)
    return galaxies


@pytest.fixture(scope="module")
def galaxies():
    return with_magnitudes(draw_galaxies(20_000, seed=3))


@pytest.fixture(scope="module")
def real(real_data):
    path = real_data / "sdss_mgs" / "sdss_mgs.csv"
    if not path.is_file():
        pytest.skip(f"no real galaxies at {path}")
    return Table.read(path)


def colour(table, blue, red):
    return np.asarray(table[f"mag_{blue}"] - table[f"mag_{red}"])


def test_rows_do_not_depend_on_the_size_of_the_survey(galaxies):
    few = with_magnitudes(draw_galaxies(10, seed=3))
    for name in galaxies.colnames:
        np.testing.assert_array_equal(few[name], galaxies[name][:10])


def test_version_3_is_this_survey():
    """Stores of one version are alike: whoever changes the survey raises the version, and these numbers."""
    assert VERSION == 3
    drawn = draw_galaxies(200, seed=7)
    cutouts = render_cutouts(drawn[:20], seed=7)
    names = (
        "spec_z",
        "ebv",
        "true_bulge_g",
        "true_disc_z",
        "true_bulge_radius",
        "true_seeing_r",
        "true_young_u",
    )
    sums = [20.5426519, 6.5122183, 12597.0332, 36095.7608, 510.45093, 268.027489, 1779.68361]
    np.testing.assert_allclose([np.sum(drawn[name]) for name in names], sums, rtol=1e-8)
    light = [2676.122, 2294.93, 4269.283, 6249.739, 13213.92]
    np.testing.assert_allclose(np.abs(cutouts).sum((0, 2, 3), dtype=float), light, rtol=1e-6)


def test_seeds_give_other_galaxies(galaxies):
    assert not np.isin(draw_galaxies(100, seed=4)["spec_z"], galaxies["spec_z"]).any()


def test_columns_are_finite_and_within_the_survey(galaxies):
    assert galaxies["object_id"].dtype == np.int64
    np.testing.assert_array_equal(galaxies["object_id"], np.arange(20_000))
    for name in galaxies.colnames:
        assert np.isfinite(galaxies[name]).all(), name
    assert galaxies["spec_z"].min() > 0
    assert galaxies["spec_z"].max() <= 0.4
    assert galaxies["true_petro_r"].min() >= population.R_BRIGHT
    assert galaxies["true_petro_r"].max() <= population.R_DRAWN
    assert 0.02 < np.median(galaxies["ebv"]) < 0.04
    for component in ("bulge", "disc"):
        assert galaxies[f"true_{component}_axis_ratio"].min() >= 0.19
        assert galaxies[f"true_{component}_axis_ratio"].max() <= 1


def test_seeing_is_correlated_between_bands(galaxies):
    logarithms = np.log([galaxies[f"true_seeing_{band}"] for band in BANDS])
    correlation = np.corrcoef(logarithms)
    assert correlation.min() > 0.75
    assert correlation[0, 1] < 0.99


def test_luminous_galaxies_are_red_concentrated_and_large(galaxies):
    near = (galaxies["spec_z"] > 0.05) & (galaxies["spec_z"] < 0.1)
    faint, bright = (galaxies[near & (galaxies["true_absolute_r"] > m)] for m in (-20.5, -30))
    bright = bright[bright["true_absolute_r"] < -22]
    assert bright["true_red"].mean() > faint["true_red"].mean() + 0.1
    assert bright["true_bulge_fraction"].mean() > faint["true_bulge_fraction"].mean()
    assert np.median(bright["true_disc_radius"]) > 1.5 * np.median(faint["true_disc_radius"])


def test_edge_on_blue_galaxies_are_redder(galaxies):
    blue = galaxies[~galaxies["true_red"]]
    edge_on = blue["true_disc_axis_ratio"] < 0.35
    face_on = blue["true_disc_axis_ratio"] > 0.8
    g_r = colour(blue, "g", "r")
    assert 0.05 < np.median(g_r[edge_on]) - np.median(g_r[face_on]) < 0.3


def test_sizes_follow_shen():
    # Their table 1 evaluated by hand at M_r = -20.5; early types grow faster with luminosity.
    magnitudes = np.array([-20.5, -22.5])
    early, late = (
        population.half_light_radius(magnitudes, np.full(2, red), np.zeros(2)) for red in (True, False)
    )
    np.testing.assert_allclose(early[0], 1.95, rtol=0.01)
    np.testing.assert_allclose(late[0], 3.21, rtol=0.01)
    assert early[1] / early[0] > late[1] / late[0]


def test_radius_of_the_sum_holds_half_the_light():
    bulge = np.array([0.0, 0.2, 0.7, 1.0])
    ratio = np.array([0.5, 0.3, 1.5, 0.8])
    total = 1 / population.disc_over_total_radius(bulge, ratio)
    inside = bulge * gammainc(8, population.DEVAUCOULEURS * (total / ratio) ** 0.25)
    inside += (1 - bulge) * gammainc(2, population.EXPONENTIAL * total)
    np.testing.assert_allclose(inside, 0.5, atol=1e-4)


def test_counts_follow_volume_and_luminosity_function(galaxies):
    # Nearby, a magnitude-limited sample of a local population counts as 10^(0.6 r); evolution and
    # k-correction make it shallower, and the sampling leaves no steps.
    counts = np.histogram(galaxies["true_petro_r"], bins=[14.77, 15.77, 16.77, 17.77])[0]
    slopes = np.diff(np.log10(counts))
    assert ((slopes > 0.4) & (slopes < 0.62)).all()


def test_catalogue_gives_redshifts_and_magnitudes(galaxies):
    catalogue = galaxies[["spec_z", *(f"mag_{band}" for band in BANDS)]][:300]
    drawn = draw_galaxies(200, seed=1, catalogue=catalogue)
    rows = drawn["catalogue_row"]
    assert len(np.unique(rows)) == 200
    np.testing.assert_array_equal(drawn["spec_z"], catalogue["spec_z"][rows])
    for band in BANDS:
        np.testing.assert_array_equal(drawn[f"mag_{band}"], catalogue[f"mag_{band}"][rows])
        flux = drawn[f"true_bulge_{band}"] + drawn[f"true_disc_{band}"]
        np.testing.assert_allclose(22.5 - 2.5 * np.log10(flux), drawn[f"mag_{band}"], atol=1e-9)
        assert (drawn[f"mag_err_{band}"] > 0).all()
    np.testing.assert_array_equal(drawn["dered_petro_r"], drawn["mag_r"])
    shorter = draw_galaxies(5, seed=1, catalogue=catalogue)
    np.testing.assert_array_equal(shorter["true_bulge_u"], drawn["true_bulge_u"][:5])


def test_a_small_catalogue_comes_again_in_other_shapes(galaxies):
    catalogue = galaxies[["spec_z", *(f"mag_{band}" for band in BANDS)]][:50]
    drawn = draw_galaxies(120, seed=1, catalogue=catalogue)
    times = np.bincount(drawn["catalogue_row"], minlength=50)
    assert set(times) == {2, 3}  # each comes as often as the others, but for the last round
    assert len(np.unique(drawn["catalogue_row"][:50])) == 50
    again = drawn[drawn["catalogue_row"] == np.argmax(times)]
    assert len(np.unique(again["mag_g"])) == 1
    for name in ("object_id", "true_disc_radius", "true_disc_angle", "true_bulge_fraction", "true_seeing_r"):
        assert len(np.unique(again[name])) == 3, name
    np.testing.assert_array_equal(draw_galaxies(70, 1, catalogue=catalogue)["spec_z"], drawn["spec_z"][:70])


def test_bad_requests_are_refused(galaxies):
    catalogue = galaxies[["spec_z", *(f"mag_{band}" for band in BANDS)]][:5]
    with pytest.raises(ValueError, match="negative"):
        draw_galaxies(-1, seed=0)
    for column, value, message in (
        ("mag_u", np.nan, "mag_u"),
        ("spec_z", -0.1, "spec_z"),
        ("spec_z", 3.0, "spec_z"),
    ):
        broken = catalogue.copy()
        broken[column][2] = value
        with pytest.raises(ValueError, match=message):
            draw_galaxies(5, seed=0, catalogue=broken)


@pytest.mark.slow
def test_colours_magnitudes_and_redshifts_are_those_of_real_galaxies(real):
    """Measured on cutouts, against those that the survey was calibrated on and against the others."""
    sky = Sky(seed=1, pixels=64)
    mock = observe(3000, sky, map)
    mock = measured_on(mock, mock, sky.draw(mock), map)
    for part in (real[:2500], real[2500:]):
        for (blue, red), tolerance in zip(COLOURS, (0.07, 0.03, 0.03, 0.03), strict=True):
            ours, theirs = (np.percentile(colour(table, blue, red), [10, 50, 90]) for table in (mock, part))
            print(f"{blue}-{red}: 10th, 50th, 90th percentile {ours.round(3)}, real {theirs.round(3)}")
            assert (np.abs(ours - theirs) < [0.1, tolerance, 0.1]).all(), f"{blue}-{red}"
        for name, relative, absolute in (("spec_z", 0.08, 0.0), ("mag_r", 0.0, 0.12)):
            ours, theirs = (np.percentile(np.asarray(table[name]), [25, 50, 75]) for table in (mock, part))
            print(f"{name}: quartiles {ours.round(4)}, real {theirs.round(4)}")
            np.testing.assert_allclose(ours, theirs, rtol=relative, atol=absolute)


def test_redshift_is_about_as_hard_to_guess_as_in_reality(galaxies):
    # Boosted trees reach sigma_mad = 0.0132 and nearest neighbours 0.0144 on real galaxies of this kind.
    features = np.stack([*(colour(galaxies, *bands) for bands in COLOURS), galaxies["mag_r"]], axis=1)
    features /= [0.15, 0.05, 0.03, 0.04, 0.5]
    z = np.asarray(galaxies["spec_z"])
    _, nearest = cKDTree(features[:10_000]).query(features[10_000:], 15)
    dz = (np.median(z[nearest], axis=1) - z[10_000:]) / (1 + z[10_000:])
    sigma_mad = 1.4826 * np.median(np.abs(dz - np.median(dz)))
    assert 0.010 < sigma_mad < 0.016
    assert 0.002 < (np.abs(dz) > 0.05).mean() < 0.03


def test_stellar_masses_follow_luminosity_and_colour(galaxies):
    # Bell et al. (2003) by hand: g - r = 0.7 and M_r = -21.35 give 10.4 - 0.306 + 0.768.
    np.testing.assert_allclose(photometry.log_stellar_mass(np.array([-21.35]), np.array([0.7])), [10.8619])
    mass, red = np.asarray(galaxies["log_mass"]), np.asarray(galaxies["true_red"])
    assert ((mass > 6.5) & (mass < 12.5)).all()  # the range of target=log_mass
    assert 10.5 < np.median(mass) < 11
    # Colours of nearby red and blue galaxies at rest; red ones have more mass for their light.
    g_r = np.asarray(galaxies["true_g_r"])
    assert 0.65 < np.median(g_r[red]) < 0.85
    assert 0.4 < np.median(g_r[~red]) < 0.65
    per_light = mass + 0.4 * np.asarray(galaxies["true_absolute_r"])
    assert np.median(per_light[red]) - np.median(per_light[~red]) > 0.1
    near = np.asarray(galaxies["spec_z"]) < 0.03  # where colours are hardly shifted
    np.testing.assert_allclose(np.median((colour(galaxies, "g", "r") - g_r)[near]), 0.02, atol=0.08)


def test_masses_of_a_catalogue_take_its_colours(galaxies):
    catalogue = galaxies[["spec_z", *(f"mag_{band}" for band in BANDS)]][:500]
    drawn = draw_galaxies(400, seed=1, catalogue=catalogue)
    difference = drawn["log_mass"] - galaxies["log_mass"][drawn["catalogue_row"]]
    assert abs(np.median(difference)) < 0.08
    assert 1.4826 * np.median(np.abs(difference - np.median(difference))) < 0.15
