"""What settings must fulfil, alone and together; each message says what to type instead."""

import difflib
import math
import operator
from typing import Any

from photoz_lit.config.schema import Config, Leaf, SurveyConfig, leaves
from photoz_lit.data.sources import SOURCES
from photoz_lit.errors import ConfigError
from photoz_lit.models.encoders import readers, reads
from photoz_lit.target import Target

# Columns of our own tables, in lower case as FITS compares them, which no target can be called.
TAKEN = (
    *("object_id", "dered_petro_r", "ebv", "ra", "dec", "split", "flag"),
    *("photo_z", "pit", "distance", "far", "target"),
)
LIMITS = {
    "least": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "most": ("at most", operator.le),
    "below": ("below", operator.lt),
}


def check(c: Config) -> None:
    """Raise ConfigError unless the settings can work."""
    for leaf in leaves(c):
        check_leaf(leaf)
    _check_survey(c.survey, c.target)
    _check_data(c)
    _check_training(c)
    _check_combinations(c)


def one_of(key: str, value: Any, valid: tuple[str, ...]) -> None:
    """Raise ConfigError, with the valid values and the nearest one, unless a value is one of them."""
    if value not in valid:
        close = difflib.get_close_matches(str(value), valid, n=1)
        guess = f" Did you mean {key}={close[0]}?" if close else ""
        raise ConfigError(f"{key}={value} is not valid.{guess} Valid values: {', '.join(valid)}")


def check_leaf(leaf: Leaf) -> None:
    """Raise ConfigError unless a value, or each of a list, is among its choices and within its limits."""
    values = leaf.value if isinstance(leaf.value, list) else [leaf.value]
    for value in values:
        if value is None:
            continue
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{leaf.key}={leaf.value} must be finite")
        if "choices" in leaf.declared and "kind" not in leaf.declared:
            one_of(leaf.key.removesuffix(".name"), value, leaf.declared["choices"])
        limits = {name: limit for name, limit in leaf.declared.items() if name in LIMITS}
        if not all(LIMITS[name][1](value, limit) for name, limit in limits.items()):
            must = " and ".join(f"{LIMITS[name][0]} {limit}" for name, limit in limits.items())
            raise ConfigError(f"{leaf.key}={leaf.value} must be {must}")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


def _check_survey(s: SurveyConfig, t: Target) -> None:
    _require(s.z_max > s.z_min, f"survey.z_min={s.z_min}, survey.z_max={s.z_max}: z_min must be below z_max")
    _require(
        s.n_slices % 2 == 1,
        f"survey.n_slices={s.n_slices} does not fit the multi-output head: it must be odd "
        "(2 R - 1 slices for R outputs), e.g. 11",
    )
    _require(
        0 < len(s.bands) == len(set(s.bands)),
        f"survey.bands={s.bands} must name each band once, one letter a band, e.g. ugriz",
    )
    _require(
        s.z_min > -1 or not t.relative,
        f"survey.z_min={s.z_min} must be above -1, residuals being divided by 1 + {t.symbol}: type "
        "target.residual=difference where they are not to be",
    )
    _require(
        t.column.strip() == t.column != "" and t.column.lower() not in TAKEN,
        f"target.column={t.column!r} cannot be estimated: name the column of its true values, e.g. log_mass; "
        f"these names are taken: {', '.join(TAKEN)}",
    )


def _check_data(c: Config) -> None:
    d = c.data
    _require(
        d.val_fraction + d.test_fraction < 1,
        f"data.val_fraction={d.val_fraction} and data.test_fraction={d.test_fraction} must "
        "leave a training split (sum below 1)",
    )
    _require(
        d.thin == [] or (len(d.thin) == 3 and d.thin[0] < d.thin[1] and 0 <= d.thin[2] < 1),
        f"data.thin={d.thin} must be a range of spec_z and the fraction to keep in it: "
        "[z_low,z_high,fraction], e.g. [0.08,0.16,0.1]",
    )
    _require(
        d.n_train is None or d.n_train <= 1 or d.n_train == int(d.n_train),
        f"data.n_train={d.n_train} must be a share of the training galaxies, up to 1, or a number of them",
    )
    if c.stage.name in (None, "report"):
        return
    SOURCES[d.source].check(d, c.survey)
    if c.stage.name != "predict":  # there the model has its own encoder, survey and columns
        _check_encoder(c)


