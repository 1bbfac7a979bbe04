"""Optimizers and schedules: PyTorch's values, states, errors."""

import json

import numpy as np
import pytest

from stapes import nn, optim

SCHEDULES = {
    "step": lambda: optim.StepLR(0.1, 4, gamma=0.5),
    "cosine": lambda: optim.CosineLR(0.1, 12, min_lr=0.01),
    "one_cycle": lambda: optim.OneCycleLR(0.1, 12, pct_start=0.4, div_factor=10),
    "one_cycle_linear": lambda: optim.OneCycleLR(0.1, 12, anneal="linear"),
    "warmup": lambda: optim.WarmupLR(0.1, 5, start_factor=0.2),
    "warmup_cosine": lambda: optim.WarmupLR(optim.CosineLR(0.1, 7), 5, start_factor=0.2),
}
OPTIMIZERS = {
    "sgd": lambda: optim.SGD(0.1),
    "sgd_momentum": lambda: optim.SGD(0.1, momentum=0.9, weight_decay=0.01),
    "sgd_nesterov": lambda: optim.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: optim.Adam(0.01),
    "adam_decay": lambda: optim.Adam(0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1),
    "adamw": lambda: optim.AdamW(0.01),
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(params=OPTIMIZERS, ids=list(OPTIMIZERS))
def make(request):
    return OPTIMIZERS[request.param]


def parameters(rng, dtype=np.float64):
    shapes = {"0.weight": (4, 3), "0.bias": (4,)}
    return [nn.Parameter(rng.standard_normal(s).astype(dtype), n) for n, s in shapes.items()]


def draw_gradients(params, rng):
    for p in params:
        p.grad = rng.standard_normal(p.shape).astype(p.dtype)


def torch_optimizer(torch, ours, params):
    config = ours.config()
    kind = config.pop("type")
    if kind != "SGD":
        config["betas"] = tuple(config["betas"])
    return getattr(torch.optim, kind)(params, **config)


def torch_schedule(torch, name, opt):
    s = torch.optim.lr_scheduler
    if name == "warmup_cosine":
        warmup = torch_schedule(torch, "warmup", opt)
        after = s.CosineAnnealingLR(opt, 7)
        return s.SequentialLR(opt, [warmup, after], milestones=[5])
    cycle = {"max_lr": 0.1, "total_steps": 12, "cycle_momentum": False}
    return {
        "step": lambda: s.StepLR(opt, 4, gamma=0.5),
        "cosine": lambda: s.CosineAnnealingLR(opt, 12, eta_min=0.01),
        "one_cycle": lambda: s.OneCycleLR(opt, **cycle, pct_start=0.4, div_factor=10),
        "one_cycle_linear": lambda: s.OneCycleLR(opt, **cycle, anneal_strategy="linear"),
        "warmup": lambda: s.LinearLR(opt, start_factor=0.2, total_iters=5),
    }[name]()


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-5)])
def test_updates_are_torchs(make, rng, dtype, tolerance):
    torch = pytest.importorskip("torch")
    ours, params = make(), parameters(rng, dtype)
    mirrored = [torch.nn.Parameter(torch.tensor(p.data)) for p in params]
    theirs = torch_optimizer(torch, ours, mirrored)
    for _ in range(20):
        draw_gradients(params, rng)
        for p, q in zip(params, mirrored, strict=True):
            q.grad = torch.tensor(p.grad)
        ours.step(params)
        theirs.step()
        for p, q in zip(params, mirrored, strict=True):
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_schedules_are_torchs(name):
    torch = pytest.importorskip("torch")
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs, ours = torch_schedule(torch, name, opt), SCHEDULES[name]()
    for t in range(12):
        assert ours(t) == pytest.approx(opt.param_groups[0]["lr"], rel=1e-12, abs=1e-17), t
        opt.step()
        if t < 11:
            theirs.step()


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_config(name):
    schedule = SCHEDULES[name]()
    config = json.loads(json.dumps(schedule.config()))
    again = optim.from_config({"type": "SGD", "lr": config})
    for t in range(30):
        again.steps = t
        assert again.lr == schedule(t)
    assert repr(schedule) in repr(again)


