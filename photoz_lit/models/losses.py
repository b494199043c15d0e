"""The losses of Steps 1 to 3 (Lin et al. 2022, section 3), as pure functions of logits.

Every output of every galaxy has a target: its label where the galaxy belongs to the output, the uniform 1/K
where not. With l = log softmax(logits), the cross-entropy with a target t is -sum_k t_k l_k: -mean(l) for the
uniform target, -l_k for a one-hot label, so that no one-hot target is ever built. The losses are sums over
outputs and means over galaxies, in float32 under autocast as well. The Baseline is R = 1 with every galaxy a
member and no gate.
"""

import torch
from torch import Tensor


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


def hard_label_cross_entropy(z_logits: Tensor, z_bin: Tensor, member: Tensor) -> Tensor:
    """Cross-entropy of the redshift outputs with one-hot labels, sum over outputs, mean over galaxies.

    Parameters
    ----------
    z_logits : Tensor
        Shape (n, R, K).
    z_bin : Tensor
        Bin of the label, shape (n,), int64, 0 .. K-1.
    member : Tensor
        Outputs that get the label, shape (n, R), bool; the others get the uniform target.

    Returns
    -------
    Tensor
        Scalar, float32.
    """
    log_pdf = torch.log_softmax(z_logits, dim=2, dtype=torch.float32)
    at_label = log_pdf.gather(2, z_bin[:, None, None].expand(-1, log_pdf.shape[1], 1))[..., 0]
    return -torch.where(member, at_label, log_pdf.mean(dim=2)).sum(dim=1).mean()


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


def hard_label_loss(z_logits: Tensor, gate_logits: Tensor | None, z_bin: Tensor, member: Tensor) -> Tensor:
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

    Returns
    -------
    Tensor
        Scalar, float32.
    """
    loss = hard_label_cross_entropy(z_logits, z_bin, member)
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
