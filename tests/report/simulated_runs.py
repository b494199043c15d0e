"""Finished runs on disk, as a survey would leave them: simulated estimates with the three biases."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

SURVEY = {
    "name": "mock", "z_min": 0.0, "z_max": 0.4, "n_bins": 90, "r_min": 12.5, "r_width": 0.5, "n_slices": 11,
    "outlier_cut": 0.05, "slope_high_from": 0.15, "bands": "ugriz", "estimate": "mode",
}  # fmt: skip


MASS = {
    "column": "log_mass", "label": "stellar mass", "symbol": "log M", "unit": "dex",
    "residual": "difference",
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """How the estimates of a correction err: stage, settings, tilt, scatter, and strength of the collapse."""

    label: str
    stage: str
    group: str
    tilt: float
    scatter: float
    collapse: float


KINDS = (
    Kind("Baseline", "representation", "head=single", -0.093, 0.0132, 0.8),
    Kind("Step 1", "representation", "head=multi", -0.099, 0.0131, 0.8),
    Kind("none", "classifier", "correction=none", -0.099, 0.0131, 0.8),
    Kind("balanced", "classifier", "correction=balanced", -0.018, 0.0139, 0.6),
    Kind("hard", "classifier", "correction=hard", 0.058, 0.0162, 0.7),
    Kind("unshifted", "classifier", "correction=unshifted", -0.018, 0.0135, 0.1),
    Kind("skip_balanced", "classifier", "correction=skip_balanced", 0.028, 0.0144, 0.05),
    Kind("full", "classifier", "correction=full", 0.010, 0.0145, 0.05),
)


def population(n: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw spec_z and r of a flux-limited sample, each (n,)."""
    spec_z = np.clip(rng.gamma(3.6, 0.034, n), 0.004, 0.399)
    r = np.clip(17.77 - rng.exponential(0.9, n) - 1.5 * (0.12 - np.minimum(spec_z, 0.12)) / 0.12, 12.6, 17.77)
    return spec_z, r


