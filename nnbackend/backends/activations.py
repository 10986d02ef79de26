"""The activation functions of the contract, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ACTIVATIONS", "SELU_ALPHA", "SELU_SCALE", "ActivationKind"]

#: The constants of SELU (Klambauer et al. 2017, appendix), with which the activations of a deep network keep mean 0 and
#: variance 1.
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


@dataclass(eq=False, repr=False)
class ActivationKind:
    """How the contract defines one activation function.

    Attributes
    ----------
    formula : str
        The function of the pre-activation z; `a` is the parameter called ``alpha``.
    saves : {"output", "preactivation"}
        What its gradient is computed from; the forward pass must keep it.
    alpha : float
        Default of the parameter; 0 if the function has none.
    """

    formula: str
    saves: Literal["output", "preactivation"]
    alpha: float = 0.0


#: Every activation function, by name. GELU is the tanh form of Hendrycks and Gimpel (2016, section 2), which
#: needs no error function and is what GPT-2 used; SiLU is from the same paper, ELU from Clevert et al. (2016), SELU
#: from Klambauer et al. (2017) with its constants l = 1.0507 and b = 1.6733 above, and Mish from Misra (2019).
ACTIVATIONS: dict[str, ActivationKind] = {
    "identity": ActivationKind("z", "output"),
    "relu": ActivationKind("max(z, 0)", "output"),
    "leaky_relu": ActivationKind("z if z > 0 else a z", "output", alpha=0.01),
    "elu": ActivationKind("z if z > 0 else a (exp(z) - 1)", "output", alpha=1.0),
    "selu": ActivationKind("l z if z > 0 else l b (exp(z) - 1)", "output"),
    "sigmoid": ActivationKind("1 / (1 + exp(-z))", "output"),
    "tanh": ActivationKind("tanh(z)", "output"),
    "gelu": ActivationKind("z/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3)))", "preactivation"),
    "silu": ActivationKind("z / (1 + exp(-z))", "preactivation"),
    "mish": ActivationKind("z tanh(log(1 + exp(z)))", "preactivation"),
    "softplus": ActivationKind("log(1 + exp(z))", "output"),
    "exponential": ActivationKind("exp(z)", "output"),
    "softmax": ActivationKind("exp(z) / sum of exp(z) over the row", "output"),
}
