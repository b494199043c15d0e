"""Heads: embedding to p(z), a mixture of redshift outputs under a gate (Lin et al. 2022, section 3)."""

from collections.abc import Callable, Sequence
from typing import Literal, Self, cast

import torch
from torch import Tensor, nn

from photoz_lit.correction.losses.functions import mixture as mixture
from photoz_lit.models.encoders.layers import Encoder

Trainable = Literal["all", "redshift_outputs"]
Mean = Literal["arithmetic", "harmonic"]
OUTPUT_BIAS = 0.1
FARTHEST = 10.0  # standard deviations: units that hardly ever fire would lead a hidden layer astray


class Head(nn.Module):
    """R redshift outputs of K logits each and, where there are several, a gate over them.

    In training mode the layers follow autocast. In evaluation they run in the precision of their weights: in
    bfloat16 neighbouring logits tie, and the mode of p(z) would fall on the first of the tied bins.
    """

    def __init__(
        self, n_features: int, n_redshift_outputs: int, n_bins: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.n_features = n_features
        self.n_redshift_outputs = n_redshift_outputs
        self.n_bins = n_bins
        self.redshift = nn.Linear(n_features, n_redshift_outputs * n_bins)
        self.gate = nn.Linear(n_features, n_redshift_outputs) if n_redshift_outputs > 1 else None
        with torch.no_grad():
            # Each output is a layer of its own, so the Xavier bound is that of its (d, K) block.
            for block in self.redshift.weight.view(n_redshift_outputs, n_bins, n_features):
                nn.init.xavier_uniform_(block, generator=generator)
            nn.init.constant_(self.redshift.bias, OUTPUT_BIAS)
            if self.gate is not None:
                nn.init.xavier_uniform_(self.gate.weight, generator=generator)
                nn.init.constant_(self.gate.bias, OUTPUT_BIAS)

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map embeddings (n, d) to logits of redshift outputs (n, R, K) and of the gate (n, R), if any."""
        if self.training:
            return self._logits(embedding)
        with torch.autocast(embedding.device.type, enabled=False):
            return self._logits(embedding.to(self.redshift.weight.dtype))

    def _logits(self, embedding: Tensor) -> tuple[Tensor, Tensor | None]:
        z_logits = self.redshift(embedding).unflatten(1, (self.n_redshift_outputs, self.n_bins))
        return z_logits, None if self.gate is None else self.gate(embedding)

    def with_new_bins(self, n_bins: int, generator: torch.Generator | None = None) -> "Head":
        """Return a head of new redshift outputs of `n_bins` bins with a frozen copy of the gate (Step 3)."""
        head = Head(self.n_features, self.n_redshift_outputs, n_bins, generator)
        head.to(self.redshift.weight)
        if head.gate is not None and self.gate is not None:
            head.gate.load_state_dict(self.gate.state_dict())
            head.gate.requires_grad_(False)
        return head


class HiddenHead(nn.Module):
    """One redshift output for all magnitudes behind a hidden layer, that starts from n(z).

    Embeddings are standardised first, and the last weights start at zero: before training p(z) is the n(z) of
    the training galaxies, whatever the galaxy.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, n_features: int, n_bins: int, n_hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.n_features, self.n_bins, self.n_redshift_outputs = n_features, n_bins, 1
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.hidden = nn.Linear(n_features, n_hidden)
        self.redshift = nn.Linear(n_hidden, n_bins)
        with torch.no_grad():
            nn.init.xavier_uniform_(self.hidden.weight, generator=generator)
            for parameter in (self.hidden.bias, self.redshift.weight, self.redshift.bias):
                nn.init.zeros_(parameter)

    def start_from(self, embeddings: Tensor, prior: Tensor) -> Self:
        """Take the scale of training embeddings (n, d) and their n(z), (n_bins,), positive."""
        with torch.no_grad():
            self.mean.copy_(embeddings.mean(dim=0))
            scale = embeddings.std(dim=0)
            # A unit that is dead in all training galaxies may fire in another one.
            self.scale.copy_(torch.where(scale > 1e-6 * (1 + self.mean.abs()), scale, 1.0))
            self.redshift.bias.copy_(prior.log())
        return self

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map embeddings (n, d) to logits (n, 1, n_bins); there is no gate."""
        if self.training:
            return self._logits(embedding), None
        with torch.autocast(embedding.device.type, enabled=False):
            return self._logits(embedding.to(self.redshift.weight.dtype)), None

    def _logits(self, embedding: Tensor) -> Tensor:
        standard = ((embedding - self.mean) / self.scale).clamp(-FARTHEST, FARTHEST)
        hidden = nn.functional.gelu(self.hidden(standard))
        logits: Tensor = self.redshift(hidden)
        return logits[:, None]


class StackedHeads(nn.Module):
    """Heads of one shape, trained in the products of one: a batch has as many galaxies of each.

    Weights are those of the heads, by head first. Galaxies of the first head come first, then the others'.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, heads: Sequence[Head] | Sequence[HiddenHead]) -> None:
        super().__init__()
        trained = dict(heads[0].named_parameters())
        for name in heads[0].state_dict():
            values, key = torch.stack([head.state_dict()[name] for head in heads]), name.replace(".", "_")
            if name in trained:
                self.register_parameter(key, nn.Parameter(values, trained[name].requires_grad))
            else:
                self.register_buffer(key, values)
        self.names, self.n = tuple(heads[0].state_dict()), len(heads)
        self.outputs = heads[0].n_redshift_outputs, heads[0].n_bins

    def state_of(self, i: int) -> dict[str, Tensor]:
        """Return the weights of one head, by their names there."""
        return {name: getattr(self, name.replace(".", "_"))[i].detach() for name in self.names}

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map embeddings (heads n, d) to logits (heads n, R, K) and of the gate (heads n, R), if any."""
        own = embedding.reshape(self.n, -1, embedding.shape[1])
        if self.training:
            return self._logits(own)
        with torch.autocast(embedding.device.type, enabled=False):
            return self._logits(own)

    def _logits(self, own: Tensor) -> tuple[Tensor, Tensor | None]:
        features, gate = own, None
        if "hidden.weight" in self.names:
            standard = (own - self.mean[:, None]) / self.scale[:, None]
            features = nn.functional.gelu(self._layer("hidden", standard.clamp(-FARTHEST, FARTHEST)))
        if "gate.weight" in self.names:
            gate = self._layer("gate", own).flatten(0, 1)
        return self._layer("redshift", features).reshape(-1, *self.outputs), gate

    def _layer(self, name: str, x: Tensor) -> Tensor:
        weight, bias = getattr(self, name + "_weight"), getattr(self, name + "_bias")
        return torch.baddbmm(bias[:, None], x, weight.mT)


class Ensemble(nn.Module):
    """Heads of the same bins on one embedding as one head: the mean of their p(z).

    The harmonic mean stresses what all members allow (Lin et al. 2024, A&A 691, A331).
    """

    def __init__(self, members: "Sequence[AnyHead]", mean: Mean = "arithmetic") -> None:
        super().__init__()
        self.members, self.mean = nn.ModuleList(members), mean
        first = cast(Head, members[0])
        self.n_features, self.n_bins = first.n_features, first.n_bins

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map embeddings (n, d) to log p(z), (n, 1, n_bins), as logits of a single output."""
        log_pdf = torch.stack([_log_mixture(*member(embedding)) for member in self.members])
        sign = 1.0 if self.mean == "arithmetic" else -1.0
        return (sign * torch.logsumexp(sign * log_pdf, dim=0))[:, None], None


def _log_mixture(z_logits: Tensor, gate_logits: Tensor | None) -> Tensor:
    """Logarithm of `mixture`, (n, K)."""
    log_pdf = torch.log_softmax(z_logits.float(), dim=-1)
    if gate_logits is None:
        return log_pdf[:, 0]
    weights = torch.log_softmax(gate_logits.float(), dim=-1)
    return torch.logsumexp(weights[:, :, None] + log_pdf, dim=1)


AnyHead = Head | HiddenHead | Ensemble


class PhotozNet(nn.Module):
    """An encoder and a head that fits it; in Steps 2 and 3 the redshift outputs alone are trainable."""

    def __init__(self, encoder: Encoder, head: AnyHead, trainable: Trainable = "all") -> None:
        super().__init__()
        if encoder.n_features != head.n_features:
            raise ValueError(
                f"the encoder gives {encoder.n_features} features and the head takes {head.n_features}: "
                "build the head with n_features=encoder.n_features"
            )
        self.encoder = encoder
        self.head = head
        self.compiled: Callable[[Tensor, Tensor], Tensor] | None = None  # the encoder, where that is faster
        self.set_trainable(trainable)

    def forward(self, image: Tensor, ebv: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map images (or catalogue columns) and E(B-V), mag, (n,) to the head's z_logits and gate_logits."""
        logits: tuple[Tensor, Tensor | None] = self.head((self.compiled or self.encoder)(image, ebv))
        return logits

    def set_trainable(self, trainable: Trainable) -> Self:
        """Choose what trains and return the network; the rest gets no gradient, in evaluation mode."""
        self.trainable = trainable
        for module in (self.encoder, *(m.gate for m in self.head.modules() if isinstance(m, Head))):
            if module is not None:
                module.requires_grad_(trainable == "all")
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for an encoder that is frozen."""
        super().train(mode)
        if self.trainable == "redshift_outputs":
            self.encoder.eval()
        return self
