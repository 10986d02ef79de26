"""Run exported ONNX files with ONNX Runtime."""

from __future__ import annotations

import os

import numpy as np

from nnbackend.interop.onnx import export

__all__ = ["check", "run"]


def run(path, x):
    """The outputs of ONNX Runtime for these rows."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    [given], [made] = session.get_inputs(), session.get_outputs()
    assert (given.name, made.name) == ("input", "output")
    assert given.shape == ["batch", *x.shape[1:]]
    [outputs] = session.run(None, {"input": x})
    assert made.shape == ["batch", *outputs.shape[1:]]
    return outputs


def check(net, x, path, input_dtype=None):
    """Export, run, and compare with `predict` for the same array and for one row alone."""
    import onnx

    export(net, path, input_dtype)
    onnx.checker.check_model(os.fspath(path), full_check=True)
    expected, received = net.predict(x), run(path, x)
    assert (received.dtype, received.shape) == (net.dtype, expected.shape)
    tolerance = 1e-5 if net.dtype == np.float32 else 1e-13
    np.testing.assert_allclose(received, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(run(path, x[2:3]), expected[2:3], rtol=tolerance, atol=tolerance)
