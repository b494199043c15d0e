"""The losses of Steps 1 to 3 (Lin et al. 2022, section 3), as pure functions of logits.

Every output of every galaxy has a target: its label where the galaxy belongs to the output, the uniform 1/K
where not. With l = log softmax(logits), the cross-entropy with a target t is -sum_k t_k l_k: -mean(l) for the
uniform target, -l_k for a one-hot label, so that no one-hot target is ever built. The losses are sums over
outputs and means over galaxies, in float32 under autocast as well. The Baseline is R = 1 with every galaxy a
member and no gate.

Below them are the losses of known alternatives: adjusted logits, labels of single galaxies, CRPS, and a
penalty on the trend of the residuals; any galaxy may have a weight.
"""

import torch
from torch import Tensor

from photoz_lit.models.heads import mixture


def gate_cross_entropy(gate_logits: Tensor, member: Tensor) -> Tensor:
    """Cross-entropy of the gate with the normalised membership, mean over galaxies.

    Parameters
    ----------
    gate_logits : Tensor
        Shape (n, R).
    member : Tensor
        Which outputs a galaxy belongs to, shape (n, R), bool; at least one each.

    Returns
    -------
    Tensor
        Scalar, float32.
    """
    log_gate = torch.log_softmax(gate_logits, dim=1, dtype=torch.float32)
    target = member.float() / member.sum(dim=1, keepdim=True)
    return -(target * log_gate).sum(dim=1).mean()


