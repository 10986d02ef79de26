"""Several networks that predict together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.backends.registry import get_backend
from nnbackend.errors import InvalidInputError, ModelFileError, shown
from nnbackend.layers import Flatten, Layer
from nnbackend.losses import Loss
from nnbackend.metrics.labels import classes_of
from nnbackend.network import Network
from nnbackend.saving.model_file import read_model, write_model
from nnbackend.support.arguments import suggests_names
from nnbackend.support.files import path_text

__all__ = ["Ensemble"]

#: Key of the descriptions of all networks in a file, and prefix of the names of their weights.
_MEMBERS = "members"

#: Most networks in a file: each takes memory beyond that of its weights.
_MOST_MEMBERS = 10_000


class Ensemble:
    """Several networks that predict together: their predictions are averaged.

    Trained from different seeds or on different rows, networks err in different ways, so that the mean is better than
    most of them, and the spread says where they are unsure [1]_.

    Parameters
    ----------
    networks : sequence of Network
        They take the same samples and have the same outputs; layers, dtypes and backends may differ. They are not
        copied.

    Attributes
    ----------
    networks : tuple of Network

    Raises
    ------
    InvalidInputError
        There are none, or their samples or outputs have different shapes.

    References
    ----------
    .. [1] B. Lakshminarayanan, A. Pritzel and C. Blundell, "Simple and Scalable Predictive Uncertainty Estimation using
       Deep Ensembles", NeurIPS 2017, https://arxiv.org/abs/1612.01474
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        if isinstance(networks, Network) or not isinstance(networks, Iterable):
            raise InvalidInputError(f"an ensemble takes a list of networks, received {shown(networks)}")
        self.networks = tuple(networks)
        if not self.networks:
            raise InvalidInputError("an ensemble needs at least one network, received none")
        for place, network in enumerate(self.networks):
            if not isinstance(network, Network):
                raise InvalidInputError(f"networks[{place}] is not a Network, received {shown(network)}")
            first = self.networks[0]
            for what, shape, expected in (
                ("samples", network.input_shape, first.input_shape),
                ("outputs", network.output_shape, first.output_shape),
            ):
                if shape != expected:
                    raise InvalidInputError(
                        f"the networks of an ensemble must have {what} of the same shape, but networks[0] has "
                        f"{expected}, and networks[{place}] {shape}"
                    )

    def __len__(self) -> int:
        return len(self.networks)

    def __iter__(self) -> Iterator[Network]:
        return iter(self.networks)

    def __getitem__(self, place: int) -> Network:
        return self.networks[place]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a sample."""
        return self.networks[0].input_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the outputs of a sample."""
        return self.networks[0].output_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of predictions: the most precise one of the networks."""
        return np.result_type(*(network.dtype for network in self.networks))

    @property
    def loss(self) -> Loss | None:
        """The loss of all networks, which determines what predictions are; None before the first training.

        Raises
        ------
        InvalidInputError
            The networks were trained with different losses, or only some of them to predict several labels.
        """
        return self._agreed_loss()

    def _agreed_loss(self) -> Loss | None:
        first = self.networks[0]
        for place, network in enumerate(self.networks):
            if (network.loss, network.multilabel) != (first.loss, first.multilabel):
                raise InvalidInputError(
                    f"the predictions of networks[0] and networks[{place}] mean different things: one has "
                    f"{_meaning(first)}, the other {_meaning(network)}; train all with the same loss, on targets of "
                    "the same form"
                )
        return first.loss

    def predict(self, x: Any, batch_size: int | None = None) -> HostArray:
        """The mean of the networks' predictions.

        Parameters
        ----------
        x : (n, *input_shape) array_like
        batch_size : int, optional
            Rows at a time. As for :meth:`nnbackend.Network.predict`.

        Returns
        -------
        (n, *output_shape) array
            Probabilities for networks trained with softmax or sigmoid cross-entropy, otherwise outputs.

        Raises
        ------
        InvalidInputError
            The rows do not fit the networks, or their predictions mean different things.
        """
        return self._mean(x, batch_size).astype(self.dtype)

    def _mean(self, x: Any, batch_size: int | None) -> HostArray:
        """The mean in float64."""
        self._agreed_loss()
        total: HostArray = self.networks[0].predict(x, batch_size).astype(np.float64)
        for network in self.networks[1:]:
            total += network.predict(x, batch_size)
        total /= len(self)
        return total

    def predict_all(self, x: Any, batch_size: int | None = None) -> HostArray:
        """The predictions of each network.

        Parameters
        ----------
        x, batch_size
            As for `predict`.

        Returns
        -------
        (members, n, *output_shape) array
        """
        self._agreed_loss()
        return np.stack([network.predict(x, batch_size) for network in self.networks]).astype(self.dtype, copy=False)

    def predict_std(self, x: Any, batch_size: int | None = None) -> HostArray:
        """The standard deviation of the networks' predictions: how much they disagree.

        Parameters
        ----------
        x, batch_size
            As for `predict`.

        Returns
        -------
        (n, *output_shape) array
            In the unit of the predictions; of the networks themselves, not an estimate for more networks (the sum of
            squares is divided by the number of networks).
        """
        spread: HostArray = self.predict_all(x, batch_size).std(axis=0, dtype=np.float64)
        return spread.astype(self.dtype)

    def predict_classes(self, x: Any, batch_size: int | None = None) -> HostArray:
        """The classes of every row, from the mean of the probabilities.

        Parameters
        ----------
        x, batch_size
            As for `predict`.

        Returns
        -------
        (n,) or (n, outputs) int64
            As of :meth:`nnbackend.Network.predict_classes`.

        Raises
        ------
        InvalidInputError
            The networks were trained on numbers, not on classes.
        """
        self.networks[0].check_predicts_classes()
        return classes_of(self.predict(x, batch_size), self.networks[0].predicts_several)

    @suggests_names
    def evaluate(
        self,
        x: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        batch_size: int | None = None,
        metrics: Sequence[Any] = (),
    ) -> dict[str, float]:
        """Loss and metrics of the mean predictions.

        Parameters
        ----------
        x, batch_size
            As for `predict`.
        y : (n,) labels or (n, outputs) values
        sample_weight : (n,) array_like, optional
        metrics : sequence of str, callable or Metric
            As for :meth:`nnbackend.Network.evaluate`.

        Returns
        -------
        dict
            As of :meth:`nnbackend.Network.evaluate`, but "loss" contains no penalties.

        Raises
        ------
        InvalidInputError
            The data do not fit the networks, or these were not trained yet.
        """
        loss = self.loss
        if loss is None:
            raise InvalidInputError("the networks were not trained yet, so their loss is unknown; set_loss sets it")
        means = self._mean(x, batch_size)
        # A network whose outputs are its inputs: it checks the targets, and applies the loss to them.
        judge = Network([Flatten()], means.shape[1:], backend="numpy", dtype="float64", input_scale=1.0)
        judge.multilabel = self.networks[0].multilabel
        return judge.evaluate(
            _outputs(means, loss), y, loss=loss, sample_weight=sample_weight, batch_size=batch_size, metrics=metrics
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all networks to one safetensors file, completely or not at all.

        Raises
        ------
        InvalidInputError
            `path` is not a path, or there are more than 10,000 networks.
        ModelFileError
            A weight is NaN or infinite; nothing was written.
        OSError
            The file cannot be written; an existing file is unchanged.
        """
        if len(self) > _MOST_MEMBERS:
            raise InvalidInputError(f"a file may have at most {_MOST_MEMBERS:,} networks, not {len(self):,}")
        write_model(path_text("path", path), self.config(), self.get_weights())

    def config(self) -> dict[str, Any]:
        """Descriptions of all networks, as plain JSON: ``{"members": [...]}``."""
        return {_MEMBERS: [network.config() for network in self.networks]}

    def get_weights(self) -> dict[str, HostArray]:
        """Copies of the weights of all networks, by names such as "members.0.dense_1.W"."""
        return {
            f"{_MEMBERS}.{place}.{name}": array
            for place, network in enumerate(self.networks)
            for name, array in network.get_weights().items()
        }

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], backend: str | Backend = "auto", custom_layers: Sequence[type[Layer]] = ()
    ) -> Self:
        """Read an ensemble written by `save`.

        Parameters
        ----------
        path, backend, custom_layers
            As for :meth:`nnbackend.Network.load`.

        Raises
        ------
        InvalidInputError
            `path` is not a path.
        ModelFileError
            The file is missing or damaged, or holds no ensemble. No code from the file is run, and memory is limited to
            a few times the file's size.
        BackendUnavailableError
            The backend cannot run here.
        """
        path = path_text("path", path)
        chosen = get_backend(backend)
        return cls.from_file(path, *read_model(path), chosen, custom_layers)

    @classmethod
    def from_file(
        cls,
        name: str,
        config: Mapping[str, Any],
        weights: dict[str, HostArray],
        backend: Backend,
        custom_layers: Sequence[type[Layer]] = (),
    ) -> Self:
        """Create an ensemble from what a file holds; raises ModelFileError with the file's name."""
        members = config.get(_MEMBERS)
        if members is None and "layers" in config:
            raise ModelFileError(f"{name}: one network, not an ensemble; read it with nnbackend.Network.load")
        if "tabular" in config:
            raise ModelFileError(
                f"{name}: an estimator for tables; read it with nnbackend.TabularClassifier.load or "
                "nnbackend.TabularRegressor.load"
            )
        if not isinstance(members, list) or not 0 < len(members) <= _MOST_MEMBERS or len(config) > 1:
            raise ModelFileError(f"{name}: its description of the ensemble is damaged")
        parts: list[dict[str, HostArray]] = [{} for _ in members]
        for parameter, array in weights.items():
            prefix, _, rest = parameter.partition(".")
            place, _, own = rest.partition(".")
            if prefix != _MEMBERS or not place.isdecimal() or not place.isascii() or len(place) > 9:
                raise ModelFileError(f"{name}: {shown(parameter)} belongs to no network of the ensemble")
            if int(place) >= len(parts) or own in parts[int(place)]:
                raise ModelFileError(f"{name}: {shown(parameter)} belongs to no network of the ensemble")
            parts[int(place)][own] = array
        networks = [
            Network.from_file(f"{name}: {_MEMBERS}.{place}", each, own, backend, custom_layers)
            for place, (each, own) in enumerate(zip(members, parts, strict=True))
        ]
        try:
            return cls(networks)
        except InvalidInputError as error:
            raise ModelFileError(f"{name}: its networks are no ensemble: {error}") from error

    def to_onnx(self, path: str | os.PathLike[str], input_dtype: Any = None) -> None:
        """Write an ONNX file with one graph that computes the mean; see :func:`nnbackend.interop.onnx.export`.

        Parameters
        ----------
        path, input_dtype
            As for that function.

        Raises
        ------
        InvalidInputError
            Also if the networks have different dtypes.
        """
        from nnbackend.interop.onnx import export

        self._agreed_loss()
        export(self.networks, path, input_dtype)

    def __repr__(self) -> str:
        return f"<Ensemble of {len(self)} networks {self.input_shape} -> {self.output_shape}>"


def _meaning(network: Network) -> str:
    loss = "no loss" if network.loss is None else network.loss.text
    return f"{loss} and several labels for a row" if network.predicts_several else loss


def _outputs(means: HostArray, loss: Loss) -> HostArray:
    """Outputs that the activation of the loss turns into these predictions."""
    if loss.targets == "exclusive":
        return np.log(np.maximum(means, np.finfo(np.float64).tiny))
    if loss.targets == "independent":
        means = np.clip(means, np.finfo(np.float64).tiny, 1 - np.finfo(np.float64).epsneg)
        outputs: HostArray = np.log(means) - np.log1p(-means)
        return outputs
    if loss.output_activation == "exponential":
        return np.log(np.maximum(means, np.finfo(np.float64).tiny))
    return means
