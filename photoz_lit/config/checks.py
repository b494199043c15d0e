"""What settings must fulfil, alone and together; each message says what to type instead."""

import difflib
import math
from dataclasses import fields
from typing import Any

from photoz_lit.config.schema import (
    CORRECTIONS,
    ENCODERS,
    ESTIMATES,
    IMAGE_ENCODERS,
    PARTS,
    SOURCES,
    STAGES,
    Config,
    DataConfig,
    SurveyConfig,
    TrainingConfig,
    TrainingsConfig,
)
from photoz_lit.errors import ConfigError
from photoz_lit.target import Target

# Columns of our own tables, in lower case as FITS compares them, which no target can be called.
TAKEN = (
    *("object_id", "dered_petro_r", "ebv", "ra", "dec", "split", "flag"),
    *("photo_z", "pit", "distance", "far", "target"),
)
LOSSES = ("cross_entropy", "balanced_softmax", "crps", "sord", "nearest")


def check(c: Config) -> None:
    """Raise ConfigError unless the settings can work."""
    _check_choices(c)
    _check_survey(c.survey)
    _check_target(c.target, c.survey)
    _check_data(c)
    _check_numbers(c)
    _check_combinations(c)


def one_of(key: str, value: Any, valid: tuple[str, ...]) -> None:
    """Raise ConfigError, with the valid values and the nearest one, unless a value is one of them."""
    if value not in valid:
        close = difflib.get_close_matches(str(value), valid, n=1)
        guess = f" Did you mean {key}={close[0]}?" if close else ""
        raise ConfigError(f"{key}={value} is not valid.{guess} Valid values: {', '.join(valid)}")


def _check_choices(c: Config) -> None:
    if c.stage.name is not None:
        one_of("stage", c.stage.name, STAGES)
    one_of("head", c.head, ("single", "multi"))
    one_of("data.source", c.data.source, SOURCES)
    one_of("data.dtype", c.data.dtype, ("float16", "float32"))
    one_of("encoder", c.encoder.name, ENCODERS)
    one_of("correction.name", c.correction.name, CORRECTIONS)
    one_of("correction.shift", c.correction.shift, ("mirror", "centre_of_mass", "none"))
    one_of("correction.loss", c.correction.loss, LOSSES)
    one_of("correction.weights", c.correction.weights, ("none", "lds", "dense"))
    one_of("correction.rescale", c.correction.rescale, ("none", "tau", "learnt"))
    one_of("correction.prior", c.correction.prior, ("none", "flat", "training"))
    one_of("correction.recalibrate", c.correction.recalibrate, ("none", "global", "slices", "local"))
    one_of("estimate", c.estimate, ESTIMATES)
    if c.correction.estimate is not None:
        one_of("correction.estimate", c.correction.estimate, ESTIMATES)
    one_of("correction.mean", c.correction.mean, ("arithmetic", "harmonic"))
    one_of("calibration.name", c.calibration.name, ("none", "photo_z"))
    one_of("calibration.target", c.calibration.target, ("training", "photo", "deconvolved"))
    one_of("calibration.sample", c.calibration.sample, ("held_out", "all", "val"))
    one_of("logger", c.logger.name, ("csv", "wandb", "none"))
    one_of("trainer.precision", c.trainer.precision, ("auto", "bf16-mixed", "32-true"))
    one_of("trainer.accelerator", c.trainer.accelerator, ("auto", "cpu", "gpu", "cuda"))
    one_of("trainer.strategy", c.trainer.strategy, ("auto", "ddp"))
    one_of("sweep.scale", c.sweep.scale, ("linear", "log", "category"))
    for name, training in _trainings(c):
        one_of(f"training.{name}.schedule", training.schedule, ("one_cycle", "halfway_drop", "constant"))


def _trainings(c: Config) -> list[tuple[str, TrainingConfig]]:
    return [(f.name, getattr(c.training, f.name)) for f in fields(TrainingsConfig)]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


