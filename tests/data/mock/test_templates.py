import numpy as np
import pytest
from make_templates import find_spectra, main, make_templates

from photoz_lit.data.mock.templates import BANDS, TYPES, load_templates


def test_table_covers_the_survey_and_is_complete():
    z, colours, k_r = load_templates()
    assert z[0] == 0
    assert z[-1] >= 0.4
    assert colours.shape == (len(z), len(TYPES), len(BANDS))
    assert k_r.shape == (len(z), len(TYPES))
    assert np.isfinite(colours).all()
    assert np.isfinite(k_r).all()


def test_colours_are_relative_to_r_and_order_the_types():
    _, colours, k_r = load_templates()
    assert (colours[:, :, BANDS.index("r")] == 0).all()
    g_r = colours[:, :, BANDS.index("g")]
    assert (np.diff(g_r, axis=1) < 0).all(), "earlier types are redder"
    assert (k_r[0] == 0).all()


def test_elliptical_matches_published_colours():
    # Fukugita, Shimasaku & Ichikawa (1995, table 3) give g - r = 0.77 and r - i = 0.39 at rest.
    _, colours, _ = load_templates()
    assert colours[0, 0, 1] == pytest.approx(0.77, abs=0.03)
    assert -colours[0, 0, 3] == pytest.approx(0.39, abs=0.05)


def test_missing_spectra_say_what_to_install(monkeypatch):
    monkeypatch.setattr("make_templates.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install desc-bpz"):
        find_spectra()


def test_flat_spectrum_has_no_colour_and_a_known_k_correction(tmp_path):
    pytest.importorskip("speclite")
    wavelength = np.arange(900.0, 15000.0, 5.0)
    for name in TYPES:
        # Constant flux per frequency: AB colours vanish, and k = -2.5 log10(1 + z).
        np.savetxt(tmp_path / f"{name}_B2004a.sed", np.c_[wavelength, 1e8 / wavelength**2])
    table = make_templates(tmp_path)
    for band in BANDS:
        assert np.abs(table[f"El_{band}"]).max() < 1e-3
    np.testing.assert_allclose(table["El_k_r"], -2.5 * np.log10(1 + table["z"]), atol=1e-3)


def test_command_reproduces_the_table(tmp_path, monkeypatch):
    pytest.importorskip("speclite")
    try:
        find_spectra()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    output = tmp_path / "templates.ecsv"
    monkeypatch.setattr("sys.argv", ["templates", "--output", str(output)])
    main()
    monkeypatch.setattr("photoz_lit.data.mock.templates.TABLE", output)
    shipped = load_templates()
    load_templates.cache_clear()
    for new, old in zip(load_templates(), shipped, strict=True):
        np.testing.assert_allclose(new, old, atol=2e-4)
    load_templates.cache_clear()
