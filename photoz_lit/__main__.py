"""The way in: `python -m photoz_lit stage=...`; imports what a command needs when it needs it."""

import atexit
import gc
import importlib
import sys
from typing import TYPE_CHECKING

from photoz_lit import __version__
from photoz_lit.errors import PhotozError
from photoz_lit.usage import conf_folder, usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from photoz_lit.config import Config
    from photoz_lit.plain_training import Fitting


def main() -> None:
    """Run a job, or a sweep of jobs, and exit: 0 done, 1 failed on data, 2 wrong settings."""
    for stream in (sys.stdout, sys.stderr):  # a terminal without some letters shows ? in their place
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if len(sys.argv) == 1 or {"--help", "-h"} & set(sys.argv):
        print(usage())
        return
    if "--version" in sys.argv:
        print(f"photoz_lit {__version__}")
        return
    try:
        from photoz_lit.config.launch import launch

        sys.exit(launch(sys.argv[1:], conf_folder(), work, work_together, report))
    except PhotozError as error:
        report(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted: type the same command to go on", file=sys.stderr)
        sys.exit(130)


def work(config: "Config") -> None:
    """Run the stage of checked settings, unless it is done."""
    if (steps := begun(config)) is not None:
        from photoz_lit.plain_training import alone

        alone(steps)


def work_together(configs: "Sequence[Config]") -> "Sequence[Exception | None]":
    """Run classifiers, those that are not done, and return what failed of each."""
    from photoz_lit.together import attempted

    return attempted(begun, configs)


def begun(config: "Config") -> "Fitting[None] | None":
    """Run a stage, unless it is done, or begin a classifier: PyTorch takes seconds to import."""
    if config.stage.name in ("representation", "classifier"):
        from photoz_lit.runs import complete
        from photoz_lit.stages.prepare import store_folder

        if complete(config, store_folder(config).name):
            return None
    stage = importlib.import_module(f"photoz_lit.stages.{config.stage.name}")
    if not gc.isenabled():  # see `start`
        gc.freeze()
        gc.enable()
    if "torch" in sys.modules:
        from photoz_lit.device import prepare

        prepare(config.trainer)
    steps: Fitting[None] | None = stage.run(config)
    return steps


def report(error: Exception) -> None:
    """Print what a user can mend, without a traceback."""
    said = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        said = f"{error.filename}: {error.strerror}"
    print("\n  ".join([f"error: {said}", *getattr(error, "__notes__", [])]), file=sys.stderr)


def start() -> None:
    """Be the program of this process, whose objects need not be looked through for what is garbage.

    Hardly any is while modules are imported, and at the end nobody needs the memory: together a second.
    """
    gc.disable()  # until `work`
    atexit.register(gc.freeze)
    main()


if __name__ == "__main__":
    start()