def test_known_values_of_schedules():
    cosine = optim.CosineLR(1.0, 10, min_lr=0.2)
    assert [cosine(t) for t in (0, 5, 10, 99)] == pytest.approx([1, 0.6, 0.2, 0.2])
    cycle = optim.OneCycleLR(1.0, 10)
    assert cycle(0) == pytest.approx(0.04)
    assert cycle(2) == 1.0
    assert cycle(9) == cycle(99) == pytest.approx(0.04 / 1e4)
    warmup = optim.WarmupLR(optim.StepLR(1.0, 2), 4, start_factor=0)
    rates = [warmup(t) for t in range(8)]
    assert rates == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 0.1, 0.1])


def test_a_schedule_advances_at_each_step(rng):
    opt, params = optim.SGD(lr=optim.StepLR(1.0, 2, gamma=0.1)), parameters(rng)
    rates = []
    for _ in range(4):
        draw_gradients(params, rng)
        before, rate = params[0].data.copy(), opt.lr
        opt.step(params)
        np.testing.assert_allclose(params[0].data, before - rate * params[0].grad)
        rates.append(rate)
    assert rates == pytest.approx([1, 1, 0.1, 0.1])


def test_lr_may_be_assigned():
    opt = optim.Adam()
    assert opt.lr == 1e-3
    opt.lr = 0.5
    assert opt.lr == 0.5
    opt.lr = optim.CosineLR(0.25, 10)
    assert opt.lr == 0.25
    with pytest.raises(ValueError, match="Adam: lr must be finite and at least 0"):
        opt.lr = -1


