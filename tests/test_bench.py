"""``stapes bench``: what is timed is right, and what is said of the times follows from them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from command_line import complaint
from command_line import stapes as command
from stapes.bench import (
    compare,
    features,
    kernels,
    networks,
    peers,
    report,
    scaling,
    shapes,
    steps,
    suite,
)
from stapes.bench import timing as bench_timing
from stapes.bench.machine import Machine, host
from stapes.bench.timing import Median, Run, interleave, summarize

MACHINE = Machine("a processor", "avx2", 1, 100e9, 100e9, 10e9)
SMALL = {"first_c3": 2, "1d_1x80_stride4": 1}
CASES = [case.images(SMALL.get(case.name, 2)) for case in shapes.SHAPES]
WORK = [
    (op, case) for case in CASES for op, kernel in kernels.KERNELS.items() if kernel.takes(case)
]


def a_row(seconds=1.0, spread=0.01, **changes):
    row = report.Row("conv2d_fwd", "conv2", "float32", "cpu", 1, 1e9, 1e8, 2e9, 0.5, {})
    return replace(row, **{"times": {"stapes": Median(seconds, spread)}} | changes)


def a_result(*rows):
    return report.Result(MACHINE, "stapes bench ops", list(rows), date="today")


PEERS = {"torch": peers.TORCH, "torch-nchw": peers.TORCH, "onednn": peers.ONEDNN}


@pytest.mark.parametrize(
    ("peer", "op", "case"),
    [(peer, op, case) for peer, table in PEERS.items() for op, case in WORK if op in table],
    ids=str,
)
def test_peer_does_the_same_work(op, case, peer):
    pytest.importorskip("torch")
    host_arrays = kernels.host_arrays(case)
    work = peers.work(peer, op, host_arrays, case, "float32", "cpu")
    task = kernels.KERNELS[op].task(kernels.on_device(host_arrays, "float32", "cpu"), case)
    ours = kernels.results(task.run(None))
    theirs = [peers.to_host(value) for value in kernels.results(work())]
    floats = [(a, b) for a, b in zip(ours, theirs, strict=False) if a.dtype.kind == "f"]
    assert floats
    for a, b in floats:
        np.testing.assert_allclose(a, b.reshape(a.shape), rtol=1e-3, atol=1e-4 * np.abs(b).max())


@pytest.mark.parametrize(("op", "case"), [w for w in WORK if w[0] != "adam_step"], ids=str)
def test_task_repeats_itself_into_its_result(op, case):
    """What is timed is the whole work, not a call that finds it done."""
    task = kernels.KERNELS[op].task(
        kernels.on_device(kernels.host_arrays(case), "float32", "cpu"), case
    )
    value = task.run(None)
    first = kernels.results(value)
    kept = [a.copy() for a in first]
    for a in first:
        a.fill(99)
    again = kernels.results(task.run(value))
    for a, b, old in zip(again, first, kept, strict=True):
        assert a is b
        np.testing.assert_array_equal(a, old)


def test_measure_gives_error_and_limit():
    row = suite.measure(
        "conv2d_fwd", CASES[2], suite.Settings("float32", "cpu", 1, [], 0.01), MACHINE
    )
    assert row.flops == 2 * 2 * 32 * 32 * 64 * 9 * 32
    assert row.moved == 4 * (2 * 32 * 32 * (32 + 64) + 64 * 9 * 32 + 64)
    assert 1e-9 < row.errors["stapes"] < 1e-6
    assert 0 < row.share < 10
    wide = suite.measure(
        "conv2d_fwd", CASES[2], suite.Settings("float64", "cpu", 1, [], 0.01), MACHINE
    )
    assert wide.errors == {}  # there is nothing more exact to compare with


def test_plan_takes_what_the_operator_takes():
    assert suite.plan(["linear"], []) == [
        (name, shapes.shape("dense1")) for name in ("linear_fwd", "linear_dgrad", "linear_wgrad")
    ]
    assert not any(
        op == "conv2d_dgrad" and case.name == "first_c3" for op, case in suite.plan([], [])
    )
    with pytest.raises(ValueError, match=r"none of linear_fwd.*takes conv2"):
        suite.plan(["linear"], [shapes.shape("conv2")])


@pytest.mark.parametrize(
    "text",
    [
        *("2x3x3x4,8x3x3x4", "2x100x1x4,8x3x1x4", "2x1x1x16,8x3x3x16,padding=1"),
        *("2x1x1x64,64x1x1x8,groups=8", "2x9x9x1,8x3x3x1,dilation=2", "2x1x1x4,8x1x1x4,padding=1"),
    ],
)
def test_all_that_is_planned_can_be_measured(text):
    settings = suite.Settings("float32", "cpu", 1, [], 0)
    for op, case in suite.plan([], [shapes.shape(text)]):
        assert np.isfinite(suite.measure(op, case, settings, MACHINE).errors["stapes"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("op", kernels.KERNELS)
def test_peers_take_16_bit_numbers(op, dtype):
    """What they are given on a GPU; here PyTorch computes it on the CPU."""
    pytest.importorskip("torch")
    case = next(case for case in CASES if kernels.KERNELS[op].takes(case))
    work = peers.work("torch", op, kernels.host_arrays(case), case, dtype, "cpu")
    assert all(np.isfinite(peers.to_host(a)).all() for a in kernels.results(work()))


def test_shape_from_text():
    case = shapes.shape("8x40x101x4,64x10x3x4,stride=2x1,padding=1")
    assert (case.x, case.w) == ((8, 40, 101, 4), (64, 10, 3, 4))
    assert case.options == {"stride": (2, 1), "padding": 1, "dilation": 1, "groups": 1}
    assert shapes.shape("8x4x4x4,6x1x1x4").w == (6, 1, 1, 4)


@pytest.mark.parametrize(
    "text",
    [
        *("", "conv3", "8x8x8x8", "8x8x8x8,", "8x8x8,8x3x3x8", "8x8x8x8,8x3x3x8,stride"),
        *("8x8x8x8,8x3x3x8,pool=2", "8x8x8x8,8x3x3x8,stride=1x2x3", "8x8x8x8,8x3x3x8,groups=1x2"),
        *("8x8x8x8,8x3x3x8,stride=-1", "8x8x8x4,8x3x3x8", "8x2x2x8,8x3x3x8"),
    ],
)
def test_shape_that_is_none(text):
    with pytest.raises(ValueError, match="--shape"):
        shapes.shape(text)


def test_rounds_are_in_turn():
    calls = []
    run = interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, seconds=0)
    assert calls[:2] == ["a", "b"]
    rounds = [calls[i : i + 2] for i in range(2, 16, 2)]  # more where the machine is disturbed
    assert len(calls) >= 16
    assert all(now == ["ab", "ba"][i % 2] for i, now in enumerate(map("".join, rounds)))
    assert run.peak > 1e8


def test_disturbed_run_is_repeated(monkeypatch):
    """The core's speed falls to half in most rounds of the first attempt."""
    speeds = iter([1.0, *[0.5] * 6, *[1.0] * 7])
    monkeypatch.setattr(bench_timing, "fma_peak", lambda float64: next(speeds))
    run = interleave({"a": lambda: None}, seconds=0)
    assert next(speeds, None) is None
    assert not run.disturbed


