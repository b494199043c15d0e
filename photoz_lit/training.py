"""One training with Lightning: device, precision, progress, logs, checkpoints, resume."""

import logging
import os
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]
from torch import Tensor, nn

from photoz_lit.config import LoggerConfig, TrainerConfig, TrainingConfig
from photoz_lit.data.datamodule import GalaxyData
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.files import beside
from photoz_lit.models.module import PhotozModule
from photoz_lit.progress import counted

log = logging.getLogger(__name__)

BATCH = 512  # galaxies at a time where nothing is trained
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


def use_threads(n: int | None) -> None:
    """Use so many CPU threads in this process; None leaves the choice to torch."""
    if n is not None:
        torch.set_num_threads(n)


def device_of(trainer: TrainerConfig) -> torch.device:
    """Return the device that Lightning would train on."""
    if trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if trainer.accelerator in ("gpu", "cuda"):
        raise ConfigError(
            f"trainer.accelerator={trainer.accelerator} but no GPU is found: type trainer.accelerator=auto"
        )
    return torch.device("cpu")


def precision_of(trainer: TrainerConfig) -> Literal["bf16-mixed", "32-true"]:
    """Return bf16-mixed where the hardware computes in it, else 32-true."""
    if trainer.precision != "auto":
        return "bf16-mixed" if trainer.precision == "bf16-mixed" else "32-true"
    if device_of(trainer).type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() else "32-true"


def autocast(trainer: TrainerConfig) -> torch.autocast:
    """Return the autocast context that matches `precision_of`, for inference outside Lightning."""
    enabled = precision_of(trainer) == "bf16-mixed"
    return torch.autocast(device_of(trainer).type, dtype=torch.bfloat16, enabled=enabled)


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
        logger=(book := _logger(logger, folder, name, resume)),
        callbacks=[
            ModelCheckpoint(folder, "best", monitor="val_loss", enable_version_counter=False),
            ModelCheckpoint(folder, "last", enable_version_counter=False),  # whatever the validation loss
            Pace(training.max_steps, trainer.progress),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=training.check_every,
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
    finally:
        if isinstance(book, WandbLogger):
            book.experiment.finish()  # wandb.finish() leaves a run of reinit="create_new" open
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


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint without unpickling code; DataError where the file is none of ours, or not whole."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that are not its own
        raise DataError(
            f"{path}: cannot be loaded as a checkpoint ({type(error).__name__}): "
            "delete its folder and train again"
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "settings"} <= checkpoint.keys():
        raise DataError(f"{path}: is no checkpoint of photoz_lit: delete its folder and train again")
    return checkpoint


def load_weights(network: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Load weights into the network that they belong to; DataError where they are another network's."""
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: weights of another network: delete its folder, train again") from error


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint beside its place and rename it; the same content gives the same bytes."""
    with beside(path) as partial, partial.open("wb") as file:  # a path would be written into it
        torch.save(content, file)


class Pace(Callback):
    """Tells how far a training is and how long the whole of it goes on."""

    def __init__(self, max_steps: int, wanted: bool) -> None:
        self.max_steps, self.wanted, self.showing = max_steps, wanted, ExitStack()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin at the step that a resumed training stands at."""
        pace = counted("steps", trainer.global_step, self.max_steps, self.wanted and trainer.global_rank == 0)
        self.tick = self.showing.enter_context(pace)

    def on_train_batch_end(self, *_: Any) -> None:
        """Go one step on."""
        self.tick(1)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the bar away, whatever ended the training."""
        self.showing.close()


def _logger(config: LoggerConfig, folder: Path, name: str, resume: Path | None) -> Logger | bool:
    match config.name:
        case "csv":
            # A resumed run logs to a folder of its own: Lightning would delete the earlier one.
            attempts = len(list(folder.glob("log/attempt_*")))
            return CSVLogger(folder, name="log", version=f"attempt_{attempts}")
        case "wandb" | "wandb_online":
            return WandbLogger(
                name=name,
                project=os.environ.get("WANDB_PROJECT", "photoz_lit"),
                offline=config.name == "wandb",
                save_dir=folder,
                reinit="create_new",
            )
        case _:
            return False