def hard_label_cross_entropy(
    z_logits: Tensor, z_bin: Tensor, member: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the redshift outputs with one-hot labels, sum over outputs, mean over galaxies.

    Parameters
    ----------
    z_logits : Tensor
        Shape (n, R, K).
    z_bin : Tensor
        Bin of the label, shape (n,), int64, 0 .. K-1.
    member : Tensor
        Outputs that get the label, shape (n, R), bool; the others get the uniform target.
    weight : Tensor, optional
        Weight of each galaxy, shape (n,), of mean 1 over the training galaxies (`correction.weights`).

    Returns
    -------
    Tensor
        Scalar, float32.
    """
    log_pdf = torch.log_softmax(z_logits, dim=2, dtype=torch.float32)
    at_label = log_pdf.gather(2, z_bin[:, None, None].expand(-1, log_pdf.shape[1], 1))[..., 0]
    rows = torch.where(member, at_label, log_pdf.mean(dim=2)).sum(dim=1)
    return -(rows if weight is None else weight.float() * rows).mean()


def soft_label_cross_entropy(z_logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the redshift outputs with soft labels, sum over outputs, mean over galaxies.

    Parameters
    ----------
    z_logits : Tensor
        Shape (n, R, K).
    target : Tensor
        Labels of all outputs, the uniform ones included, shape (n, R, K); each sums to 1 over the bins.

    Returns
    -------
    Tensor
        Scalar, float32.
    """
    log_pdf = torch.log_softmax(z_logits, dim=2, dtype=torch.float32)
    return -(target.float() * log_pdf).sum(dim=(1, 2)).mean()


def hard_label_loss(
    z_logits: Tensor,
    gate_logits: Tensor | None,
    z_bin: Tensor,
    member: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    """Loss of the Baseline and of Steps 1 and 2: one-hot labels and the gate's membership.

    Parameters
    ----------
    z_logits : Tensor
        Shape (n, R, K).
    gate_logits : Tensor or None
        Shape (n, R); None leaves the gate's term out.
    z_bin : Tensor
        Bin of the label, shape (n,), int64.
    member : Tensor
        Which outputs a galaxy belongs to, shape (n, R), bool.
    weight : Tensor, optional
        Weight of each galaxy in the redshift outputs, shape (n,); the gate's term has none.

    Returns
    -------
    Tensor
        Scalar, float32.
    """
    loss = hard_label_cross_entropy(z_logits, z_bin, member, weight)
    return loss if gate_logits is None else loss + gate_cross_entropy(gate_logits, member)


def soft_label_loss(z_logits: Tensor, gate_logits: Tensor | None, target: Tensor, member: Tensor) -> Tensor:
    """Loss of Step 3: soft (and shifted) labels and the gate's membership.

    Parameters
    ----------
    z_logits : Tensor
        Shape (n, R, K), K with the extension.
    gate_logits : Tensor or None
        Shape (n, R); None leaves the gate's term out.
    target : Tensor
        Labels of all outputs, the uniform ones included, shape (n, R, K).
    member : Tensor
        Which outputs a galaxy belongs to, shape (n, R), bool.

    Returns
    -------
    Tensor
        Scalar, float32.
    """
    loss = soft_label_cross_entropy(z_logits, target)
    return loss if gate_logits is None else loss + gate_cross_entropy(gate_logits, member)


def logit_adjusted_loss(
    z_logits: Tensor,
    gate_logits: Tensor | None,
    z_bin: Tensor,
    member: Tensor,
    log_prior: Tensor,
    power: float = 1.0,
) -> Tensor:
    """One-hot loss of logits with the training prior added: the bare logits are then those of a flat prior.

    Cross-entropy of f + tau log(prior) (Menon et al. 2021, ICLR, arXiv:2007.07314); tau = 1 is
    balanced softmax, f + log(count) (Ren et al. 2020, NeurIPS, arXiv:2007.10740). Each output has
    the prior of its own members. The uniform target of the others has no prior and keeps the bare logits.

    Parameters
    ----------
    z_logits : Tensor
        Shape (n, R, K).
    gate_logits : Tensor or None
        Shape (n, R); None leaves the gate's term out.
    z_bin : Tensor
        Bin of the label, shape (n,), int64.
    member : Tensor
        Which outputs a galaxy belongs to, shape (n, R), bool.
    log_prior : Tensor
        Logarithm of each output's n(z) of the training galaxies, shape (R, K), finite
        (`correction.posthoc.smoothed_prior`).
    power : float
        tau.

    Returns
    -------
    Tensor
        Scalar, float32.
    """
    adjusted = z_logits.float() + power * log_prior.float() * member[:, :, None]
    return hard_label_loss(adjusted, gate_logits, z_bin, member)


def galaxy_label_loss(
    z_logits: Tensor,
    gate_logits: Tensor | None,
    label: Tensor,
    member: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    """Soft-label loss of one label a galaxy in all its outputs, ordinal or of nearest neighbours (CLAP).

    Parameters
    ----------
    z_logits : Tensor
        Shape (n, R, K).
    gate_logits : Tensor or None
        Shape (n, R); None leaves the gate's term out.
    label : Tensor
        Label of each galaxy, shape (n, K); rows sum to 1.
    member : Tensor
        Outputs that get the label, shape (n, R), bool; the others get the uniform target.
    weight : Tensor, optional
        Weight of each galaxy in the redshift outputs, shape (n,); the gate's term has none.

    Returns
    -------
    Tensor
        Scalar, float32.
    """
    log_pdf = torch.log_softmax(z_logits, dim=2, dtype=torch.float32)
    at_label = (label.float()[:, None] * log_pdf).sum(dim=2)
    rows = torch.where(member, at_label, log_pdf.mean(dim=2)).sum(dim=1)
    loss = -(rows if weight is None else weight.float() * rows).mean()
    return loss if gate_logits is None else loss + gate_cross_entropy(gate_logits, member)


def crps_loss(
    z_logits: Tensor,
    gate_logits: Tensor | None,
    z_bin: Tensor,
    member: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    """CRPS of the mixture's p(z), mean over galaxies, in bins, and the gate's membership.

    sum_k (F_k - 1[k >= z_bin])^2 with F_k the probability up to and with bin k (D'Isanto & Polsterer 2018,
    A&A 609, A111, arXiv:1706.02467): times the bin width, `metrics.crps` of steps. Least
    where F is the distribution of the label, as a cross-entropy, but a miss costs more the farther it is.

    Parameters
    ----------
    z_logits : Tensor
        Shape (n, R, K).
    gate_logits : Tensor or None
        Shape (n, R); None with a single output.
    z_bin : Tensor
        Bin of the label, shape (n,), int64.
    member : Tensor
        Which outputs a galaxy belongs to, shape (n, R), bool.
    weight : Tensor, optional
        Weight of each galaxy in the CRPS, shape (n,).

    Returns
    -------
    Tensor
        Scalar, float32.
    """
    cdf = mixture(z_logits, gate_logits).cumsum(dim=1)
    reached = torch.arange(cdf.shape[1], device=cdf.device) >= z_bin[:, None]
    rows = ((cdf - reached.float()) ** 2).sum(dim=1)
    loss = (rows if weight is None else weight.float() * rows).mean()
    return loss if gate_logits is None else loss + gate_cross_entropy(gate_logits, member)


def trend_penalty(z_logits: Tensor, gate_logits: Tensor | None, spec_z: Tensor, centres: Tensor) -> Tensor:
    """Squared slope of the batch's residuals, mean of p(z) minus spec_z, along spec_z.

    The slope is cov(residual, spec_z) / var(spec_z), -1 for an estimate that ignores the galaxy and 0 for one
    without trend. Lee & Chen (arXiv:2405.15950) describe the same linear pull towards the mean and forbid it
    by constraints on the training residuals; this is their aim as a term to add, times a strength, to a loss.
    Noise adds its variance, sigma^2 / (n var(spec_z)), to the squared slope: batches should be large.

    Parameters
    ----------
    z_logits : Tensor
        Shape (n, R, K).
    gate_logits : Tensor or None
        Shape (n, R); None with a single output.
    spec_z : Tensor
        Redshifts, shape (n,); the centres of their bins will do.
    centres : Tensor
        Bin centres, extension included, shape (K,).

    Returns
    -------
    Tensor
        Scalar, float32; zero where all galaxies have one redshift.
    """
    z = spec_z.float()
    residual = (mixture(z_logits, gate_logits) * centres.float()).sum(dim=1) - z
    offset = z - z.mean()
    variance = (offset**2).mean()
    slope = (offset * residual).mean() / torch.where(variance > 0, variance, 1.0)
    return slope**2
