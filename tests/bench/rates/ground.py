"""What the parts work on: the machine, drawn cutouts, small trained models, a store of any size."""

import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from api_rate import drawn
from astropy.table import Table

from rates.turns import Taken, command

BLOCK = 1024  # cutouts drawn at a time
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


def processor() -> tuple[str, str]:
    """Return the processor's name, and what of its instruction sets matters here."""
    path = Path("/proc/cpuinfo")
    told = path.read_text().splitlines() if path.is_file() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in told)}
    has = set(facts.get("flags", facts.get("Features", "")).split())
    name = facts.get("model name", platform.processor() or platform.machine())
    return name, " ".join(flag for flag in FLAGS if flag in has)


def on_gpu() -> bool:
    """Whether there is a GPU."""
    return torch.cuda.is_available()


def half_type() -> str:
    """Return bfloat16 where the hardware multiplies in it, else float32."""
    gpu = on_gpu() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if gpu or (not on_gpu() and torch.cpu._is_avx512_bf16_supported()) else "float32"


def machine(clock: str) -> dict[str, str]:
    """Say what the numbers were measured on."""
    name, sets = processor()
    facts = {"GPU": torch.cuda.get_device_name()} if on_gpu() else {}
    facts |= {
        "CPU": f"{name} ({sets})",
        "cores": f"{os.cpu_count()}",
        "threads": f"{torch.get_num_threads()}",
    }
    facts |= {"torch": torch.__version__, "precision": half_type()}
    return facts | ({} if clock == "wall" else {"time": "of the processors"})


@dataclass
class Ground:
    """A folder of its own, and how much is measured."""

    folder: Path
    rounds: int
    galaxies: int  # of the large run of `predict`
    quick: bool
    clock: str = "wall"
    n: int = 8192  # cutouts

    @cached_property
    def cutouts(self) -> Path:
        """An array of cutouts on disk."""
        path = self.folder / "cutouts.npy"
        n = 1024 if self.quick else self.n
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(n, 5, 64, 64))
        for start in range(0, n, BLOCK):
            array[start : start + BLOCK] = drawn(min(BLOCK, n - start))
        array.flush()
        return path

    def table(self, n: int) -> Table:
        """Draw the columns of n galaxies."""
        rng = np.random.default_rng(n)
        columns = {"spec_z": rng.uniform(0.01, 0.39, n), "dered_petro_r": rng.uniform(14, 17.7, n)}
        return Table({"object_id": np.arange(1, n + 1), **columns, "ebv": rng.uniform(0, 0.1, n)})

    @cached_property
    def words(self) -> list[str]:
        """Words of a command that reads the cutouts, whose table is written once: a new one is other data."""
        path = self.folder / "table.csv"
        self.table(len(np.load(self.cutouts, mmap_mode="r"))).write(path, overwrite=True)
        places = [f"output_dir={self.folder / 'runs'}", f"data_dir={self.folder / 'data'}"]
        own = ["data=arrays", f"data.path={path}", f"data.images={self.cutouts}"]
        return [*own, *places, "trainer.progress=false"]

    @cached_property
    def fast(self) -> list[str]:
        """Words of the demo's settings on the cutouts, whose representation is trained briefly."""
        words = ["experiment=demo", *self.words, "encoder=fast", "logger=none", "run=fast"]
        words += ["training.representation.max_steps=10", "training.representation.check_every=10"]
        command("stage=representation", *words)
        return words

    def anew(self, run: str) -> list[str]:
        """Return the words of `fast` for a family of runs with its representation, and no correction yet."""
        words, runs = self.fast, self.folder / "runs"
        shutil.copytree(runs / "fast", runs / run, ignore=shutil.ignore_patterns("classifier", "step2-*"))
        return [f"run={run}" if word.startswith("run=") else word for word in words]

    @cached_property
    def model(self) -> Path:
        """Return the run folder of a model that was trained for a moment: as fast as any other."""
        command("stage=classifier", "correction=full", *self.fast)
        return next((self.folder / "runs" / "fast" / "classifier").glob("*/done.json")).parent

    @contextmanager
    def store(self, n: int) -> Iterator[Path]:
        """Make a prepared data set of n galaxies: the cutouts again and again; of many the last are holes."""
        command("stage=prepare", *self.words)
        made = next((self.folder / "data").glob("arrays-*/store.json"))
        facts, place = json.loads(made.read_text()), self.folder / f"store{n}"
        place.mkdir()
        array = np.load(self.cutouts, mmap_mode="r")
        facts |= {"shape": [n, *array.shape[1:]], "inputs": None}
        self.table(n)["object_id", "dered_petro_r", "ebv"].write(place / "catalogue.fits")
        inputs = np.lib.format.open_memmap(
            place / "inputs.npy", mode="w+", dtype=array.dtype, shape=tuple(facts["shape"])
        )
        for start in range(0, min(n, 65536), len(array)):
            inputs[start : start + len(array)] = array[: n - start]
        inputs.flush()
        (place / "store.json").write_text(json.dumps(facts))
        try:
            yield place
        finally:
            shutil.rmtree(place)

    def predicted(self, model: Path, store: Path, n: int, to: str, *words: str) -> Taken:
        """Give a store's n galaxies photo_z."""
        own = (
            "stage=predict",
            f"model={model}",
            "data=store",
            f"data.path={store}",
            "trainer.progress=false",
        )
        return command(*own, f"output_dir={self.folder / to}", *words, done=n)

    def rates(self, taken: list[Taken]) -> list[float]:
        """Return units a second of each turn."""
        return [one.rate(self.clock) for one in taken]

    def seconds(self, taken: list[Taken]) -> list[float]:
        """Return the seconds of each turn."""
        return [float(getattr(one, self.clock)) for one in taken]

    def slopes(self, small: list[Taken], large: list[Taken]) -> list[float]:
        """Return units a second of what the large turn does beyond the small one: without start-up."""
        pairs = zip(small, large, self.seconds(small), self.seconds(large), strict=True)
        return [(b.done - a.done) / max(tb - ta, 1e-9) for a, b, ta, tb in pairs]