def test_resumes_to_the_same_bits(make, rng):
    opt, params = make(), parameters(rng, np.float32)
    opt.lr = optim.CosineLR(0.1, 20)
    gradients = [[rng.standard_normal(p.shape, np.float32) for p in params] for _ in range(6)]

    def run(opt, params, steps):
        for t in steps:
            for p, g in zip(params, gradients[t], strict=True):
                p.grad = g.copy()
            opt.step(params)

    run(opt, params, range(3))
    state = opt.state_dict()
    copies = [nn.Parameter(p.data.copy(), p.name) for p in params]
    run(opt, params, range(3, 6))
    other = make()
    other.load_state_dict(state)
    assert other.lr == optim.CosineLR(0.1, 20)(3)
    run(other, copies, range(3, 6))
    for p, q in zip(params, copies, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


def test_state_dict_holds_copies(rng):
    opt, params = optim.Adam(), parameters(rng)
    draw_gradients(params, rng)
    opt.step(params)
    state = opt.state_dict()
    assert sorted(state["arrays"]) == ["m.0.bias", "m.0.weight", "v.0.bias", "v.0.weight"]
    assert state["steps"] == 1
    json.dumps(state["config"])
    state["arrays"]["m.0.bias"][...] = 99
    assert opt.state_dict()["arrays"]["m.0.bias"].max() < 99


def test_load_state_dict_refuses_what_does_not_fit(rng):
    opt, params = optim.Adam(), parameters(rng)
    draw_gradients(params, rng)
    opt.step(params)
    state = opt.state_dict()
    for change, message in (
        (lambda s: s.pop("steps"), "missing steps"),
        (lambda s: s["arrays"].pop("v.0.bias"), r"missing v\.0\.bias"),
        (lambda s: s["arrays"].update({"velocity.0.bias": 1}), r"unexpected velocity\.0\.bias"),
        (lambda s: s.update(config=optim.SGD(0.1).config()), "state of SGD"),
        (lambda s: s.update(config={"type": "Lion"}), "type must be one of"),
    ):
        bad = {**state, "arrays": dict(state["arrays"])}
        change(bad)
        fresh = optim.Adam(0.5)
        with pytest.raises(ValueError, match=message):
            fresh.load_state_dict(bad)
        assert (fresh.lr, fresh.steps, fresh.state_dict()["arrays"]) == (0.5, 0, {})


def test_steps_need_the_same_parameters_with_gradients(rng):
    opt, params = optim.Adam(), parameters(rng)
    with pytest.raises(RuntimeError, match=r"0\.weight has no gradient: run backward first"):
        opt.step(params)
    draw_gradients(params, rng)
    opt.step(params)
    with pytest.raises(ValueError, match="parameters must be those of the steps before"):
        opt.step(params[:1])
    other = [nn.Parameter(np.ones((2, 2)), p.name) for p in params]
    draw_gradients(other, rng)
    with pytest.raises(ValueError, match=r"m of 0\.weight has shape \(4, 3\)"):
        opt.step(other)


def test_parameters_of_the_same_name(rng):
    opt = optim.SGD(0.1, momentum=0.9)
    params = [nn.Parameter(np.zeros(3), "weight"), nn.Parameter(np.zeros(2), "weight")]
    for _ in range(2):
        draw_gradients(params, rng)
        opt.step(params)
    assert sorted(opt.state_dict()["arrays"]) == ["velocity.0:weight", "velocity.1:weight"]


def test_state_follows_the_dtype_of_the_parameters(rng):
    opt, params = optim.Adam(), parameters(rng, np.float32)
    draw_gradients(params, rng)
    opt.step(params)
    for p in params:
        p.data = p.data.astype(np.float64)
    draw_gradients(params, rng)
    opt.step(params)
    assert opt.state_dict()["arrays"]["m.0.bias"].dtype == np.float64


@pytest.mark.parametrize(
    ("make_wrong", "error", "message"),
    [
        (lambda: optim.SGD(-0.1), ValueError, "SGD: lr must be finite and at least 0, got -0.1"),
        (lambda: optim.SGD(float("nan")), ValueError, "SGD: lr must be finite"),
        (lambda: optim.SGD("fast"), TypeError, "SGD: lr must be a number, got str"),
        (lambda: optim.SGD(0.1, momentum=1.0), ValueError, "momentum must be at least 0 and below"),
        (lambda: optim.SGD(0.1, nesterov=True), ValueError, "nesterov needs a momentum"),
        (lambda: optim.SGD(0.1, weight_decay=-1), ValueError, "SGD: weight_decay must be"),
        (lambda: optim.Adam(betas=(0.9, 1.0)), ValueError, r"Adam: betas\[1\] must be"),
        (lambda: optim.AdamW(betas=0.9), ValueError, "AdamW: betas must be two numbers"),
        (lambda: optim.Adam(eps=-1e-8), ValueError, "Adam: eps must be"),
        (lambda: optim.from_config({"type": "Lion"}), ValueError, "type must be one of"),
        (lambda: optim.from_config({"type": "SGD"}), ValueError, "SGD: .*'lr'"),
        (lambda: optim.StepLR(0.1, 0), ValueError, "StepLR: step_size must be at least 1"),
        (lambda: optim.CosineLR(-1, 10), ValueError, "CosineLR: lr must be"),
        (lambda: optim.CosineLR(1, 10.5), TypeError, "total_steps must be an integer"),
        (
            lambda: optim.OneCycleLR(1, 10, pct_start=2),
            ValueError,
            r"pct_start must be in \[0, 1\]",
        ),
        (lambda: optim.OneCycleLR(1, 10, div_factor=0), ValueError, "factors above 0"),
        (lambda: optim.OneCycleLR(1, 10, anneal="step"), ValueError, 'anneal must be "cos"'),
        (lambda: optim.WarmupLR(1, 10, start_factor=2), ValueError, "start_factor must be in"),
    ],
)
def test_wrong_arguments(make_wrong, error, message):
    with pytest.raises(error, match=message):
        make_wrong()


class There(np.ndarray):
    """Stands for an array on another device, where a kernel here cannot write."""


def test_arrays_on_another_device_are_not_used(rng, monkeypatch):
    def device_of(x):
        return "cuda:1" if isinstance(x, There) else "cuda:0"

    monkeypatch.setattr("stapes.nn.parameter.device_of", device_of)
    monkeypatch.setattr("stapes.optim.device_of", device_of)
    monkeypatch.setattr("stapes.optim.to_device", lambda x, device: np.array(x))
    found = []
    for elsewhere in (False, True):
        p = nn.Parameter(np.ones((2, 3)), "w")
        optimizer = optim.Adam(0.01)
        for _ in range(2):
            gradient = p.gradient()
            assert type(gradient) is np.ndarray
            gradient[:] = 0.5
            optimizer.step([p])
            if elsewhere:
                p.grad = gradient.view(There)
                kept = optimizer._state["w"]
                kept.update({slot: array.view(There) for slot, array in kept.items()})
        found.append(p.data.tobytes())
    assert found[0] == found[1]
    before = p.data
    p.data = np.ones((2, 3))
    assert p.data is before
    p.data = np.ones((2, 3)).view(There)
    assert type(p.data) is There