def _check_survey(s: SurveyConfig) -> None:
    _require(
        s.z_max > s.z_min and math.isfinite(s.z_max - s.z_min),
        f"survey.z_min={s.z_min}, survey.z_max={s.z_max}: z_min must be below z_max, both finite",
    )
    for key in ("n_bins", "pixels"):
        _require(getattr(s, key) >= 2, f"survey.{key}={getattr(s, key)} must be at least 2")
    for key in ("extend_left", "extend_right"):
        _require(getattr(s, key) >= 0, f"survey.{key}={getattr(s, key)} must not be negative")
    for key in ("r_width", "pixel_scale", "outlier_cut"):
        _require(getattr(s, key) > 0, f"survey.{key}={getattr(s, key)} must be positive")
    _require(
        s.n_slices >= 1 and s.n_slices % 2 == 1,
        f"survey.n_slices={s.n_slices} does not fit the multi-output head: it must be odd "
        "(2 R - 1 slices for R outputs), e.g. 11",
    )
    _require(
        0 < len(s.bands) == len(set(s.bands)),
        f"survey.bands={s.bands} must name each band once, one letter a band, e.g. ugriz",
    )


def _check_target(t: Target, s: SurveyConfig) -> None:
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
        0 < d.val_fraction < 1 and 0 < d.test_fraction < 1 and d.val_fraction + d.test_fraction < 1,
        f"data.val_fraction={d.val_fraction} and data.test_fraction={d.test_fraction} must be positive "
        "and leave a training split (sum below 1)",
    )
    _require(d.n_galaxies >= 10, f"data.n_galaxies={d.n_galaxies} must be at least 10")
    for key in ("limit", "n_train"):
        value = getattr(d, key)
        _require(value is None or value >= 1, f"data.{key}={value} must be at least 1")
    _require(
        0 < d.train_fraction <= 1,
        f"data.train_fraction={d.train_fraction} must be in (0, 1]: the share of training galaxies to use",
    )
    _require(
        d.thin == [] or (len(d.thin) == 3 and d.thin[0] < d.thin[1] and 0 <= d.thin[2] < 1),
        f"data.thin={d.thin} must be a range of spec_z and the fraction to keep in it: "
        "[z_low,z_high,fraction], e.g. [0.08,0.16,0.1]",
    )
    _require(d.label_error >= 0, f"data.label_error={d.label_error} must not be negative")
    _require(0 <= d.max_missing < 1, f"data.max_missing={d.max_missing} must be in [0, 1)")
    _require(
        len(d.region) in (0, 4),
        f"data.region={d.region} must be four numbers in degrees: [ra_min,ra_max,dec_min,dec_max]",
    )
    if c.stage.name in (None, "report"):
        return
    _check_source(d, c.target.column)
    if c.stage.name != "predict":  # there the model has its own encoder, survey and columns
        _check_encoder(c)
    if d.source == "mock":
        _require(
            c.survey.name == "sdss" and c.survey.bands == "ugriz",
            f"data=mock simulates SDSS in ugriz but the survey is {c.survey.name} in {c.survey.bands}: "
            "type survey=sdss, or bring cutouts with data=arrays",
        )


def _check_source(d: DataConfig, truth: str) -> None:
    """Check that a source was given the files it reads."""
    what = {
        "catalogue": f"a table with {truth}, e.g. data.path=galaxies.csv",
        "arrays": f"a table with {truth}, e.g. data.path=galaxies.csv",
        "embeddings": f"a table with {truth}, e.g. data.path=galaxies.csv",
        **dict.fromkeys(
            ("pasquet", "npy_folder", "cfhtls", "galaxies_ml"),
            "the data set's file or folder, e.g. data.path=sdss_vagc.npz",
        ),
        "store": "a prepared folder, e.g. data.path=data/mock-0123456789ab",
    }
    if d.source in what:
        _require(d.path is not None, f"data.path is not set: data={d.source} needs {what[d.source]}")
    match d.source:
        case "catalogue":
            _require(
                len(d.magnitudes) > 0,
                "data.magnitudes is empty: name the columns, e.g. data.magnitudes=[mag_g,mag_r,mag_i]",
            )
        case "arrays":
            _require(
                d.images is not None,
                "data.images is not set: name the cutouts, e.g. data.images=cutouts.npy",
            )
        case "stamps":
            _require(
                d.images is not None,
                "data.images is not set: name the folder of FITS stamps, e.g. data.images=stamps",
            )
        case "embeddings":
            _require(
                (d.images is None) != (len(d.vectors) == 0),
                "data=embeddings needs either data.images=vectors.npy (an array with a row a galaxy) "
                'or data.vectors=["f*"] (columns of the table)',
            )
        case "sdss":
            _require(
                d.frames is None or d.positions is not None,
                f"data.frames={d.frames} needs data.positions, a table with ra and dec",
            )
    _require(
        d.source != "arrays" or (d.test_path is None) == (d.test_images is None),
        "data.test_path and data.test_images go together: set both or neither",
    )


