"""The scorer: equal to the definition at every shape, and an order that ties cannot upset."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inttower.errors import SpecError
from inttower.publish import scorer
from inttower.publish.scorer import fe_scores, top_k

Floats = npt.NDArray[np.float32]


def naive(user: Floats, items: Floats, weights: Floats) -> npt.NDArray[np.float64]:
    """The definition, term by term, in double precision."""
    layers, heads, size = user.shape
    v = items.astype(np.float64).reshape(len(items), heads, size)
    total = np.zeros(len(items))
    for i in range(layers):
        for a in range(heads):
            total += weights[i] * (v @ user[i, a].astype(np.float64)).max(axis=1)
    return total


def draw(seed: int, layers: int, heads: int, size: int, n: int) -> tuple[Floats, Floats, Floats]:
    random = np.random.default_rng(seed)
    return (
        random.standard_normal((layers, heads, size), np.float32),
        random.standard_normal((n, heads * size), np.float32),
        random.standard_normal(layers, np.float32),
    )


# numbers of all items together: what the definition in double precision can hold and bear
MOST_NUMBERS = 4_000_000


@st.composite
def shapes_of_any_size(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """A seed, user layers 1 to 4, heads 1 to 32, p 1 to 128, and 0 to 100,000 items."""
    seed, layers = draw(st.integers(0, 2**32)), draw(st.integers(1, 4))
    heads, size = draw(st.integers(1, 32)), draw(st.integers(1, 128))
    most = min(100_000, MOST_NUMBERS // (heads * size))
    # few and many alike: evenly drawn, most would be large
    items = draw(st.one_of(st.integers(0, 300), st.integers(0, most), st.just(most)))
    return seed, layers, heads, size, items


shapes = shapes_of_any_size()


def tolerance(heads: int, size: int) -> float:
    return 2e-5 * heads * math.sqrt(size) + 1e-5


@given(shape=shapes, block_rows=st.sampled_from([1, 7, 64, 4096]))
@settings(max_examples=150, deadline=None)
def test_equals_the_definition(shape: tuple[int, int, int, int, int], block_rows: int) -> None:
    user, items, weights = draw(*shape)
    want = naive(user, items, weights)
    got = fe_scores(user, items, weights, block_rows=block_rows)
    tensors = [torch.from_numpy(x) for x in (user, items, weights)]
    got_torch = fe_scores(*tensors, block_rows=block_rows)
    assert got.dtype == np.float32
    assert got_torch.dtype == torch.float32
    assert got.shape == tuple(got_torch.shape) == (shape[-1],)
    atol = tolerance(*shape[2:4])
    np.testing.assert_allclose(got, want, atol=atol, rtol=1e-5)
    np.testing.assert_allclose(got_torch.numpy(), want, atol=atol, rtol=1e-5)


@pytest.mark.parametrize(
    ("layers", "heads", "size", "n"),
    [(3, 4, 16, 100_000), (3, 4, 64, 100_000), (4, 32, 128, 5_000)],
)
def test_equals_the_definition_on_many_items(layers: int, heads: int, size: int, n: int) -> None:
    user, items, weights = draw(7, layers, heads, size, n)
    want = naive(user, items, weights)
    atol = tolerance(heads, size)
    np.testing.assert_allclose(fe_scores(user, items, weights), want, atol=atol, rtol=1e-5)
    got = fe_scores(*(torch.from_numpy(x) for x in (user, items, weights)))
    np.testing.assert_allclose(got.numpy(), want, atol=atol, rtol=1e-5)


@given(shape=shapes)
@settings(max_examples=60, deadline=None)
def test_half_precision_items_lose_only_their_own_rounding(
    shape: tuple[int, int, int, int, int],
) -> None:
    user, items, weights = draw(*shape)
    rounded = torch.from_numpy(items).bfloat16()
    want = naive(user, rounded.float().numpy(), weights)
    got = fe_scores(torch.from_numpy(user), rounded, torch.from_numpy(weights))
    np.testing.assert_allclose(got.numpy(), want, atol=tolerance(*shape[2:4]), rtol=1e-5)


@given(shape=shapes)
@settings(max_examples=60, deadline=None)
def test_the_path_for_accelerators_agrees(shape: tuple[int, int, int, int, int]) -> None:
    user, items, weights = draw(*shape)
    _, layers, heads, size, _ = shape
    got = scorer.scores_device(
        torch.from_numpy(user).reshape(layers * heads, size),
        torch.from_numpy(items),
        torch.from_numpy(weights).repeat_interleave(heads),
        heads,
        rows=1,
    )
    want = naive(user, items, weights)
    np.testing.assert_allclose(got.numpy(), want, atol=tolerance(heads, size), rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_agrees_with_the_cpu(dtype: torch.dtype) -> None:
    user, items, weights = (torch.from_numpy(x) for x in draw(3, 3, 4, 64, 50_000))
    got = fe_scores(user, items.to("cuda", dtype), weights)
    want = fe_scores(user, items.to(dtype), weights)
    assert got.device.type == "cuda"
    atol = 1e-3 if dtype == torch.float32 else 0.6  # bf16 rounds each of 12 products of size ~20
    torch.testing.assert_close(got.cpu(), want, atol=atol, rtol=1e-3)


def test_items_may_be_columns_of_a_wider_matrix_and_read_only() -> None:
    user, items, weights = draw(1, 3, 4, 16, 3_000)
    wide = np.concatenate([np.ones((3_000, 35), np.float32), items], axis=1)
    wide.flags.writeable = False
    want = fe_scores(user, items, weights)
    np.testing.assert_array_equal(fe_scores(user, wide[:, 35:], weights), want)


def test_flat_user_heads_need_weights_to_tell_the_layers() -> None:
    user, items, weights = draw(2, 3, 4, 8, 50)
    np.testing.assert_array_equal(
        fe_scores(user.reshape(12, 8), items, weights), fe_scores(user, items, weights)
    )


def test_a_negative_weight_is_applied_after_the_maximum() -> None:
    user = np.ones((1, 2, 1), np.float32)
    items = np.array([[1.0, 3.0]], np.float32)
    assert fe_scores(user, items, np.array([-1.0], np.float32)).tolist() == [-6.0]


@pytest.mark.parametrize(
    ("user", "items", "weights", "says"),
    [
        ((2, 4, 8), (5, 31), (2,), r"item heads of shape \(5, 31\).*\[N, 32\]"),
        ((2, 4, 8), (5, 32), (3,), r"layer weights of shape \(3,\).*\[2\]"),
        ((7, 8), (5, 32), (2,), r"user heads of shape \(7, 8\)"),
        ((8,), (5, 8), (1,), r"user heads of shape \(8,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(
    user: tuple[int, ...], items: tuple[int, ...], weights: tuple[int, ...], says: str
) -> None:
    with pytest.raises(SpecError, match=says):
        fe_scores(*(np.zeros(shape, np.float32) for shape in (user, items, weights)))


few_values = hnp.arrays(
    np.float32, st.integers(0, 200), elements=st.sampled_from([-1.5, -0.0, 0.0, 0.5, 2.0, -np.inf])
)


@given(scores=few_values, k=st.integers(0, 250))
@settings(max_examples=300, deadline=None)
def test_top_k_is_the_head_of_a_stable_sort(scores: Floats, k: int) -> None:
    want = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    index, values = top_k(scores, k)
    assert index.tolist() == want
    np.testing.assert_array_equal(values, scores[want])
    index_torch, _ = top_k(torch.from_numpy(scores), k)
    assert index_torch.tolist() == want


def test_top_k_refuses_what_has_no_order() -> None:
    with pytest.raises(SpecError, match="NaN"):
        top_k(np.array([1.0, np.nan], np.float32), 1)
    with pytest.raises(SpecError, match="k must be"):
        top_k(np.zeros(3, np.float32), -1)
