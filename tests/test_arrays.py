"""What every operator owes the arrays it is given: layout, dtype, overlap, ``out=``."""

from __future__ import annotations

import numpy as np
import pytest

import reference
import stapes.ops
from calls import calls
from devices import poisoned, same_bits

# Which kernel is chosen makes no difference here.
NOTES = ("", "training", "evaluation", "ids", "probabilities")
CALLS = [call for call in calls(np.float32) if call.note in NOTES]
IDS = list(map(str, CALLS))
OPAQUE = {"cross_entropy_bwd"}  # its argument is not an array of the caller's

every_call = pytest.mark.parametrize("call", CALLS, ids=IDS)
calls_with_out = pytest.mark.parametrize(
    "call", [c for c in CALLS if not c.op.endswith("_step")], ids=str
)


def arrays_of(args, floating=False):
    """(position, place in the list or None, array) of all arrays among the arguments."""
    for i, a in enumerate(args):
        items = enumerate(a) if isinstance(a, list) else [(None, a)]
        for j, x in items:
            if isinstance(x, np.ndarray) and (not floating or x.dtype.kind == "f"):
                yield i, j, x


def replaced(args, i, j, x):
    args = [list(a) if isinstance(a, list) else a for a in args]
    if j is None:
        args[i] = x
    else:
        args[i][j] = x
    return args


def strided(x):
    """The same values, every second element of a longer row."""
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), 77, x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def results_like(call):
    """Arrays like the results, and how out= is built of them."""
    if call.op == "cross_entropy_fwd":
        (loss,) = call.results(stapes.ops)
        return [loss], lambda y: (y, None)
    result = call(stapes.ops)
    if not call.gives_tuple:
        return [result], lambda y: y
    return list(result), lambda *ys: ys


def test_every_operator_is_here():
    assert {call.op for call in CALLS} == set(reference.OPERATORS)
    assert set(reference.OPERATORS) <= set(stapes.ops.__all__)


@every_call
def test_non_contiguous_inputs(call):
    """Read as they are; what would be updated in place is refused, a copy would lose the update."""
    expected = call.results(stapes.ops)
    for i, j, x in arrays_of(call.arguments(stapes.ops)):
        layouts = [strided(x), x[::-1].copy()[::-1]]
        if x.ndim > 1:
            layouts.append(np.asfortranarray(x))
        for view in layouts:
            if view.flags.c_contiguous:
                continue
            args = replaced(call.arguments(stapes.ops), i, j, view)
            if i in call.updated:
                with pytest.raises(ValueError, match=rf"(?s){call.op}.*contiguous"):
                    call(stapes.ops, args)
                continue
            for got, want in zip(call.results(stapes.ops, args), expected, strict=True):
                assert same_bits(got, want), f"argument {i} misread"


@every_call
def test_unaligned_inputs(call):
    expected = call.results(stapes.ops)
    for i, j, x in arrays_of(call.arguments(stapes.ops)):
        if i in call.updated or x.itemsize == 1:
            continue
        raw = np.zeros(x.nbytes + 1, np.uint8)
        view = raw[1:].view(x.dtype).reshape(x.shape)
        view[...] = x
        args = replaced(call.arguments(stapes.ops), i, j, view)
        for got, want in zip(call.results(stapes.ops, args), expected, strict=True):
            assert same_bits(got, want)


@every_call
def test_read_only_inputs(call):
    expected = call.results(stapes.ops)
    for i, j, x in arrays_of(call.arguments(stapes.ops)):
        x.flags.writeable = False
        args = replaced(call.arguments(stapes.ops), i, j, x)
        if i in call.updated:
            with pytest.raises(ValueError, match=call.op):
                call(stapes.ops, args)
            continue
        for got, want in zip(call.results(stapes.ops, args), expected, strict=True):
            assert same_bits(got, want)