def _check_encoder(c: Config) -> None:
    """Check that the encoder reads what the source has; a store says only when it is opened."""
    source, name = c.data.source, c.encoder.name
    if source == "catalogue":
        _require(
            name == "mlp",
            f"encoder={name} reads images but data=catalogue has magnitudes only: type encoder=mlp",
        )
    elif source == "embeddings":
        _require(
            name in ("precomputed", "mlp"),
            f"encoder={name} reads images but data=embeddings has vectors: "
            "type encoder=precomputed (as they are) or encoder=mlp (layers on top)",
        )
    elif source != "store":
        _require(
            name in IMAGE_ENCODERS,
            f"encoder={name} reads {'magnitudes' if name == 'mlp' else 'vectors'} but data={source} has "
            f"images: type encoder=fast (or one of {', '.join(IMAGE_ENCODERS[:5])})",
        )
    _require(
        name != "net_t" or c.survey.pixels >= 49,
        f"encoder=net_t needs cutouts of at least 49 pixels, survey.pixels={c.survey.pixels}: "
        "type encoder=net_p or encoder=fast",
    )


def _check_numbers(c: Config) -> None:
    for name, t in _trainings(c):
        for key in ("max_steps", "check_every", "batch_size"):
            _require(getattr(t, key) >= 1, f"training.{name}.{key}={getattr(t, key)} must be at least 1")
        _require(
            t.max_steps % t.check_every == 0,
            f"training.{name}.max_steps={t.max_steps} must be a multiple of "
            f"training.{name}.check_every={t.check_every}",
        )
        _require(t.lr > 0, f"training.{name}.lr={t.lr} must be positive")
        _require(t.weight_decay >= 0, f"training.{name}.weight_decay={t.weight_decay} must not be negative")
    _require(c.correction.threshold >= 1, f"correction.threshold={c.correction.threshold} must be at least 1")
    _require(c.correction.views >= 1, f"correction.views={c.correction.views} must be at least 1")
    _require(c.correction.fold >= 1, f"correction.fold={c.correction.fold} must be at least 1")
    for key, least in (("members", 1), ("n_hidden", 0), ("label_width", 0), ("unshrink", 0)):
        value = getattr(c.correction, key)
        _require(value >= least, f"correction.{key}={value} must be at least {least}")
    _require(
        not c.correction.leaves_out or c.correction.members <= PARTS,
        f"correction.members={c.correction.members}: each leaves out one part of {PARTS} of the training "
        f"galaxies, so there are {PARTS} at most",
    )
    _require(
        0 <= c.correction.shift_strength <= 2,
        f"correction.shift_strength={c.correction.shift_strength} must be between 0 and 2",
    )
    p = c.predict
    _require(1 <= p.symmetries <= 8, f"predict.symmetries={p.symmetries} must be between 1 and 8")
    for key in ("neighbours", "chunk"):
        _require(getattr(p, key) >= 1, f"predict.{key}={getattr(p, key)} must be at least 1")
    _require(0 < p.far_quantile < 1, f"predict.far_quantile={p.far_quantile} must be in (0, 1)")
    threads = c.trainer.threads
    _require(threads is None or threads >= 1, f"trainer.threads={threads} must be at least 1")
    for key, least in (("num_workers", 0), ("predict_batch_size", 1)):
        value = getattr(c.trainer, key)
        _require(value >= least, f"trainer.{key}={value} must be at least {least}")
    workers = c.trainer.render_workers
    _require(workers is None or workers >= 1, f"trainer.render_workers={workers} must be at least 1")
    _require(c.trainer.devices >= 1, f"trainer.devices={c.trainer.devices} must be at least 1")
    _require(
        c.encoder.noise == 0 or len(c.data.magnitude_errors) > 0 or c.stage.name in (None, "report"),
        f"encoder.noise={c.encoder.noise} perturbs magnitudes by their errors but there are none: "
        "set data.magnitude_errors, or encoder.noise=0",
    )
    _require(c.encoder.stretch_scale > 0, f"encoder.stretch_scale={c.encoder.stretch_scale} must be positive")
    _require(
        len(c.encoder.hidden) > 0 and min(c.encoder.hidden) >= 1,
        f"encoder.hidden={c.encoder.hidden} must name at least one layer, each of at least 1, e.g. [256,256]",
    )
    _require(c.encoder.noise >= 0, f"encoder.noise={c.encoder.noise} must not be negative")
    _require(0 <= c.encoder.dropout < 1, f"encoder.dropout={c.encoder.dropout} must be in [0, 1)")
    _require(c.n_bootstrap >= 2, f"n_bootstrap={c.n_bootstrap} must be at least 2")
    _require(c.seed >= 0, f"seed={c.seed} must not be negative")
    bad = set(c.run) & set('/\\:*?"<>| ')
    _require(not bad and c.run not in ("", ".", ".."), f"run={c.run} must be a plain folder name")