def estimate(kind: Kind, spec_z: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Tilt, scatter and pile up: photo_z (n,)."""
    dz = kind.tilt * (spec_z - 0.11) + kind.scatter * rng.standard_normal(spec_z.size)
    photo_z = np.maximum(spec_z + dz * (1 + spec_z), -0.02)
    nodes = np.sort(rng.uniform(0.0, 0.4, 24))
    nearest = nodes[np.abs(photo_z[:, None] - nodes[None, :]).argmin(axis=1)]
    return np.where(rng.uniform(size=spec_z.size) < kind.collapse, nearest, photo_z)


def numbers(kind: Kind, seed: int, n: int) -> dict[str, float | None]:
    """Make the flat keys of metrics.json."""
    wiggle = 0.002 * (seed - 2)
    values: dict[str, float | None] = {
        "n": n, "bias": 0.0004 + wiggle / 10, "sigma_mad": kind.scatter + wiggle / 10,
        "outlier_fraction": 0.012, "crps": 0.6 * kind.scatter, "pit_ks": 0.03 + 0.1 * kind.collapse,
        "pit_cvm": 0.001, "cde_loss": -1 / (3.5 * kind.scatter), "coverage_68": 0.7 - 0.2 * kind.collapse,
        "coverage_95": 0.95 - 0.1 * kind.collapse,
        "slope_spec_z": kind.tilt + wiggle, "slope_spec_z_high": kind.tilt * 0.8 + wiggle,
        "slope_photo_z": kind.tilt / 4 - 0.03 + wiggle, "wasserstein": None,
        "total_variation": 0.06 + 0.2 * kind.collapse + wiggle, "total_variation_floor": 0.06,
    }  # fmt: skip
    return values | {f"{key}_err": None if value is None else 0.001 for key, value in list(values.items())}


def write_run(
    output_dir: Path,
    kind: Kind,
    seed: int,
    *,
    run: str = "demo",
    n: int = 1500,
    config: str = "",
    target: dict[str, str] | None = None,
    store: str = "mock-1",
) -> Path:
    """Write one finished run folder and return it; with further settings and another target where given."""
    rng = np.random.default_rng((seed, *kind.label.encode()))
    folder = output_dir / run / kind.stage / f"{kind.group},seed={seed}"
    folder.mkdir(parents=True)
    spec_z, r = population(n, np.random.default_rng(seed))
    photo_z = estimate(kind, spec_z, rng)
    pit = np.clip(0.5 + 0.29 * rng.standard_normal(n) * (1 + kind.collapse / 2), 0, 1)
    truth = target["column"] if target else "spec_z"
    photo = f"photo_{truth}" if target else "photo_z"
    table = Table(
        {
            "object_id": np.arange(n), truth: spec_z, "dered_petro_r": r, photo: photo_z,
            f"{photo}_mode": photo_z,
            f"{photo}_mean": photo_z, f"{photo}_median": photo_z, f"{photo}_lower": photo_z - kind.scatter,
            f"{photo}_upper": photo_z + kind.scatter, "pit": pit,
        },
        meta={"z_min": 0.0, "z_max": 0.4, "n_bins": 90},
    )  # fmt: skip
    table.write(folder / "photo_z.fits")
    with h5py.File(folder / "pdf.hdf5", "w") as file:
        file["ancil/object_id"] = np.arange(n)
        file["data/pdfs"] = np.full((n, 90), 2.5, np.float32)
        file["meta/bins"] = np.linspace(0, 0.4, 91)[None]
        for name in ("implicit_prior", "training_prior"):
            file[f"priors/{name}"] = np.full((11, 90), 1 / 990)
        file["priors"].attrs["r_edges"] = 12.5 + 0.5 * np.arange(12)
    trainz = Kind("trainz", "", "", -0.9, 0.05, 1.0)
    done = {
        "label": kind.label, "group": kind.group, "seed": seed, "stage": kind.stage, "run": run,
        "seconds": 60.0 + seed if kind.stage == "representation" else 9.0 + seed,
    }  # fmt: skip
    for name, content in (
        ("metrics.json", numbers(kind, seed, n)), ("trainz.json", numbers(trainz, seed, n)),
        ("survey.json", SURVEY | ({"target": target} if target else {})), ("done.json", done),
        ("origin.json", {"store": store}),
    ):  # fmt: skip
        (folder / name).write_text(json.dumps(content))
    (folder / "config.yaml").write_text(f"stage: {kind.stage}\nseed: {seed}\nname: <{kind.label}>\n{config}")
    return folder


def write_newer(folder: Path, individual: float = 0.0, commit: str = "") -> None:
    """Add what runs of earlier versions lack: numbers by estimate, n(z), and a commit where one is given."""
    metrics = json.loads((folder / "metrics.json").read_text())
    newer = {"rms": 0.02, "slope_spec_z_plain": -0.12, "stacked_tv": 0.03, "inferred_tv": 0.04}
    (folder / "metrics.json").write_text(json.dumps(metrics | newer))
    slopes = {"mode": metrics["slope_spec_z"], "median": -0.08, "individual": individual}
    for estimate, slope in slopes.items():
        own = metrics | {"slope_spec_z": slope, "within_error": 0.68 if estimate == "individual" else None}
        (folder / f"metrics_{estimate}.json").write_text(json.dumps(own))
    edges, true = np.linspace(0, 0.4, 91), np.full(90, 1 / 90)
    columns = {"z_low": edges[:-1], "z_high": edges[1:], "true": true, "stacked": true, "inferred": true}
    Table(columns).write(folder / "n_of_z.ecsv")
    if commit:
        code = [{"version": "0.1.0", "commit": commit, "changed": False}]
        (folder / "frozen.json").write_text(json.dumps({"unseen": True, "code": code}))


def write_sweep(
    output_dir: Path,
    kinds: Sequence[Kind],
    key: str,
    values: Sequence[object],
    *,
    seeds: Sequence[int] = (1, 2),
    run: str = "swept",
    n: int = 300,
    data: str = "{}",
) -> None:
    """Write runs of each kind at each value of a setting, a section and a name with a dot between them."""
    section, name = key.split(".")
    for value in values:
        config = f"sweep: {{axis: {{{key}: number of {name}}}}}\n"
        config += f"{section}: {{{name}: {value}}}\n"
        config += f"data: {data}\n" if section != "data" else ""
        for kind in kinds:
            further = replace(
                kind, group=f"{kind.group},{key}={value}", label=f"{kind.label} · {name}={value}"
            )
            for seed in seeds:
                write_run(output_dir, further, seed, run=run, n=n, config=config)


def write_calibrated(
    output_dir: Path, kind: Kind, seed: int, *, run: str = "demo", slope: float = 0.004
) -> Path:
    """Write calibrated estimates of a run and return their folder; only their numbers."""
    folder = output_dir / run / "calibrate" / f"{kind.group},seed={seed}" / "target=auto"
    folder.mkdir(parents=True)
    before = numbers(kind, seed, 1500) | {"bulk_mean": 0.004, "bulk_max": 0.015}
    after = before | {"bulk_mean": 0.0005, "bulk_max": 0.002, "slope_photo_z": slope, "slope_spec_z": -0.11}
    for name, content in (("metrics_before.json", before), ("metrics.json", after), ("done.json", {})):
        (folder / name).write_text(json.dumps(content))
    return folder


def write_labels(folder: Path, seed: int = 0) -> None:
    """Write the arrays of a classifier's labels into its folder."""
    rng = np.random.default_rng(seed)
    slices, bins, extension = SURVEY["n_slices"], SURVEY["n_bins"], 10
    outputs = (slices + 1) // 2
    before = rng.poisson(4.0, (slices, bins))
    centres = np.arange(bins + 2 * extension) - extension
    cells = np.array([(3, 5), (3, 40), (3, 85)])
    means = cells[:, 1] + np.array([3.0, 0.0, -3.0])
    arrays = {
        "sigma_dispersion": rng.uniform(0.5, 3.0, outputs),
        "sigma_scatter": rng.uniform(0.5, 3.0, outputs),
        "spec_z_hist": rng.poisson(20.0, (outputs, bins)),
        "photo_z_hist": rng.poisson(20.0, (outputs, bins)),
        "counts": before,
        "mean": np.broadcast_to(np.arange(bins)[:, None] + 1.0, (slices, bins, outputs)),
        "membership": np.abs(np.arange(slices)[:, None] - 2 * np.arange(outputs)) <= 1,
        "edges": (np.arange(bins + 2 * extension + 1) - extension) * 0.4 / bins,
        "examples": np.exp(-0.5 * ((centres - means[:, None]) / 2.0) ** 2),
        "example_cells": cells,
    }
    np.savez(folder / "labels.npz", **arrays)
    np.savez(folder / "counts.npz", before=before, after=np.minimum(before, 3))