def test_run_that_stays_disturbed_says_so(monkeypatch):
    speeds = iter([1.0, *[0.5] * 6] * 3)
    monkeypatch.setattr(bench_timing, "fma_peak", lambda float64: next(speeds))
    run = interleave({"a": lambda: None}, seconds=0)
    assert next(speeds, None) is None
    assert run.disturbed
    assert "disturbed" in report.cells(a_row(disturbed=run.disturbed))


def test_interrupted_run_is_disturbed():
    run = summarize({"a": [1.0, 1.0]}, [1.0, 1.0], interrupted=100.0)
    assert run.disturbed
    assert not replace(run, interruptions=1.0).disturbed


def test_median_and_spread():
    run = summarize({"a": [1.0, 2.0, 3.0, 4.0, 5.0]}, [1.0, 1.0])
    assert run == Run({"a": Median(3.0, 1 / 3)}, {}, 1.0, 0.0)


def test_ratios_are_those_of_rounds():
    """A machine at half its speed in some rounds does not change them."""
    run = summarize({"stapes": [1.0, 2.0, 1.0], "torch": [3.0, 6.0, 3.0]}, [2.0, 1.0, 2.0])
    assert run.ratios == {"torch": Median(3.0, 0.0)}


def test_best_peer():
    row = a_row(ratios={"slow": Median(9, 0.1), "quick": Median(2, 0.05)})
    assert row.best_peer == "quick"
    assert "2.00 ± 0.10" in report.cells(row)
    assert a_row().best_peer is None


