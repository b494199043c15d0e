"""What is estimated, redshift or another quantity, and the words that figures and tables have for it."""

from dataclasses import dataclass

from photoz_lit.errors import ConfigError
from photoz_lit.setting import setting


@dataclass(frozen=True)
class Target:
    """The quantity that is estimated, any column of numbers; its range and bins are the survey's."""

    column: str = "spec_z"  # of the true values
    # As in "stellar mass", "log M", "dex"; by default redshift's own, or the column's name, and no unit.
    label: str = setting("", decides="results")
    symbol: str = setting("", decides="results")
    unit: str = setting("", decides="results")
    # (estimate - truth) / (1 + truth), or estimate - truth.
    residual: str = setting("relative", choices=("relative", "difference"), decides="results")

    def __post_init__(self) -> None:
        """Fill in words that are not given, and refuse a residual that is not defined."""
        if self.residual not in ("relative", "difference"):
            raise ConfigError(f"target.residual={self.residual} must be one of: relative, difference")
        for name, of_redshift in (("label", "redshift"), ("symbol", "z")):
            words = getattr(self, name) or (of_redshift if self.is_redshift else self.column)
            object.__setattr__(self, name, words)

    @property
    def is_redshift(self) -> bool:
        """Whether it is the redshift."""
        return self.column == "spec_z"

    @property
    def relative(self) -> bool:
        """Whether residuals are divided by 1 + truth."""
        return self.residual == "relative"

    @property
    def estimate(self) -> str:
        """Column of `photo_z.fits` with the estimate."""
        return "photo_z" if self.is_redshift else f"photo_{self.column}"

    # Words of running text: truth, estimate, several values, p(z), n(z) and the residual.

    @property
    def true(self) -> str:
        return "spec z" if self.is_redshift else f"true {self.label}"

    @property
    def estimated(self) -> str:
        return "photo z" if self.is_redshift else f"estimated {self.label}"

    @property
    def plural(self) -> str:
        return "redshifts" if self.is_redshift else f"values of {self.label}"

    @property
    def pdf(self) -> str:
        return f"p({self.symbol})"

    @property
    def n_of(self) -> str:
        return f"n({self.symbol})"

    @property
    def subscripts(self) -> tuple[str, str]:
        """Short names of truth and estimate, as below their symbol."""
        return ("spec", "photo") if self.is_redshift else ("true", "est")

    # What axes and legends say; names in `_math` are Matplotlib's, without dollar signs.

    @property
    def unit_text(self) -> str:
        """The unit in brackets, or nothing."""
        return f"  [{self.unit}]" if self.unit else ""

    @property
    def residual_unit_text(self) -> str:
        """The unit of residuals in brackets; relative ones have none."""
        return "" if self.relative else self.unit_text

    @property
    def true_axis(self) -> str:
        name = "spectroscopic redshift" if self.is_redshift else self.true
        return f"{name} ${self.true_math}${self.unit_text}"

    @property
    def estimated_axis(self) -> str:
        name = "photometric redshift" if self.is_redshift else self.estimated
        return f"{name} ${self.estimated_math}${self.unit_text}"

    @property
    def _symbol(self) -> str:
        plain = self.symbol.replace("\\", "").replace("$", "").replace("_", r"\_").replace(" ", r"\ ")
        return self.symbol if len(self.symbol) == 1 else rf"\mathrm{{{plain}}}"

    @property
    def true_math(self) -> str:
        return rf"{self._symbol}_\mathrm{{{self.subscripts[0]}}}"

    @property
    def estimated_math(self) -> str:
        return rf"{self._symbol}_\mathrm{{{self.subscripts[1]}}}"

    @property
    def delta_math(self) -> str:
        return rf"\Delta {self._symbol}"

    @property
    def definition_math(self) -> str:
        """Definition of the residual, with dollar signs."""
        difference, one = f"{self.estimated_math}-{self.true_math}", f"(1+{self.true_math})"
        return rf"${self.delta_math} = " + (f"({difference})/{one}$" if self.relative else f"{difference}$")


REDSHIFT = Target()