def check_borrowed(c: Config, theirs: Config) -> None:
    """Check that the representation `theirs` can read the galaxies of these settings.

    How many columns a catalogue has shows when it is read.
    """
    kinds, given = reads(theirs.encoder.name), SOURCES[c.data.source].KINDS
    if kinds[0] == "features" and "images" in given:  # whose table has magnitudes
        given = (*given, "features")
    words = f"representation={c.representation}"
    _require(
        bool(set(kinds) & set(given)),
        f"{words} (encoder={theirs.encoder.name}) reads {' or '.join(kinds)} but data={c.data.source} has "
        f"{' or '.join(given)}: choose other data, or a representation of such, as sdss_main is of cutouts "
        "and sdss_main_magnitudes of magnitudes",
    )
    for key in ("bands", "pixels", "pixel_scale") if "images" in kinds else ("bands",):
        one, other = getattr(theirs.survey, key), getattr(c.survey, key)
        _require(
            one == other,
            f"{words} was trained with survey.{key}={one} but here it is {other}: type survey.{key}={one} "
            "if your galaxies have that, else take another representation",
        )
    one, other = (len(getattr(config.data, "magnitude_errors", [])) for config in (theirs, c))
    _require(
        "features" not in kinds or one == other,
        f"{words} reads {one} errors of magnitudes but data.magnitude_errors names {other}: name as many, "
        "in the same order" + (", or type data.magnitude_errors=[]" if one == 0 else ""),
    )


def _check_encoder(c: Config) -> None:
    """Check that the encoder reads what the source has; a store says only when it is opened."""
    source, name, given = c.data.source, c.encoder.name, SOURCES[c.data.source].KINDS
    if not set(given) & set(reads(name)):
        fitting = [one for kind in given for one in readers(kind)]
        raise ConfigError(
            f"encoder={name} reads {' or '.join(reads(name))} but data={source} has {' or '.join(given)}: "
            f"type encoder={' or encoder='.join(fitting)}"
        )
    _require(
        getattr(c.encoder, "noise", 0) == 0 or len(getattr(c.data, "magnitude_errors", [])) > 0,
        "encoder.noise perturbs magnitudes by their errors but there are none: "
        "set data.magnitude_errors, or encoder.noise=0",
    )


def _check_training(c: Config) -> None:
    for name in ("representation", "hidden"):
        t = getattr(c.training, name)
        _require(
            t.max_steps % t.check_every == 0,
            f"training.{name}.max_steps={t.max_steps} must be a multiple of "
            f"training.{name}.check_every={t.check_every}",
        )
    batch, devices = c.training.representation.batch_size, c.trainer.devices
    _require(
        c.stage.name != "representation" or batch % devices == 0,
        f"trainer.devices={devices} cannot share training.representation.batch_size={batch} evenly: each "
        "gets its part of every batch. Type another batch size or number of devices",
    )


def _check_combinations(c: Config) -> None:
    _require(
        c.run not in ("", ".", "..") and not set(c.run) & set("/\\\0"),
        f"run={c.run} must be a plain folder name",
    )
    k, s, stage = c.correction, c.survey, c.stage.name
    _require(
        stage != "representation" or k.name == "none",
        f"stage=representation does not take correction={k.name}: corrections belong to the classifier. "
        "Type\n  python -m photoz_lit stage=representation\n"
        f"  python -m photoz_lit stage=classifier correction={k.name}",
    )
    of_a_table = stage == "calibrate" and c.data.source == "embeddings"
    table = ", or a table of estimates: experiment=embeddings data.path=TABLE data.vectors=[COLUMN]"
    _require(
        stage not in ("predict", "export", "calibrate") or c.model is not None or of_a_table,
        "model is not set: name the run folder of a trained classifier (a pattern with * names an ensemble), "
        f"e.g. model=runs/main/classifier/correction=full,seed=1{table if stage == 'calibrate' else ''}",
    )
    k.check()
    _require(
        not (k.step3 and k.step3.extend) or s.extend_left + s.extend_right > 0,
        "correction.step3.extend=true but survey.extend_left=0 and survey.extend_right=0: type "
        "survey.extend_left=90 survey.extend_right=90, or correction.step3.extend=false",
    )
