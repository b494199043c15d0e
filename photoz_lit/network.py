"""The network that settings describe: encoder, head, and what happens to a galaxy's inputs first."""

import numpy as np
import torch

from photoz_lit.checkpoints import load_checkpoint, load_weights
from photoz_lit.config import Config
from photoz_lit.data.transforms import Inputs
from photoz_lit.errors import ConfigError
from photoz_lit.grids import Bools
from photoz_lit.models.encoders import build_encoder, encoder_class, readers, reads
from photoz_lit.models.heads import AnyHead, Head, HiddenHead, PhotozNet


def build(config: Config, kind: str, shape: tuple[int, ...]) -> PhotozNet:
    """Build the network, with initial weights drawn from the seed, for inputs as a `Store` has them.

    ConfigError where the encoder does not read such ones.
    """
    generator = torch.Generator().manual_seed(config.seed)
    e, s = config.encoder, config.survey
    if kind not in reads(e.name):
        raise ConfigError(
            f"encoder={e.name} cannot read {kind}: type encoder={' or encoder='.join(readers(kind))}"
        )
    n_columns = inputs_of(config, kind)(torch.zeros(1, *shape[1:]), None).shape[1]
    encoder = build_encoder(e.name, n_columns, s.pixels, e, generator)
    n_outputs = membership(config).shape[1]
    head = Head(encoder.n_features, n_outputs, s.n_bins, generator=generator)
    if kind == "images":
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return PhotozNet(encoder, head)


def load(config: Config, kind: str, shape: tuple[int, ...]) -> PhotozNet:
    """Load the trained representation of these settings, frozen."""
    path = config.folder("representation") / "model.ckpt"
    net = build(config, kind, shape)
    load_weights(net, load_checkpoint(path)["state_dict"], path)
    return net.set_trainable("redshift_outputs").eval()


def inputs_of(config: Config, kind: str) -> Inputs:
    """Return what turns a store's inputs into the network's."""
    e = config.encoder
    return encoder_class(e.name).inputs(e, kind, bool(getattr(config.data, "magnitude_errors", [])))


def membership(config: Config) -> Bools:
    """Which output covers which r slice, (S, R); a single output covers them all."""
    slices = config.survey.slices()
    return np.ones((slices.n_slices, 1), dtype=np.bool_) if config.head == "single" else slices.membership


def new_outputs(config: Config, head: AnyHead, n_outputs: int, member: int = 0) -> AnyHead:
    """Make the outputs of Step 3 before training: the paper's linear ones, or one behind a hidden layer."""
    generator = torch.Generator().manual_seed(config.seed + 1 + 1000 * member)
    step3 = config.correction.step3
    if step3 and step3.hidden:
        return HiddenHead(head.n_features, n_outputs, step3.hidden, generator)
    assert isinstance(head, Head)  # that of Step 1 or 2
    return head.with_new_bins(n_outputs, generator)
