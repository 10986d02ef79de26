"""One cycle of the learning rate and the momentum, on every backend and compared with PyTorch.

Other schedules are tested with the training loop, in `tests/training/test_training.py`.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.numba import NumbaBackend
from nnbackend.errors import InvalidAttributeError, InvalidInputError, UnknownNameError
from nnbackend.schedules import checked_momenta
from tests.distributed.ranks import run_ranks, worked
from tests.helpers import classifier, images, rich_network, same_weights

LOSS = "softmax_cross_entropy"
X, Y = images(rows=70)

#: 4 batches of 10 rows, trained for 5 epochs: 20 steps.
ROWS = np.random.default_rng(5).standard_normal((40, 4))
LABELS = np.array(
    [
        2,
        0,
        1,
        1,
        1,
        1,
        2,
        1,
        1,
        2,
        2,
        1,
        2,
        1,
        1,
        1,
        1,
        1,
        2,
        0,
        1,
        1,
        1,
        2,
        2,
        0,
        0,
        2,
        1,
        2,
        2,
        2,
        0,
        0,
        2,
        1,
        1,
        0,
        0,
        0,
    ]
)

#: Optimisers and the weight and bias after 20 steps with PyTorch 2.14 in float64: `OneCycleLR` around Adam(betas=(0.9,
#: 0.99)), AdamW(betas=(0.9, 0.99), weight_decay=0.1) and SGD(momentum=0.9, nesterov=True).
OPTIMIZERS = {
    "adam": lambda: nn.Adam(nn.OneCycle(0.05, 5), beta1=0.9, beta2=0.99),
    "adamw": lambda: nn.AdamW(
        nn.OneCycle(0.05, 5, anneal="linear", base_momentum=0.5, max_momentum=0.9), beta2=0.99, weight_decay=0.1
    ),
    "nesterov": lambda: nn.SGD(
        nn.OneCycle(0.5, 5, warmup=0.4, div_factor=10, final_div_factor=100), momentum=0.9, nesterov=True
    ),
}
PYTORCH = {
    "adam": (
        [
            [-0.9699981671745835, -0.8374500849570907, -0.6608944953736343],
            [-0.15568887992336639, -0.22014355041067687, -0.37647504238266494],
            [0.43619995195674616, 0.3145595052489241, 0.09668965932030249],
            [0.7638290067785565, 0.7865853726171326, 0.9018823273614944],
        ],
        [-0.2159738340463439, 0.22372625059421328, 0.034767617197654095],
    ),
    "adamw": (
        [
            [-0.9495363409475736, -0.7888326302022004, -0.6101558823793501],
            [-0.15585494324544602, -0.21698627844977036, -0.3448666337460187],
            [0.4114013517303346, 0.299769200554214, 0.0924501382846291],
            [0.7096123445797757, 0.762067291474353, 0.8590454382453743],
        ],
        [-0.19697952342557637, 0.2051208004516517, 0.01655535213115907],
    ),
    "nesterov": (
        [
            [-1.3854918921106896, -0.7493665993142278, -0.3196869631205368],
            [0.338258736407133, -0.17378472984761278, -0.9826558247413385],
            [1.294193473755029, 0.12003994705393391, -0.5960516026271436],
            [0.671504634518385, 0.9364949104569572, 0.8465459095701123],
        ],
        [-0.6912380258292662, 0.7437652681877366, -0.05252724235847033],
    ),
}

#: Steps of PyTorch's cycle for the optimiser "nesterov" with the rate and momentum there.
PLACES = {
    0: (0.05, 0.95),
    1: (0.07228200472195573, 0.945048443395121),
    7: (0.5, 0.85),
    8: (0.4914899751156948, 0.8517037086855466),
    13: (0.25025, 0.9),
    19: (0.0005, 0.95),
}


def trained(backend, optimizer, epochs=2, dtype="float32", **options):
    net = rich_network(backend, dtype)
    options = {"batch_size": 16, "loss": LOSS, "verbose": False, **options}
    return net, net.fit(X, Y, epochs=epochs, optimizer=optimizer, **options)


class TestValues:
    def test_rates_and_momenta_are_those_of_pytorch(self):
        schedule = OPTIMIZERS["nesterov"]().schedule
        rates = np.concatenate([schedule.epoch_rates(epoch, 4) for epoch in range(5)])
        momenta = np.concatenate([schedule.epoch_momenta(epoch, 4) for epoch in range(5)])
        for step, (rate, momentum) in PLACES.items():
            assert rates[step] == pytest.approx(rate, rel=1e-12)
            assert momenta[step] == pytest.approx(momentum, rel=1e-12)

    def test_over_time(self):
        schedule = nn.OneCycle(1.0, epochs=10, warmup=0.2, anneal="linear", div_factor=4, final_div_factor=5)
        np.testing.assert_allclose(
            [schedule.rate(t) for t in (0, 1, 2, 6, 10, 12)], [0.25, 0.625, 1, 0.525, 0.05, 0.05]
        )
        np.testing.assert_allclose(
            [schedule.momentum(t) for t in (0, 1, 2, 6, 10, 12)], [0.95, 0.9, 0.85, 0.9, 0.95, 0.95]
        )
        assert nn.OneCycle(1.0, 10).rate(6.5) == pytest.approx(0.5, abs=1e-5)

    def test_steps_after_the_cycle_have_its_last_values(self):
        schedule = nn.OneCycle(1.0, epochs=2)
        np.testing.assert_allclose(schedule.epoch_rates(2, 3), 1 / 25 / 1e4)
        np.testing.assert_allclose(schedule.epoch_momenta(2, 3), 0.95)

    @pytest.mark.parametrize("warmup", [0, 0.1, 0.5, 1])
    @pytest.mark.parametrize("steps", [1, 2, 10])
    def test_of_few_steps(self, warmup, steps):
        schedule = nn.OneCycle(1.0, 1, warmup)
        rates, momenta = schedule.epoch_rates(0, steps), schedule.epoch_momenta(0, steps)
        assert ((rates > 0) & (rates <= 1)).all()
        assert ((momenta >= 0.85) & (momenta <= 0.95)).all()
        assert rates[-1] == pytest.approx(1.0 if warmup == 1 else 1 / 25 / 1e4)

    def test_a_cycle_without_momentum(self):
        schedule = nn.OneCycle(1.0, 2, cycle_momentum=False)
        assert not schedule.sets_momentum
        np.testing.assert_array_equal(schedule.epoch_rates(0, 5), nn.OneCycle(1.0, 2).epoch_rates(0, 5))


class TestTraining:
    @pytest.mark.float64
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_the_weights_are_those_of_pytorch(self, backend, optimizer):
        start = np.linspace(-1, 1, 12).reshape(4, 3)
        net = nn.Network([nn.Dense(3, weight_initializer=start)], 4, backend=backend, dtype="float64")
        options = {"epochs": 5, "batch_size": 10, "loss": LOSS, "shuffle": False, "verbose": False}
        net.fit(ROWS, LABELS, optimizer=OPTIMIZERS[optimizer](), **options)
        weight, bias = PYTORCH[optimizer]
        np.testing.assert_allclose(net.get_weights()["layers.0.weight"], weight, atol=1e-9, rtol=0)
        np.testing.assert_allclose(net.get_weights()["layers.0.bias"], bias, atol=1e-9, rtol=0)

    @pytest.mark.float64
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_every_layer_is_updated_as_on_numpy(self, backend, optimizer):
        """Also where the update is part of the product that computes the gradient."""
        net, _ = trained(backend, OPTIMIZERS[optimizer](), dtype="float64")
        reference, _ = trained("numpy", OPTIMIZERS[optimizer](), dtype="float64")
        for name, weights in reference.get_weights().items():
            np.testing.assert_allclose(net.get_weights()[name], weights, rtol=1e-9, atol=1e-11)

    @pytest.mark.parametrize(
        ("make", "momentum"), [(nn.Adam, {"beta1": 0.8}), (nn.AdamW, {"beta1": 0.8}), (nn.SGD, {"momentum": 0.8})]
    )
    def test_a_cycle_at_one_momentum_has_the_bits_of_that_momentum(self, backend, make, momentum):
        level = nn.OneCycle(0.05, 2, base_momentum=0.8, max_momentum=0.8)
        fixed = nn.OneCycle(0.05, 2, cycle_momentum=False)
        one, history = trained(backend, make(level, **dict.fromkeys(momentum, 0.3)))
        two, expected = trained(backend, make(fixed, **momentum))
        assert same_weights(one, two)
        np.testing.assert_array_equal(history.step_losses, expected.step_losses)

    def test_only_a_schedule_of_the_momentum_is_recorded(self, monkeypatch):
        """Other steps are the calls that they were."""
        calls = []
        make = NumbaBackend.executor
        monkeypatch.setattr(NumbaBackend, "executor", lambda self, step: calls.extend(step) or make(self, step))
        for schedule in (nn.CosineDecay(0.1, 1), nn.OneCycle(0.1, 1, cycle_momentum=False), nn.OneCycle(0.1, 1)):
            calls.clear()
            trained("numba", nn.Adam(schedule), epochs=1)
            updates = [call for call in calls if call.operation == "adam_update"]
            assert updates
            assert all((call.momenta is not None) == schedule.sets_momentum for call in updates)

    def test_runs_of_one_epoch_each_go_through_the_cycle(self, backend):
        """The optimiser counts its epochs."""
        whole, _ = trained(backend, nn.Adam(nn.OneCycle(0.02, 3)), epochs=3)
        optimizer, parts = nn.Adam(nn.OneCycle(0.02, 3)), rich_network(backend)
        for _ in range(3):
            parts.fit(X, Y, epochs=1, batch_size=16, loss=LOSS, optimizer=optimizer, verbose=False)
        assert same_weights(whole, parts)

    def test_a_number_set_by_a_callback_ends_the_cycle(self, backend):
        """From then on the momentum is the optimiser's own."""

        class Settle(nn.Callback):
            def on_epoch_end(self, network, epoch, metrics):
                network.optimizer.learning_rate = 0.01

        class Level(nn.Schedule):
            sets_momentum = True

            def rate(self, epoch):
                return nn.OneCycle(0.05, 3).epoch_rates(0, 5)[round(epoch * 5)] if epoch < 1 else 0.01

            def epoch_momenta(self, epoch, steps):
                return nn.OneCycle(0.05, 3).epoch_momenta(0, 5) if epoch == 0 else np.full(steps, 0.7)

        net, history = trained(backend, nn.Adam(nn.OneCycle(0.05, 3), beta1=0.7), epochs=3, callbacks=[Settle()])
        assert history["learning_rate"][1:] == [0.01, 0.01]
        assert same_weights(net, trained(backend, nn.Adam(Level(), beta1=0.7), epochs=3)[0])

    @pytest.mark.float64
    def test_ranks_take_the_steps_of_one(self, backend):
        alone, _ = trained(backend, OPTIMIZERS["adam"](), dtype="float64")
        for net, _ in worked(
            run_ranks(2, lambda ranks: trained(backend, OPTIMIZERS["adam"](), dtype="float64", communicator=ranks))
        ):
            for name, weights in alone.get_weights().items():
                np.testing.assert_allclose(net.get_weights()[name], weights, rtol=0, atol=1e-12)


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"max_rate": -1}, "the highest learning rate must be at least 0"),
            ({"epochs": 0}, "epochs must be above 0"),
            ({"warmup": 1.1}, r"warmup must be in \[0, 1\]"),
            ({"div_factor": 0}, "div_factor must be above 0"),
            ({"final_div_factor": float("inf")}, "final_div_factor must be a finite number"),
            ({"cycle_momentum": "no"}, "cycle_momentum must be True or False"),
            ({"max_momentum": 1.0}, r"max_momentum must be in \[0, 1\)"),
            ({"base_momentum": 0.96}, "base_momentum must be at most max_momentum, received 0.96 and 0.95"),
        ],
    )
    def test_of_arguments(self, arguments, message):
        with pytest.raises(InvalidInputError, match=message):
            nn.OneCycle(**{"max_rate": 0.1, "epochs": 2, **arguments})

    def test_of_names(self):
        with pytest.raises(UnknownNameError, match="unknown anneal 'cosin': did you mean 'cosine'"):
            nn.OneCycle(0.1, 2, anneal="cosin")
        with pytest.raises(InvalidAttributeError, match=r"make a new one: OneCycle\(epochs=...\)"):
            nn.OneCycle(0.1, 2).epochs = 3

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda rate: nn.RMSprop(rate), r"RMSprop has no momentum .* set; give it a schedule that"),
            (lambda rate: nn.SGD(rate), r"SGD has no momentum .* give it a momentum above 0, or a schedule that"),
        ],
    )
    def test_of_an_optimizer_without_momentum(self, make, message):
        with pytest.raises(InvalidInputError, match=message):
            make(nn.OneCycle(0.1, 2))
        optimizer = make(nn.OneCycle(0.1, 2, cycle_momentum=False))
        with pytest.raises(InvalidInputError, match=message):
            optimizer.learning_rate = nn.OneCycle(0.1, 2)
        optimizer.learning_rate = nn.OneCycle(0.2, 2, cycle_momentum=False)
        assert optimizer.learning_rate.max_rate == 0.2

    def test_a_warm_up_before_the_cycle(self):
        for schedule in (nn.OneCycle(0.1, 2), nn.OneCycle(0.1, 2, cycle_momentum=False)):
            with pytest.raises(InvalidInputError, match="cannot follow a warm-up, because it has its own"):
                nn.Warmup(1, schedule)

    @pytest.mark.parametrize("cycle_momentum", [True, False])
    def test_single_batches_change_nothing(self, cycle_momentum):
        net = rich_network("numpy")
        before = net.get_weights()
        optimizer = nn.Adam(nn.OneCycle(0.1, 2, cycle_momentum=cycle_momentum))
        with pytest.raises(InvalidInputError, match="needs to know how many there will be: train with fit"):
            net.train_on_batch(X, Y, loss=LOSS, optimizer=optimizer)
        assert net.steps_trained == 0
        assert net.loss is None
        assert all(np.array_equal(before[name], array) for name, array in net.get_weights().items())
        net.train_on_batch(X, Y, loss=LOSS, optimizer=nn.Adam(0.1))

    def test_a_backend_that_was_written_before(self):
        class Older(nn.NumpyBackend):
            name = "older"

            def sgd_update(self, parameters, gradients, velocity, counter, learning_rates, momentum, nesterov, decay):
                arguments = (counter, learning_rates, momentum, nesterov, decay)
                super().sgd_update(parameters, gradients, velocity, *arguments)

        net = rich_network(Older())
        options = {"epochs": 1, "batch_size": 16, "loss": LOSS, "verbose": False}
        with pytest.raises(InvalidInputError, match=r"'older' cannot set the momentum .* its sgd_update takes no"):
            net.fit(X, Y, optimizer=nn.SGD(nn.OneCycle(0.1, 1), momentum=0.9), **options)
        assert net.loss is None
        net.fit(X, Y, optimizer=nn.SGD(nn.OneCycle(0.1, 1, cycle_momentum=False), momentum=0.9), **options)
        assert net.steps_trained == 5

    @pytest.mark.parametrize(
        ("momenta", "message"),
        [
            ([0.5, 1.0], "gives the momentum 1.0 in epoch 3; it must be at least 0 and below 1"),
            ([-0.1, 0.5], "gives the momentum -0.1"),
            ([0.5, float("nan")], "gives the momentum nan"),
            ([0.5], r"must give a momentum for each of the 2 steps of an epoch, received shape \(1,\)"),
            (["a", "b"], "gives no momentum in epoch 3"),
        ],
    )
    def test_of_a_schedule_from_outside(self, momenta, message):
        class Own(nn.Schedule):
            sets_momentum = True

            def rate(self, epoch):
                return 0.1

            def epoch_momenta(self, epoch, steps):
                return momenta

        with pytest.raises(InvalidInputError, match=message):
            checked_momenta(Own(), 2, 2)


