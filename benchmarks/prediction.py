"""Prediction and evaluation, from images on the host to results on the host."""

from __future__ import annotations

from benchmarks import common
from benchmarks.common import NetSuite, images, make_network
from nnbackend.backends.contract import Backend


class Prediction(NetSuite):
    """10,000 images, and a single image, which measures the overhead."""

    def build(self, device: Backend, net: str) -> None:
        self.network = make_network(device, net)
        self.x, self.y = images(common.TEST_ROWS)
        self.one = self.x[:1]
        self.time_predict(device.name, net)
        self.time_predict_one(device.name, net)
        self.time_evaluate(device.name, net)

    # All of these return host values and therefore wait for the device.

    def time_predict(self, backend: str, net: str) -> None:
        self.network.predict(self.x)

    def time_predict_one(self, backend: str, net: str) -> None:
        self.network.predict(self.one)

    def time_evaluate(self, backend: str, net: str) -> None:
        self.network.evaluate(self.x, self.y)

    time_predict.pretty_name = "predict, 10,000 rows"
    time_predict_one.pretty_name = "predict, one row"
    time_evaluate.pretty_name = "evaluate, 10,000 rows"
