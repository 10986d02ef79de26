"""The profile of a training step: its counts, and that it is measured and printed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import step_profile
from benchmarks.peers import works


@pytest.mark.slow
def test_lines_are_those_of_the_step_and_add_up():
    work = works.quick(works.NETS[0])
    profile = step_profile.measure(work, 1, 1)
    assert sum(map(step_profile.flops_of, profile.lines)) == work.flops
    gather = profile.lines[0]
    assert gather.call.operation == "gather"
    # A byte is read and a float32 written for each pixel.
    assert step_profile.bytes_of(gather) == 5 * 100 * 784
    update = next(line for line in profile.lines if line.call.operation == "dense_weight_gradient")
    inputs, outputs = update.call.out.shape
    read = 100 * (inputs + outputs) + 2 * inputs * outputs
    assert step_profile.bytes_of(update) == 4 * (read + 2 * inputs * outputs)
    assert profile.spent.shape == (1, len(profile.lines), 2)
    assert np.all(profile.spent[..., 1] > 0)
    printed = step_profile.text(profile)
    assert printed.startswith("### 784-40-10\n")
    assert printed.count("\n| ") == 2 + len(profile.lines)


def test_unknown_networks_are_refused(capsys):
    with pytest.raises(SystemExit):
        step_profile.main(["784-41-10"])
    assert "unknown networks: 784-41-10" in capsys.readouterr().err