def test_training_beyond_the_end_of_a_cycle_is_warned_of():
    x, y = images(rows=20)
    network, optimizer = classifier("numpy"), nn.Adam(nn.OneCycle(0.01, epochs=2))
    settings = {"loss": "softmax_cross_entropy", "optimizer": optimizer, "verbose": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network.fit(x, y, epochs=1, **settings)
        network.fit(x, y, epochs=1, **settings)
    with pytest.warns(
        UserWarning, match=r"one cycle of 2 epochs, 2 of which are over, but training takes 1, .* new opt"
    ):
        network.fit(x, y, epochs=1, **settings)
    settings["optimizer"] = nn.Adam(nn.OneCycle(0.01, epochs=2))
    with pytest.warns(UserWarning, match="one cycle of 2 epochs but training takes 3, .* as many epochs as fit$"):
        network.fit(x, y, epochs=3, **settings)


# ---- cosine restarts and polynomials ---------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.0, 1.5, 2.0, 3.0])
def test_cosine_restarts_repeat_a_cosine(factor):
    schedule = nn.CosineRestarts(0.1, epochs=2, length_factor=factor, rate_factor=0.5, final=0.01)
    start, length, highest = 0.0, 2.0, 0.1
    for _ in range(12):
        for share in (0.0, 0.25, 0.5, 0.9999999):
            wanted = nn.CosineDecay(max(highest, 0.01), 1.0, 0.01).rate(share)
            assert schedule.rate(start + share * length) == pytest.approx(wanted, rel=1e-5)
        start, length, highest = start + length, length * factor, highest / 2


@pytest.mark.parametrize("factor", [1.1, 2.0, 7.0])
def test_a_cycle_begins_exactly_where_the_last_one_ends(factor):
    schedule = nn.CosineRestarts(1.0, epochs=1, length_factor=factor)
    start = 0.0
    for cycle in range(20):
        assert schedule.rate(start * (1 + 1e-9)) == pytest.approx(1.0, abs=1e-4), cycle
        start += factor**cycle


@pytest.mark.slow
def test_cosine_restarts_are_pytorch_s():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3, 2, eta_min=0.02)
    ours = nn.CosineRestarts(0.3, epochs=3, length_factor=2, final=0.02)
    for step in range(200):
        theirs.step(step / 10)
        assert ours.rate(step / 10) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)