def _check_combinations(c: Config) -> None:
    k = c.correction
    if c.stage.name == "representation" and k.name != "none":
        raise ConfigError(
            f"stage=representation does not take correction={k.name}: "
            "corrections belong to the classifier. Type\n"
            f"  python -m photoz_lit stage=representation\n"
            f"  python -m photoz_lit stage=classifier correction={k.name}"
        )
    of_a_table = c.stage.name == "calibrate" and c.data.source == "embeddings"
    if c.stage.name in ("predict", "calibrate") and c.model is None and not of_a_table:
        raise ConfigError(
            "model is not set: name the run folder of a trained classifier (a pattern with * names an "
            "ensemble), e.g. model=runs/main/classifier/correction=full,seed=1"
            + (
                ", or a table of estimates: experiment=embeddings data.path=TABLE data.vectors=[COLUMN]"
                if c.stage.name == "calibrate"
                else ""
            )
        )
    if k.name == "none" and k.changes:
        raise ConfigError(
            "correction=none with a switch turned on is no longer none: start from another one, e.g. "
            "correction=unshifted, and turn its switches"
        )
    if k.name != "none" and not k.changes:
        raise ConfigError(
            f"correction={k.name} with fine_tune=false soften=false extend=false shift=none changes nothing: "
            "type correction=none"
        )
    if k.balance and not (k.fine_tune or k.relabels or k.rescale == "learnt"):
        raise ConfigError(
            "correction.balance=true needs something to fit on the balanced subset: "
            "type correction=balanced, or correction.fine_tune=true"
        )
    if k.n_hidden > 0 and not k.relabels:
        raise ConfigError(
            f"correction.n_hidden={k.n_hidden} shapes the new outputs of Step 3, which does not run: type "
            "correction.soften=true, or correction.n_hidden=0"
        )
    if k.label_width > 0 and not (k.soften or k.loss == "sord"):
        raise ConfigError(
            f"correction.label_width={k.label_width} is the width of softened labels: type "
            "correction.soften=true, or correction.label_width=0 for the fitted one"
        )
    if k.loss == "sord" and k.label_width == 0:
        raise ConfigError(
            "correction.loss=sord needs the width of its labels: type correction.label_width=1, in bins"
        )
    if k.rescale != "none" and k.relabels:
        raise ConfigError(
            f"correction.rescale={k.rescale} scales trained outputs but Step 3 puts new ones in their place: "
            "type correction.rescale=none, or correction.soften=false correction.shift=none "
            "correction.extend=false"
        )
    if k.members > 1 and not (k.fine_tune or k.relabels):
        raise ConfigError(
            f"correction.members={k.members} needs outputs that are fitted anew: "
            "type correction.fine_tune=true"
        )
    if k.unshrink > 0 and not (k.extend and not k.balance and (k.fine_tune or k.relabels)):
        raise ConfigError(
            f"correction.unshrink={k.unshrink} moves p(z) beyond the survey's range and is fitted on "
            "training galaxies left out: type correction.extend=true correction.balance=false"
        )
    own_loss = k.loss != "cross_entropy" or k.weights != "none" or k.trend_penalty > 0
    _require(k.trend_penalty >= 0, f"correction.trend_penalty={k.trend_penalty} must not be negative")
    if own_loss and not k.fine_tune:
        raise ConfigError(
            "correction.loss, correction.weights and correction.trend_penalty act in Step 2, which does not "
            "run: type correction.fine_tune=true"
        )
    if k.weights != "none" and k.loss == "balanced_softmax":
        raise ConfigError(
            f"correction.loss=balanced_softmax with correction.weights={k.weights} would balance twice: "
            "type correction.weights=none"
        )
    s = c.survey
    if k.extend and s.extend_left + s.extend_right == 0:
        raise ConfigError(
            "correction.extend=true but survey.extend_left=0 and survey.extend_right=0: "
            "type survey.extend_left=90 survey.extend_right=90, or correction.extend=false"
        )
