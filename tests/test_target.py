import pytest

from photoz_lit.errors import ConfigError
from photoz_lit.target import REDSHIFT, Target


def test_redshift_has_the_words_of_the_field() -> None:
    assert (REDSHIFT.true, REDSHIFT.estimated, REDSHIFT.pdf, REDSHIFT.n_of) == (
        "spec z",
        "photo z",
        "p(z)",
        "n(z)",
    )
    assert REDSHIFT.true_axis == r"spectroscopic redshift $z_\mathrm{spec}$"
    assert REDSHIFT.definition_math == (
        r"$\Delta z = (z_\mathrm{photo}-z_\mathrm{spec})/(1+z_\mathrm{spec})$"
    )
    assert REDSHIFT.estimate == "photo_z"


def test_other_quantities_are_called_by_their_label_symbol_and_unit() -> None:
    mass = Target("log_mass", "stellar mass", "log M", "dex", "difference")
    assert (mass.true, mass.estimated, mass.pdf) == (
        "true stellar mass",
        "estimated stellar mass",
        "p(log M)",
    )
    assert mass.true_axis == r"true stellar mass $\mathrm{log\ M}_\mathrm{true}$  [dex]"
    assert mass.definition_math == (
        r"$\Delta \mathrm{log\ M} = \mathrm{log\ M}_\mathrm{est}-\mathrm{log\ M}_\mathrm{true}$"
    )
    assert mass.estimate == "photo_log_mass"


def test_unknown_definition_of_the_residual_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be one of: relative, difference"):
        Target(residual="ratio")