@every_call
def test_torch_tensors(call):
    torch = pytest.importorskip("torch")
    expected = call.results(stapes.ops)
    for i, j, x in arrays_of(call.arguments(stapes.ops)):
        if i in call.updated:
            continue
        tensor = torch.from_numpy(x)
        args = replaced(call.arguments(stapes.ops), i, j, tensor)
        got = call.results(stapes.ops, args)
        assert all(isinstance(y, np.ndarray) for y in got)
        for a, b in zip(got, expected, strict=True):
            assert same_bits(a, b)


def test_torch_tensors_that_cannot_be_read():
    torch = pytest.importorskip("torch")
    for tensor in (
        torch.zeros(2, 3, requires_grad=True),
        torch.zeros(2, 3, dtype=torch.bfloat16),
        torch.zeros(2, 3).to_sparse(),
        torch.zeros(2, 3, device="meta"),
    ):
        with pytest.raises(TypeError, match=r"relu_fwd: x \(Tensor\) cannot be read by DLPack: \w"):
            stapes.ops.relu_fwd(tensor)


@every_call
def test_wrong_dtype_of_one_input(call):
    """One in which the CPU does not compute, or other than that of the rest."""
    arrays = list(arrays_of(call.arguments(stapes.ops), floating=True))
    if call.op == "cross_entropy_fwd":
        arrays = arrays[:1]  # probabilities are of any real dtype
    wrong = ["float16", "int32", "uint8", "complex64", "bool", ">f4", "O", "U8"]
    if len(arrays) > 1 and call.op != "log_mel":  # whose samples may be wider than the rest
        wrong.append("float64")
    for i, j, x in arrays:
        for other in wrong:
            args = replaced(call.arguments(stapes.ops), i, j, x.astype(other))
            with pytest.raises(TypeError) as error:
                call(stapes.ops, args)
            assert call.op in str(error.value)


@every_call
def test_not_an_array(call):
    for i, j, x in arrays_of(call.arguments(stapes.ops)):
        for wrong in (x.tolist(), "audio", 3.5, object()):
            with pytest.raises(TypeError) as error:
                call(stapes.ops, replaced(call.arguments(stapes.ops), i, j, wrong))
            assert call.op in str(error.value)


@calls_with_out
def test_out_is_returned_and_overwritten(call):
    like, build = results_like(call)
    given = [None if y is None else poisoned(y.shape, y.dtype)[0] for y in like]
    back = call(stapes.ops, out=build(*given))
    back = back if call.gives_tuple else (back,)
    for got, out, want in zip(back, given, like, strict=call.op != "cross_entropy_fwd"):
        assert got is out
        assert got is None or same_bits(got, want)


@pytest.mark.parametrize("call", [c for c in CALLS if c.gives_tuple], ids=str)
def test_out_entries_that_are_none_are_allocated(call):
    like, build = results_like(call)
    for i, y in enumerate(like):
        given = [None] * len(like)
        given[i] = poisoned(y.shape, y.dtype)[0]
        back = call(stapes.ops, out=build(*given))
        assert back[i] is given[i]
        for got, want in zip(back, like, strict=call.op != "cross_entropy_fwd"):
            assert same_bits(got, want)


@calls_with_out
def test_bad_out(call):
    like, build = results_like(call)
    for i, y in enumerate(like):

        def refused(error, bad, i=i):
            given = [None] * len(like)
            given[i] = bad
            with pytest.raises(error) as raised:
                call(stapes.ops, out=build(*given))
            assert call.op in str(raised.value)

        read_only = np.zeros_like(y)
        read_only.flags.writeable = False
        refused(ValueError, read_only)
        refused(ValueError, np.zeros((*y.shape, 1), y.dtype))
        if y.size > 1:
            refused(ValueError, np.zeros(y.size + 1, y.dtype))
            refused(ValueError, strided(y))
            refused(ValueError, np.zeros((*y.shape[:-1], y.shape[-1] + 1), y.dtype))
        for other in ("float64", "float16", "int64", "int8", ">f4"):
            refused(TypeError, np.zeros(y.shape, other))
        refused(TypeError, y.tolist())


