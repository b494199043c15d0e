"""One training with Lightning: device, precision, progress, logs, checkpoints, resume."""

import logging
import re
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]

from photoz_lit.checkpoints import load_checkpoint, save_checkpoint
from photoz_lit.config import LoggerConfig, TrainerConfig, TrainingConfig
from photoz_lit.data.datamodule import GalaxyData
from photoz_lit.device import device_of, precision_of
from photoz_lit.errors import DataError
from photoz_lit.models.module import PhotozModule
from photoz_lit.progress import counted

log = logging.getLogger(__name__)

# Lightning tells of its own workings what a user of this package cannot act on.
QUIET = (
    (FutureWarning, ".*LeafSpec.*"),
    (UserWarning, ".*does not have many workers.*"),
    (UserWarning, ".*exists and is not empty.*"),
    (UserWarning, ".*number of training batches.*smaller than the logging interval.*"),
    (UserWarning, ".*that has more than one batch size.*"),
    (UserWarning, ".*Found .* module.* in eval mode at the start of training.*"),
    (UserWarning, ".*resuming from a checkpoint that ended before the epoch ended.*"),
)


def quieten() -> None:
    """Silence Lightning's notes that a user cannot act on, each by its name."""
    for category, message in QUIET:
        warnings.filterwarnings("ignore", message, category)
    for name in ("pytorch_lightning", "lightning.pytorch", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)


def train(
    module: PhotozModule,
    data: GalaxyData,
    folder: Path,
    *,
    training: TrainingConfig,
    trainer: TrainerConfig,
    logger: LoggerConfig,
    name: str,
) -> dict[str, Any]:
    """Train, or go on where an interrupted training stopped, and return the best checkpoint.

    While it trains, `folder` has `last.ckpt` and `best.ckpt`, that of the lowest validation loss; then
    `result.ckpt`, the best. A training that is finished is not repeated. `name` is what logs call it.
    """
    result = folder / "result.ckpt"
    if result.is_file():
        return load_checkpoint(result)
    folder.mkdir(parents=True, exist_ok=True)
    last = folder / "last.ckpt"
    resume = last if last.is_file() else None
    if resume:
        load_checkpoint(resume)  # a file that is none of ours stops here, with a message
        log.info("%s: resuming from %s", name, resume)
    lightning = pl.Trainer(
        accelerator=device_of(trainer).type,
        devices=trainer.devices,
        strategy="ddp" if trainer.devices > 1 else "auto",
        # One device is one device, however many tasks a batch system counts.
        plugins=[LightningEnvironment()] if trainer.devices == 1 else None,
        precision=precision_of(trainer),
        max_epochs=training.max_steps // training.check_every,
        logger=_logger(logger, folder),
        callbacks=[
            ModelCheckpoint(folder, "best", monitor="val_loss", enable_version_counter=False),
            ModelCheckpoint(folder, "last", enable_version_counter=False),  # whatever the validation loss
            Pace(training.max_steps, trainer.progress),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,  # losses are told at the end of an epoch alone
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    try:
        lightning.fit(module, data, ckpt_path=resume, weights_only=True)
    except SystemExit:
        if lightning.interrupted:  # Lightning turns Ctrl-C into an exit without a word
            raise KeyboardInterrupt from None
        raise
    except (RuntimeError, KeyError) as error:
        if resume and lightning.global_step == 0:
            raise DataError(
                f"{resume} cannot be resumed ({type(error).__name__}): delete {folder} and run again"
            ) from error
        raise
    if lightning.interrupted:
        raise KeyboardInterrupt
    if lightning.global_rank > 0:  # the first device alone goes on: the others would write the same files
        raise SystemExit(0)
    checkpoint = load_checkpoint(folder / "best.ckpt")
    checkpoint = {key: checkpoint[key] for key in ("state_dict", "settings")}
    save_checkpoint(result, checkpoint)
    for name in ("last.ckpt", "best.ckpt"):  # with the optimiser's state: of no more use
        (folder / name).unlink(missing_ok=True)
    return checkpoint


class Pace(Callback):
    """Tells how far a training is and how long the whole of it goes on."""

    def __init__(self, max_steps: int, wanted: bool) -> None:
        self.max_steps, self.wanted, self.showing = max_steps, wanted, ExitStack()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin at the step that a resumed training stands at."""
        pace = counted("steps", trainer.global_step, self.max_steps, self.wanted and trainer.global_rank == 0)
        self.tick, self.at = self.showing.enter_context(pace), trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Go the steps of a block on."""
        self.tick(trainer.global_step - self.at)
        self.at = trainer.global_step

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the bar away, whatever ended the training."""
        self.showing.close()


def _logger(config: LoggerConfig, folder: Path) -> Logger | bool:
    match config.name:
        case "csv":
            # A resumed run logs to a folder of its own: Lightning would delete the earlier one.
            attempts = len(list(folder.glob("log/attempt_*")))
            return CSVLogger(folder, name="log", version=f"attempt_{attempts}")
        case "wandb" | "wandb_online":
            import wandb

            if wandb.run is None:  # W&B cannot be used, or this is not the first device
                return False
            step = re.sub("^training|-[0-9a-f]{12}$", "", folder.name)  # of several trainings of one run
            return WandbLogger(experiment=wandb.run, prefix=step)
        case _:
            return False