def test_polynomials():
    linear, square = nn.Polynomial(0.3, 10, final=0.1), nn.Polynomial(0.4, 10, power=2)
    assert [linear.rate(epoch) for epoch in (0, 5, 10, 20)] == pytest.approx([0.3, 0.2, 0.1, 0.1])
    assert [square.rate(epoch) for epoch in (0, 5, 10, 20)] == pytest.approx([0.4, 0.1, 0, 0])


def test_logarithmic_cosines():
    """Four waves that end after 1, 3, 7 and 15 parts of 15, with their crests where log2 is half a cycle further."""
    schedule = nn.LogCosine(0.4, epochs=30)
    assert [schedule.rate(2 * part) for part in (0, 1, 3, 7, 15, 20)] == pytest.approx([0] * 6, abs=1e-15)
    crests = [2 * (2 ** (cycle + 0.5) - 1) for cycle in range(4)]
    assert [schedule.rate(epoch) for epoch in crests] == pytest.approx([0.4] * 4)
    assert schedule.rate(2 * (2**2.25 - 1)) == pytest.approx(0.2)
    assert nn.LogCosine(0.4, epochs=3, cycles=2).rate(1) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    "schedule", [nn.CosineRestarts(0.3, 1.5, 2.0), nn.Polynomial(0.3, 4, 2.0), nn.LogCosine(0.3, 3)], ids=str
)
def test_they_train_alike_on_every_backend(backend, schedule):
    nets = [rich_network(where) for where in ("numpy", backend)]
    histories = [
        net.fit(X, Y, epochs=3, batch_size=16, loss=LOSS, optimizer=nn.SGD(schedule), verbose=False) for net in nets
    ]
    assert histories[0]["learning_rate"] == histories[1]["learning_rate"]
    np.testing.assert_allclose(
        np.concatenate(histories[1].step_losses), np.concatenate(histories[0].step_losses), rtol=5e-3
    )
    assert eval(repr(schedule), vars(nn)) == schedule


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.CosineRestarts(-1, 2), "initial learning rate must be at least 0"),
        (lambda: nn.CosineRestarts(0.1, 0), "epochs must be above 0"),
        (lambda: nn.CosineRestarts(0.1, 1, 0.5), "length_factor must be at least 1"),
        (lambda: nn.CosineRestarts(0.1, 1, rate_factor=0), "rate_factor must be above 0"),
        (lambda: nn.CosineRestarts(0.1, 1, rate_factor=2), r"rate_factor must be in \[0, 1\]"),
        (lambda: nn.Polynomial(0.1, 10, power=0), "power must be above 0"),
        (lambda: nn.LogCosine(-1, 3), "highest learning rate must be at least 0"),
        (lambda: nn.LogCosine(0.1, 3, cycles=0), "cycles must be a whole number of at least 1"),
        (lambda: nn.Polynomial(0.1, "10"), "epochs must be a finite number"),
    ],
)
def test_their_errors(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()
