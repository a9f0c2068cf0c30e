"""What each example does to a convex surrogate: its influence on a held-out loss, and its effort.

Koh and Liang 2017, "Understanding Black-box Predictions via Influence Functions" (arXiv:1703.04730);
Paul, Ganguli and Dziugaite 2021, "Deep Learning on a Data Diet" (arXiv:2107.07075).

Legend: N examples, F features, C classes. The surrogate is a softmax regression W [F, C] that minimises
mean cross-entropy + λ/2·‖W‖²; its Hessian is positive definite, so that the inverse exists.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.optional import need
from tanzim.data.balance.surrogate import EXTRA

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
_STEPS = 300  # of the solver


def softmax(logits_NC: Array) -> Array:
    """Return probabilities, [N, C]."""
    powers = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def shares(x_NF: Any, weights_FC: Array) -> Array:  # noqa: ANN401 - a SciPy or numpy matrix
    """Return the probability of each class, [N, C]."""
    return softmax(np.asarray(x_NF @ weights_FC, np.float64))


def errors(x_NF: Any, labels_N: Codes, weights_FC: Array) -> Array:  # noqa: ANN401 - a matrix
    """Return probabilities minus the one-hot labels: the gradient of each loss by the logits, [N, C]."""
    off_NC = shares(x_NF, weights_FC)
    off_NC[np.arange(len(labels_N)), labels_N] -= 1
    return off_NC


def mean_loss(x_NF: Any, labels_N: Codes, weights_FC: Array) -> float:  # noqa: ANN401 - a matrix
    """Return the mean cross-entropy (nats)."""
    logits_NC = np.asarray(x_NF @ weights_FC, np.float64)
    top = logits_NC.max(1)
    total = np.log(np.exp(logits_NC - top[:, None]).sum(1)) + top
    return float((total - logits_NC[np.arange(len(labels_N)), labels_N]).mean())


def fit(
    x_NF: Any,  # noqa: ANN401 - a SciPy or numpy matrix
    labels_N: Codes,
    classes: int,
    penalty: float,
    *,
    tolerance: float = 1e-5,
) -> Array:
    """Fit the surrogate, [F, C].

    Args:
        x_NF: features; a constant one among them stands for the bias.
        labels_N: their classes.
        classes: C.
        penalty: λ.
        tolerance: largest entry of the gradient at which the solver stops.

    """
    optimize = need("scipy.optimize", EXTRA)
    shape = (x_NF.shape[1], classes)

    def objective(flat: Array) -> tuple[float, Array]:
        weights_FC = flat.reshape(shape)
        off_NC = errors(x_NF, labels_N, weights_FC)
        loss = mean_loss(x_NF, labels_N, weights_FC) + penalty / 2 * float(flat @ flat)
        slope_FC = x_NF.T @ off_NC / len(labels_N) + penalty * weights_FC
        return loss, np.asarray(slope_FC).ravel()

    options = {"maxiter": _STEPS, "gtol": tolerance, "ftol": 1e-15}
    found = optimize.minimize(
        objective, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options
    )
    return np.asarray(found.x.reshape(shape))


def inverse_product(x_NF: Any, weights_FC: Array, slope_FC: Array, penalty: float) -> Array:  # noqa: ANN401
    """Return H⁻¹·slope for the Hessian H of the surrogate's objective, [F, C].

    By conjugate gradients: H is never written out, only H·V = Xᵀ·R/N + λ·V with the rows
    R_n = (diag(p_n) − p_n·p_nᵀ)·(X·V)_n.
    """
    linalg = need("scipy.sparse.linalg", EXTRA)
    shares_NC = shares(x_NF, weights_FC)

    def product(flat: Array) -> Array:
        v_FC = flat.reshape(slope_FC.shape)
        z_NC = np.asarray(x_NF @ v_FC)
        z_NC = shares_NC * (z_NC - (shares_NC * z_NC).sum(1, keepdims=True))
        return np.asarray(x_NF.T @ z_NC / len(shares_NC) + penalty * v_FC).ravel()

    size = slope_FC.size
    hessian = linalg.LinearOperator((size, size), matvec=product, dtype=np.float64)
    solved, _ = linalg.cg(hessian, slope_FC.ravel(), rtol=1e-5)
    return np.asarray(solved.reshape(slope_FC.shape))


def direction(
    x_NF: Any,  # noqa: ANN401 - a SciPy or numpy matrix
    weights_FC: Array,
    penalty: float,
    held_MF: Any,  # noqa: ANN401 - a SciPy or numpy matrix
    held_labels_M: Codes,
) -> Array:
    """Return H⁻¹·g for the gradient g of the mean held-out loss: what `influence` is taken along, [F, C]."""
    off_MC = errors(held_MF, held_labels_M, weights_FC)
    slope_FC = np.asarray(held_MF.T @ off_MC / len(held_labels_M))
    return inverse_product(x_NF, weights_FC, slope_FC, penalty)


def influence(x_NF: Any, labels_N: Codes, weights_FC: Array, direction_FC: Array) -> Array:  # noqa: ANN401
    """Return g_val·H⁻¹·g_n, [N]; divided by N: how much the held-out loss rises without example n."""
    along_NC = np.asarray(x_NF @ direction_FC)
    return np.asarray((errors(x_NF, labels_N, weights_FC) * along_NC).sum(1))


def effort(x_NF: Any, labels_N: Codes, weights_FC: Array) -> Array:  # noqa: ANN401 - a matrix
    """Return the norm of each example's loss gradient by the weights, ‖p − y‖·‖x‖, [N].

    Of texts of length 1 it is the EL2N score of the paper, and its GraNd score times a constant.
    """
    squares = x_NF.multiply(x_NF).sum(1) if hasattr(x_NF, "multiply") else (x_NF * x_NF).sum(1)
    off_NC = errors(x_NF, labels_N, weights_FC)
    return np.asarray(np.linalg.norm(off_NC, axis=1) * np.sqrt(np.asarray(squares).ravel()))
