"""What stands under `correction`: a tree of the method's steps. An absent branch is null."""

from dataclasses import dataclass
from typing import Any

from photoz_lit.correction.finishing import LINKS, link_module
from photoz_lit.errors import ConfigError
from photoz_lit.setting import chosen, setting

PARTS = 5  # parts of the training galaxies, of which a member of an ensemble on all data leaves one out


@dataclass
class SubsetConfig:
    """The balanced subset: at most `threshold` galaxies a (z bin, r slice) cell; `fold` draws others."""

    threshold: int = setting(20, least=1)
    fold: int = setting(1, least=1)


@dataclass
class Step2Config:
    """The redshift outputs fitted again: by which loss, with which weights of rare redshifts."""

    loss: Any = chosen("photoz_lit.correction.losses:LOSSES", "name", "cross_entropy")
    weights: str = setting("none", choices=("none", "lds", "dense"))


@dataclass
class Step3Config:
    """New outputs on soft and shifted labels."""

    soften: bool = True
    width: float | None = setting(None, above=0)  # of soft labels, bins; null for the fitted dispersion
    shift: str = setting("mirror", choices=("mirror", "centre_of_mass", "none"))
    strength: float = setting(1.0, least=0, most=2)
    extend: bool = True
    # Width of the layer before one output for all magnitudes, or 0 for the paper's linear outputs.
    hidden: int = setting(0, least=0)


@dataclass
class CorrectionConfig:
    """A correction."""

    name: str = "none"  # in the report
    subset: SubsetConfig | None = None
    step2: Step2Config | None = None
    rescale: str = setting("none", choices=("none", "tau", "learnt"))  # lengths of the weights of each bin
    step3: Step3Config | None = None
    finish: list[dict[str, Any]] = setting([])  # links, such as `pit: slices`
    members: int = setting(1, least=1)  # heads, of whose p(z) the mean is taken
    mean: str = setting("arithmetic", choices=("arithmetic", "harmonic"))
    views: int = setting(8, least=1)  # of each galaxy

    @property
    def refits(self) -> bool:
        """Whether outputs are fitted anew."""
        return self.step2 is not None or self.step3 is not None

    @property
    def changes(self) -> bool:
        """Whether anything of Step 1's output is changed."""
        return self.refits or self.rescale != "none" or bool(self.finish)

    @property
    def links(self) -> list[tuple[str, Any]]:
        """Names of the links on finished p(z) and what stands after them, in order."""
        return [pair for link in self.finish for pair in link.items()]

    @property
    def needs_held_out(self) -> bool:
        """Whether a link is fitted on training galaxies that no head saw."""
        return any(link_module(name).nature(value).held_out for name, value in self.links)

    @property
    def leaves_out(self) -> bool:
        """Whether each member leaves a part of the training galaxies out."""
        return self.subset is None and (self.members > 1 or self.needs_held_out)

    @property
    def loses_prior(self) -> str | None:
        """What makes the implicit prior of p(z) unknown, or None."""
        lost = [n for n, value in self.links if not link_module(n).nature(value).keeps_prior]
        return lost[0] if lost else ("rescale" if self.rescale != "none" else None)

    def check(self) -> None:
        """Raise ConfigError unless the branches fit together."""
        if self.name == "none" and self.changes:
            raise ConfigError(
                "correction=none with a step turned on is no longer none: start from another one, e.g. "
                "correction=full, or give it a name, e.g. correction.name=mine"
            )
        if self.name != "none" and not self.changes:
            raise ConfigError(
                f"correction={self.name} without any step changes nothing: type correction=none"
            )
        if self.subset and not (self.refits or self.rescale == "learnt"):
            raise ConfigError(
                "correction.subset needs something to fit on the balanced subset: type "
                "correction.subset=null, or take correction=balanced"
            )
        if self.step3 and self.rescale != "none":
            raise ConfigError(
                f"correction.rescale={self.rescale} scales trained outputs but Step 3 puts new ones in their "
                "place: type correction.rescale=none, or correction.step3=null"
            )
        if self.step3 and self.step3.width is not None and not self.step3.soften:
            raise ConfigError(
                f"correction.step3.width={self.step3.width:g} is the width of softened labels: type "
                "correction.step3.soften=true, or correction.step3.width=null"
            )
        if self.members > 1 and not self.refits:
            raise ConfigError(
                f"correction.members={self.members} needs outputs that are fitted anew, but there is neither "
                "step2 nor step3: type correction.members=1"
            )
        if self.step2:
            self.step2.loss.check(self.step2.weights)
        self._check_links()
        if self.leaves_out and self.members > PARTS:
            raise ConfigError(
                f"correction.members={self.members}: each leaves out one part of {PARTS} of the training "
                f"galaxies, so there are {PARTS} at most"
            )

    def _check_links(self) -> None:
        """Check what stands in `finish`, link by link and in order."""
        known = self.rescale == "none"
        for name, value in self.links:
            if name not in LINKS:
                raise ConfigError(
                    f"correction.finish: {name} is no link. Valid ones: {', '.join(LINKS)}, each with its "
                    "value, as in correction.finish=[{pit:slices}]"
                )
            module = link_module(name)
            module.check(value, self)
            nature = module.nature(value)
            if nature.held_out and (self.subset or not self.refits):
                raise ConfigError(
                    f"correction.finish: {name} is fitted on training galaxies that the new outputs left "
                    "out: type correction.subset=null, with step2 or step3"
                )
            if nature.needs_prior and not known:
                raise ConfigError(
                    f"correction.finish: {name} needs the implicit prior of p(z), which is unknown after "
                    "what comes before it: put it first, with correction.rescale=none"
                )
            known = known and nature.keeps_prior