@pytest.mark.parametrize("call", [c for c in CALLS if c.gives_tuple], ids=str)
def test_out_that_is_no_tuple_of_the_right_length(call):
    like, _ = results_like(call)
    y = like[0]
    with pytest.raises(TypeError, match=call.op):
        call(stapes.ops, out=np.zeros_like(y))
    with pytest.raises(ValueError, match=call.op):
        call(stapes.ops, out=(np.zeros_like(y),))


def overlapping(x, y):
    """``x`` again and an array like ``y`` that share some bytes, but do not begin together."""
    shift = max(x.itemsize, y.itemsize)
    raw = np.zeros(shift + max(x.nbytes, y.nbytes), np.uint8)
    first = raw[: x.nbytes].view(x.dtype).reshape(x.shape)
    first[...] = x
    return first, raw[shift : shift + y.nbytes].view(y.dtype).reshape(y.shape)


def beginning_together(x, y):
    raw = np.zeros(max(x.nbytes, y.nbytes), np.uint8)
    first = raw[: x.nbytes].view(x.dtype).reshape(x.shape)
    first[...] = x
    return first, raw[: y.nbytes].view(y.dtype).reshape(y.shape)


@pytest.mark.parametrize(
    "call", [c for c in CALLS if not c.op.endswith("_step") and c.op not in OPAQUE], ids=str
)
def test_out_that_overlaps_an_input(call):
    like, build = results_like(call)
    for i, j, x in arrays_of(call.arguments(stapes.ops)):
        for place, y in enumerate(like):
            same = x.shape == y.shape and x.dtype == y.dtype
            ways = [overlapping] if x.nbytes > max(x.itemsize, y.itemsize) else []
            if not (same and i in call.in_place):
                ways.append(beginning_together)
            for share in ways:
                shared, out = share(x, y)
                given = [None] * len(like)
                given[place] = out
                with pytest.raises(ValueError) as error:
                    call(
                        stapes.ops,
                        replaced(call.arguments(stapes.ops), i, j, shared),
                        out=build(*given),
                    )
                assert call.op in str(error.value)
                assert "overlap" in str(error.value)


@pytest.mark.parametrize("call", [c for c in CALLS if c.in_place], ids=str)
def test_in_place_where_allowed(call):
    (want,) = call.results(stapes.ops)
    for i in call.in_place:
        args = call.arguments(stapes.ops)
        assert call(stapes.ops, args, out=args[i]) is args[i]
        assert same_bits(args[i], want)


@pytest.mark.parametrize("call", [c for c in CALLS if c.gives_tuple], ids=str)
def test_outs_that_overlap_each_other(call):
    like, build = results_like(call)
    for i in range(1, len(like)):
        first, second = beginning_together(like[0], like[i])
        given = [None] * len(like)
        given[0], given[i] = first, second
        with pytest.raises(ValueError, match=call.op):
            call(stapes.ops, out=build(*given))


@pytest.mark.parametrize("call", [c for c in CALLS if c.updated], ids=str)
def test_updated_arrays_that_overlap(call):
    """The same array twice would be updated twice, or be read half updated."""
    args = call.arguments(stapes.ops)
    for i in call.updated:
        for j in range(len(args)):
            pair = args[i], args[j]
            if j == i or not all(isinstance(a, list | np.ndarray) for a in pair):
                continue
            if isinstance(pair[1], np.ndarray) and pair[0].shape != pair[1].shape:
                continue
            fresh = call.arguments(stapes.ops)
            fresh[i] = fresh[j]
            with pytest.raises(ValueError, match=call.op):
                call(stapes.ops, fresh)


def test_empty_arrays_overlap_nothing():
    x = np.ones((4, 3), np.float32)
    y = stapes.ops.linear_fwd(x[2:2], np.ones((5, 3), np.float32), out=np.empty((0, 5), np.float32))
    assert y.shape == (0, 5)
    inside = x.reshape(-1)[5:5].reshape(0, 3)
    assert stapes.ops.linear_dgrad(np.empty((0, 4), np.float32), x, out=inside) is inside