def test_limits_of_this_machine():
    machine = host(1)
    assert 1e9 < machine.flops < 1e13
    assert 1e8 < machine.bandwidth < 1e13


def test_result_survives_its_file(tmp_path):
    result = a_result(a_row(facts={"density": [0.2]}), a_row(errors={"stapes": 1e-7}))
    report.save(result, tmp_path / "r.json")
    assert report.load(tmp_path / "r.json") == result
    report.save_csv(result, tmp_path / "r.csv")
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("conv2d_fwd,conv2,float32,cpu,1,stapes,1.0,0.01,")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": [1]}', '{"rows": [], "machine": {}}'])
def test_file_without_result(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=r"r\.json holds no result"):
        report.load(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (a_row(1.0), a_row(1.2), "slower"),
        (a_row(1.0), a_row(0.8), "faster"),
        (a_row(1.0), a_row(1.02), "same"),
        (a_row(1.0, spread=0.1), a_row(1.2, spread=0.1), "same"),
        (a_row(1.0), a_row(2.0, peak=1e9), "same"),  # a machine of half the speed
        (a_row(1.0), a_row(1.2, limit=0), "slower"),
        (a_row(1.0), a_row(1.2, disturbed=True), "disturbed"),
    ],
)
def test_verdict(old, new, verdict):
    (change,) = compare.changes(a_result(old), a_result(new, a_row(on="another")))
    assert change.verdict == verdict


def test_compare_fails_where_something_is_slower(tmp_path):
    for name, seconds in (("old", 1.0), ("new", 1.5)):
        report.save(a_result(a_row(seconds)), tmp_path / f"{name}.json")
    done = command(tmp_path, "bench", "compare", tmp_path / "old.json", tmp_path / "new.json")
    assert done.returncode == 3
    assert "slower" in done.stdout
    done = command(
        tmp_path, "bench", "compare", tmp_path / "new.json", tmp_path / "old.json", "--json"
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)[0]["verdict"] == "faster"


def test_ops_from_the_command_line(tmp_path):
    files = [tmp_path / name for name in ("r.json", "r.csv", "r.png")]
    work = ["--op", "conv2d", "--op", "relu_fwd", "--shape", "2x8x8x4,8x3x3x4,padding=1"]
    out = ["--json", files[0], "--csv", files[1], "--plot", files[2]]
    done = command(tmp_path, "bench", "ops", *work, "--peer", "", "--seconds", "0.01", *out)
    assert done.returncode == 0, done.stderr
    assert "conv2d_relu_max_pool2d_bwd" in done.stdout
    assert [row.what for row in report.load(files[0]).rows][-1] == "relu_fwd"
    assert files[2].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ops", "--op", "conv9"], "--op: 'conv9' begins none of conv2d_fwd"),
        (["ops", "--dtype", "float16"], "add --device cuda"),
        (["ops", "--dtype", "float64", "--device", "cuda"], "not float64"),
        (["ops", "--json", "no/such/folder/r.json"], "the folder no/such/folder does not exist"),
        (["ops", "--plot", "picture"], "must end with .png, .svg or .pdf"),
        (["ops", "--peer", "jax"], "--peer: 'jax' is none of torch"),
        (["step", "--network", "alexnet"], "--network: 'alexnet' is none of seed_64x64x3"),
        (["step", "--peer", "stapes"], "--peer: 'stapes' is none of torch"),
        (["scaling", "--network", "vgg"], "--network: 'vgg' is none of seed_64x64x3"),
        (["features", "--peer", "essentia"], "--peer: 'essentia' is none of librosa"),
    ],
)
def test_wrong_usage(tmp_path, arguments, message):
    assert message in complaint(command(tmp_path, "bench", *arguments))


