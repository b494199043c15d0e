"""One training with Lightning: device, precision, progress, logs, checkpoints, resume."""

import logging
import os
import warnings
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]
from torch import Tensor
from torch.utils.data import DataLoader

from photoz_lit.checkpoints import load_checkpoint, save_checkpoint
from photoz_lit.config import LoggerConfig, TrainerConfig, TrainingConfig
from photoz_lit.data.batches import VAL_BATCH, Galaxies, Stream, in_order, loader
from photoz_lit.device import device_of, precision_of
from photoz_lit.errors import DataError
from photoz_lit.models.module import PhotozModule
from photoz_lit.progress import counted

BLOCK = {"cpu": 8e6, "cuda": 256e6}  # bytes of inputs that a device gets at once
MOST_STEPS = 100  # of a block
ON_GPU = 0.6  # of its free memory that training galaxies may take

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


def _quieten() -> None:
    """Silence Lightning's notes that a user cannot act on, each by its name."""
    for category, message in QUIET:
        warnings.filterwarnings("ignore", message, category)
    for name in ("pytorch_lightning", "lightning.pytorch", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)


class GalaxyData(pl.LightningDataModule):
    """Blocks of batches of training galaxies, as a stream gives them, and validation galaxies in order.

    Where a GPU has room they are all in its memory. Else `num_workers` processes read them, None: as many
    as serve.
    """

    def __init__(
        self, train: Galaxies, val: Galaxies, *, stream: Stream, num_workers: int | None = None
    ) -> None:
        super().__init__()
        self.train, self.val, self.stream, self.num_workers = train, val, stream, num_workers

    def setup(self, stage: str) -> None:
        """Bring the galaxies to the GPU, where they fit."""
        device = self._device()
        if device.type == "cuda" and isinstance(self.train.inputs, np.ndarray):
            free, _ = torch.cuda.mem_get_info(device)
            if sum(len(part) * part.row_bytes for part in (self.train, self.val)) < ON_GPU * free:
                self.train, self.val = self.train.on(device), self.val.on(device)

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return this device's share of the stream."""
        stream, t = self.stream, self.trainer
        if t:
            stream = replace(stream, rank=t.global_rank, world_size=t.world_size)
        return loader(self.train, replace(stream, block=self._block(stream)), self._workers())

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the validation galaxies in order."""
        return loader(self.val, in_order(len(self.val), VAL_BATCH), self._workers())

    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def _block(self, stream: Stream) -> int:
        """Return how many steps a device gets at once: several devices meet after each step."""
        if stream.world_size > 1:
            return 1
        room = int(BLOCK[self._device().type] // (stream.batch_size * self.train.row_bytes))
        most = max(1, min(MOST_STEPS, room, stream.steps_per_epoch))
        return next(n for n in range(most, 0, -1) if stream.steps_per_epoch % n == 0)

    def _workers(self) -> int:
        if isinstance(self.train.inputs, Tensor):
            return 0
        if self.num_workers is not None:
            return self.num_workers
        # On a CPU the network takes all cores.
        return min(8, (os.cpu_count() or 2) // 2) if self._device().type == "cuda" else 0


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
    _quieten()
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
            return WandbLogger(experiment=wandb.run)
        case _:
            return False
