from photoz_lit.data.sources.mock import draw_galaxies, render_cutouts
from photoz_lit.report.mock_figure import figure_against_real, figure_examples


def test_examples_with_and_without_a_real_stamp(tmp_path):
    galaxies = draw_galaxies(4, seed=1)
    cutouts = render_cutouts(galaxies, seed=1)
    figure = figure_examples(galaxies, cutouts)
    assert sum(bool(axis.images) for axis in figure.axes) == 4
    assert figure.axes[0].get_title().startswith(f"z = {galaxies['spec_z'][0]:.3f}")
    figure = figure_examples(galaxies, cutouts, cutouts[0], real_label="a real one")
    figure.savefig(tmp_path / "examples.png", dpi=50)
    assert sum(bool(axis.images) for axis in figure.axes) == 5
    assert "a real one" in [axis.get_title() for axis in figure.axes]


def test_distributions_cover_six_quantities():
    galaxies = draw_galaxies(200, seed=1)
    figure = figure_against_real(galaxies, galaxies)
    assert [axis.get_xlabel() for axis in figure.axes[:4]] == ["$u - g$", "$g - r$", "$r - i$", "$i - z$"]
    assert all(len(axis.containers) + len(axis.patches) > 2 for axis in figure.axes)