def test_step_from_the_command_line(tmp_path):
    """Each program runs in its own process, and both learn the same."""
    peer = pytest.importorskip("torch") and "torch"
    work = ["--network", "plain_97x161x1", "--batch", "2", "--peer", peer, "--seconds", "0"]
    done = command(tmp_path, "bench", "step", *work, "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    training, inference = report.load(tmp_path / "r.json").rows
    assert set(training.times) == set(inference.times) == {"stapes", "torch"}
    assert training.facts["loss curves differ by"]["torch"] < 1e-3
    exact = training.facts["loss curves differ from float64 by"]
    assert exact.keys() == {"stapes", "torch"}
    assert 0 < max(exact.values()) < 1e-3
    assert all(0.1 < share < 0.25 for share in training.facts["density of the pooled gradient"])
    memory = training.facts["peak memory, MiB"]
    assert 10 < memory["stapes"] < memory["torch"]


def test_peak_memory_is_not_that_of_the_parent():
    """Linux hands ru_maxrss on to a child."""
    waste = np.ones(300 << 20, np.uint8)
    with steps.Worker(steps.Job("stapes", "plain_97x161x1", 2, 1)) as worker:
        assert 10 < worker.ask("memory") < 250
    del waste


def test_program_that_cannot_run_is_an_error():
    with (
        steps.Worker(steps.Job("stapes", "no such network", 2, 1)) as worker,
        pytest.raises(RuntimeError, match="stapes on no such network ended"),
    ):
        worker.ask("memory")


@pytest.mark.parametrize("network", networks.NETWORKS.values(), ids=networks.NETWORKS)
def test_network_is_the_same_in_torch(network):
    torch = pytest.importorskip("torch")
    from stapes.bench.torch_network import convert

    net = network.build()
    x = np.random.default_rng(0).standard_normal((2, *network.input_shape), dtype=np.float32)
    theirs = convert(net).eval()
    with torch.inference_mode():
        y = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(net.eval().forward(x), y, rtol=1e-3, atol=1e-4)


def test_training_flops_of_the_seed_network():
    net = networks.NETWORKS["seed_64x64x3"]
    flops = networks.training_flops(net.build(), net.input_shape)
    assert flops == pytest.approx(133.70e6, rel=1e-4)


def test_features_agree():
    there = [name for name in features.PEERS if not stapes_lacks(name)]
    if not there:
        pytest.skip("neither librosa nor torch")
    row = features.measure(features.Task(400, 60), 1, there, 0)
    assert set(row.times) == {"stapes", *there}
    assert all(db < 0.05 for db in row.facts["dB from ours"].values())


def stapes_lacks(name):
    from importlib.util import find_spec

    return find_spec(name) is None


# How time grows.


def test_scaling_settings():
    reference, *others = scaling.settings("seed_64x64x1", 32, 3)
    assert (reference.batch, reference.network.input_shape, reference.size) == (32, (64, 64, 1), 1)
    found = {(s.axis, s.label): s for s in others}
    assert len(found) == len(others)
    assert found["batch", "8"].size == 0.25
    assert found["input", "128 x 64"].size == 2
    assert found["input", "32 x 32"].network.input_shape == (32, 32, 1)
    assert [s.threads for s in others if s.axis == "threads"] == [2, 3]
    with pytest.raises(ValueError, match="seed_64x64x3"):
        next(scaling.settings("no_such_network", 32, 1))


def test_linear_is_1(monkeypatch):
    """Steps that take as long as their settings say."""
    chosen = list(scaling.settings("seed_64x64x1", 32, 2))

    def interleaved(functions, seconds):
        sizes = [1 / s.size if s.axis == "threads" else s.size for s in chosen]
        times = {name: Median(t, 0.0) for name, t in zip(functions, sizes, strict=True)}
        ratios = {name: time for name, time in times.items() if name != "stapes"}
        return Run(times, ratios, 1.0, 0.0)

    monkeypatch.setattr(scaling, "interleave", interleaved)
    monkeypatch.setattr(scaling, "_step", lambda setting: None)
    points, _ = scaling.measure(chosen, 0)
    assert [p.linear for p in points] == pytest.approx([1.0] * len(chosen))
    assert {p.seconds for p in points} > {1.0, 0.5, 4.0}


def test_scaling_from_the_command_line(tmp_path):
    work = ["--network", "seed_64x64x1", "--batch", "2", "--seconds", "0", "--json"]
    done = command(tmp_path, "bench", "scaling", *work)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    points = told["points"]
    assert told["network"] == "seed_64x64x1"
    assert told["disturbed"] in (True, False)
    assert [p["axis"] for p in points].count("batch") == len(scaling.BATCHES)
    assert all(p["seconds"] > 0 and p["linear"] > 0 for p in points)
