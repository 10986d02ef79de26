"""onnxruntime: a session of the exported network. It only predicts."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnxruntime
from numpy.typing import NDArray

from benchmarks.peers.contenders.base import Contender, Predictor, Training
from benchmarks.peers.contenders.ours import make_network
from benchmarks.peers.data import Weights, scaled
from benchmarks.peers.works import Work
from nnbackend.backends.numpy import NumpyBackend

__all__ = ["Session"]


class Session(Contender):
    """Threads that wait do not spin, because they would slow down the others."""

    def predictor(self, work: Work, weights: Weights) -> Predictor:
        network = make_network(work, weights, NumpyBackend(1), input_scale=1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            network.to_onnx(path)
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        x = scaled(self.x).reshape(-1, *work.input_shape)

        def predict(rows: int) -> NDArray:
            return session.run(None, {name: x[:rows]})[0]

        return predict

    def build(self, work: Work, weights: Weights) -> Training:
        raise NotImplementedError("onnxruntime only predicts")
