"""A job as a run of W&B: its settings, curves, numbers and figures. It never stands in the way of the job."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from photoz_lit.config import Config, to_container
from photoz_lit.files import read_json

log = logging.getLogger(__name__)

# Seconds: for W&B to answer, or a key to be typed, so that going on offline takes less than 20; and, at the
# end, for what is still to be sent. What is not stays on disk.
PATIENCE, AT_THE_END = 8, 15


@contextmanager
def tracked(config: Config, folder: Path) -> Iterator[None]:
    """Keep what is done to a run folder as one run of W&B, if the logger is such a one.

    Trainings write to `wandb.run`. In the end the numbers of `metrics.json` are its summary, and the figures
    that the report draws of a run stand beside them.
    """
    run = _begun(config, folder) if config.logger.name.startswith("wandb") else None
    if run is None:
        yield
        return
    failed = 1
    try:
        yield
        run.summary.update(read_json(folder / "metrics.json"))
        run.log(_figures(folder))
        failed = 0
    finally:
        run.finish(exit_code=failed)


def _begun(config: Config, folder: Path) -> Any:
    """Begin a run: of W&B where it answers, else kept offline, else none, as on a second device."""
    import wandb
    from pytorch_lightning.utilities import rank_zero_only

    if rank_zero_only.rank > 0:  # type: ignore[attr-defined]
        return None
    online = config.logger.name == "wandb_online"
    limits = {"init_timeout": PATIENCE, "login_timeout": PATIENCE, "finish_timeout": AT_THE_END}
    known: dict[str, Any] = {k: v for k, v in limits.items() if k in wandb.Settings.model_fields}
    stage, group = folder.parent.name, re.sub(r",seed=\d+$", "", folder.name)
    tags = [stage, config.run, config.encoder.name, config.data.source, config.correction.name]
    for mode in (None, "offline") if online else ("offline",):
        try:
            run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "photoz_lit"),
                dir=folder,
                config=to_container(config),
                name=f"{config.run} {folder.name}"[:128],
                group=f"{config.run} {group}"[:128],
                job_type=stage,
                tags=sorted({tag[:64] for tag in tags}),
                mode=mode,
                settings=known,
            )
            run.define_metric("trainer/global_step")
            run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
            return run
        except Exception as error:  # it raises many kinds, for no network, no key, a wrong one
            said = (str(error) or type(error).__name__).splitlines()[0]
            log.warning(
                "W&B cannot be used (%s): going on %s. For the next time: wandb login, or logger=wandb; what"
                " is kept in %s is sent by wandb sync",
                *(said, "without" if mode else "offline", folder / "wandb"),
            )
    return None


def _figures(folder: Path) -> dict[str, Any]:
    """Return what the report draws of one run, by its headings."""
    import wandb

    from photoz_lit.report.blocks import build_blocks
    from photoz_lit.report.runs import read_run
    from photoz_lit.report.table import by_correction

    blocks = build_blocks(by_correction([read_run(folder)]))
    drawn = {heading: picture.content.decode() for block in blocks for heading, picture in block.pictures()}
    slug = {heading: re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") for heading in drawn}
    return {f"report/{slug[heading]}": wandb.Html(svg, inject=False) for heading, svg in drawn.items()}
