"""The loss of contrastive tuning and its gradient: closed forms, peers, and what may not change them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_embedders
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")

from torch.nn.functional import normalize  # noqa: E402

from trainers import contrastive  # noqa: E402
from trainers.contrastive_options import ContrastiveOptions  # noqa: E402
from trainers.core.batching import partition  # noqa: E402
from trainers.embedding.encoder import Encoder, open_model  # noqa: E402
from trainers.embedding.model import open_for_training  # noqa: E402
from trainers.embedding.rows import read_pairs  # noqa: E402
from trainers.embedding.steps import Guide, Step, Steps  # noqa: E402


class Plain:
    """Stands for an encoder where only the bookkeeping of texts is looked at."""

    class tokens:
        tokenizer = SimpleNamespace(model_max_length=10**30)

        @staticmethod
        def ids(texts: Sequence[str], most: int | None = None) -> list[list[str]]:
            return [text.split()[:most] for text in texts]

    @staticmethod
    def text(text: str, _role: str = "", instruction: str = "") -> str:
        return f"{instruction} {text}".strip()


def made(rows: list[dict[str, Any]], hard_negatives: int = 9) -> Step:
    """The step of all rows."""
    pairs = read_pairs(rows, hard_negatives)
    return Steps(pairs, Plain())(range(len(pairs.rows)))  # type: ignore[arg-type]


def vectors(step: Step, seed: int = 0, size: int = 8) -> Any:
    """Random unit vectors of a step's texts, float64."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(len(step.texts), size, generator=generator, dtype=torch.float64)
    return normalize(raw, dim=-1)


def by_hand(step: Step, units: Any, options: ContrastiveOptions, allowed: Any = None) -> float:
    """The loss, one row and one candidate at a time. allowed(row, text number): whether it is a candidate."""
    queries, total = len(step.answers), 0.0
    for row in range(len(step.query)):
        query, own = int(step.query[row]), queries + int(step.positive[row])
        terms = []
        for text in range(queries, len(units)):
            if text == own or allowed is None or allowed(row, text):
                terms.append(math.exp(float(units[query] @ units[text]) / options.temperature))
        total -= math.log(math.exp(float(units[query] @ units[own]) / options.temperature) / sum(terms))
    return total / len(step.query)


ONE = ContrastiveOptions(temperature=0.3)
ROWS = [
    {"query": "q0", "positive": "d0", "negatives": ["n0", "n1"]},
    {"query": "q1", "positive": "d1", "negatives": ["n2"]},
    {"query": "q2", "positive": "d2"},
]


def test_closed_form_of_two_pairs() -> None:
    step = made([{"query": "q0", "positive": "d0"}, {"query": "q1", "positive": "d1"}])
    units = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    loss, gradient = contrastive.loss_and_gradient(units, step, None, ONE)
    p = 1 / (1 + math.exp(1 / 0.3))  # share of the wrong document
    assert float(loss) == pytest.approx(-math.log(1 - p), rel=1e-12)
    # d loss / d q0 = (p * (d1 - d0)) / temperature / 2 rows
    expected = p * (units[3] - units[2]) / 0.3 / 2
    torch.testing.assert_close(gradient[0], expected)


def test_one_matrix_of_positives_and_all_negatives() -> None:
    step = made(ROWS)
    units = vectors(step)
    loss, _ = contrastive.loss_and_gradient(units, step, None, ONE)
    assert step.answers.shape == (3, 6)
    assert float(loss) == pytest.approx(by_hand(step, units, ONE), rel=1e-12)


def test_gradient_is_that_of_the_loss() -> None:
    step = made([*ROWS, {"query": "q0", "positive": "d1"}])
    options = ContrastiveOptions(
        temperature=0.3, symmetric=True, matryoshka=[3, 8], matryoshka_weights=[2.0, 1.0]
    )
    units = vectors(step)
    cosines = vectors(step, 1)[:3] @ vectors(step, 1)[3:].T
    _, gradient = contrastive.loss_and_gradient(units, step, cosines, options)
    for text, size in ((0, 0), (2, 5), (3, 1), (8, 7)):
        moved = []
        for sign in (1, -1):
            other = units.clone()
            other[text, size] += sign * 1e-6
            moved.append(float(contrastive.loss_and_gradient(other, step, cosines, options)[0]))
        assert float(gradient[text, size]) == pytest.approx((moved[0] - moved[1]) / 2e-6, rel=1e-4, abs=1e-7)


def test_same_as_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradient of sentence-transformers' loss where it computes the same; blocks of rows change nothing."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    step = made([{**row, "negatives": [f"n{i}"]} for i, row in enumerate(ROWS)])
    units = vectors(step)
    queries, positives = units[:3], units[3:][step.positive]
    negatives = units[3:][[1, 3, 5]]
    for symmetric in (False, True):
        parts = [part.clone().requires_grad_() for part in (queries, positives, negatives)]
        directions: Any = ("query_to_doc", "doc_to_query") if symmetric else ("query_to_doc",)
        peer = MultipleNegativesRankingLoss(
            torch.nn.Identity(), scale=1 / 0.3, directions=directions, partition_mode="per_direction"
        )  # type: ignore[arg-type]
        expected = peer.compute_loss_from_embeddings(parts, torch.tensor([]))
        expected.backward()
        for scores in (2**24, 7):
            monkeypatch.setattr(contrastive, "SCORES", scores)
            options = ContrastiveOptions(temperature=0.3, symmetric=symmetric)
            loss, gradient = contrastive.loss_and_gradient(units, step, None, options)
            torch.testing.assert_close(loss, expected.detach())
            # The peer normalises inside its loss, which takes what points along a vector out of its gradient.
            across = gradient - (gradient * units).sum(-1, keepdim=True) * units
            torch.testing.assert_close(across[:3], parts[0].grad)
            torch.testing.assert_close(across[3:][step.positive], parts[1].grad)


def test_lower_temperature_sharpens() -> None:
    step = made(ROWS)
    losses = [
        float(contrastive.loss_and_gradient(vectors(step), step, None, ContrastiveOptions(temperature=t))[0])
        for t in (0.02, 1.0)
    ]
    assert losses[0] > losses[1]


# --- what is no negative -------------------------------------------------------------------------------------------


def test_two_copies_of_a_positive_never_push_each_other_apart() -> None:
    step = made([{"query": "q0", "positive": "same"}, {"query": "q1", "positive": " same\n"}])
    units = vectors(step)
    loss, gradient = contrastive.loss_and_gradient(units, step, None, ONE)
    assert float(loss) == 0.0
    assert not gradient.any()


def test_a_mined_copy_of_the_positive_is_no_negative() -> None:
    alone = made([{"query": "q0", "positive": "d0"}, {"query": "q1", "positive": "d1"}])
    copied = made(
        [{"query": "q0", "positive": "d0"}, {"query": "q1", "positive": "d1", "negatives": [" d1 ", "d1"]}]
    )
    units = vectors(alone)
    results = [contrastive.loss_and_gradient(units, step, None, ONE) for step in (alone, copied)]
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_another_positive_of_the_query_is_no_negative() -> None:
    """Also where the row that says so is in no step with it."""
    rows = [
        {"query": "q0", "positive": "d0"},
        {"query": "q1", "positive": "d1", "negatives": ["d2"]},
        {"query": " q0", "positive": "d2"},
    ]
    pairs = read_pairs(rows, 9)
    step = Steps(pairs, Plain())([0, 1])  # type: ignore[arg-type]
    units = vectors(step)
    texts = [" ".join(map(str, text)) for text in step.texts]
    assert texts == ["q0", "q1", "d0", "d1", "d2"]
    expected = by_hand(step, units, ONE, lambda row, text: (row, texts[text]) != (0, "d2"))
    assert float(contrastive.loss_and_gradient(units, step, None, ONE)[0]) == pytest.approx(
        expected, rel=1e-12
    )


def test_texts_that_are_the_same_once_cut_are_no_negatives() -> None:
    rows = [
        {"query": "q w", "positive": "a b c"},
        {"query": "r", "positive": "a b d"},
        {"query": "q x", "positive": "e"},
        {"query": "q w y", "positive": "f"},
    ]
    step = Steps(read_pairs(rows, 9), Plain(), 2)(range(4))  # type: ignore[arg-type]
    assert [len(text) for text in step.texts] == [2, 1, 2, 2, 2, 2, 1, 1]
    # The first and the last query are one, the first two documents too.
    assert step.answers.int().tolist() == [[1, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0], [1, 1, 0, 1]]
    negatives = {0: {6}, 1: {6, 7}, 2: {4, 5, 7}, 3: {6}}
    units = vectors(step)
    expected = by_hand(step, units, ONE, lambda row, text: text in negatives[row])
    loss = contrastive.loss_and_gradient(units, step, None, ONE)[0]
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_another_instruction_is_another_query() -> None:
    rows = [
        {"query": "q", "positive": "d0", "instruction": "find"},
        {"query": "q", "positive": "d1", "instruction": "answer"},
    ]
    step = made(rows)
    assert len(step.answers) == 2
    assert float(contrastive.loss_and_gradient(vectors(step), step, None, ONE)[0]) > 0


def test_the_query_itself_is_no_negative() -> None:
    """Symmetric tasks: the positive of one row is the query of another."""
    step = made([{"query": "a", "positive": "b"}, {"query": "b", "positive": "c"}])
    units = vectors(step)
    expected = by_hand(step, units, ONE, lambda row, text: not (row == 1 and step.texts[text] == ["b"]))
    assert float(contrastive.loss_and_gradient(units, step, None, ONE)[0]) == pytest.approx(
        expected, rel=1e-12
    )


def test_backwards_another_query_of_the_document_is_no_negative() -> None:
    step = made([{"query": "q0", "positive": "d"}, {"query": "q1", "positive": "d"}])
    options = ContrastiveOptions(temperature=0.3, symmetric=True)
    loss, gradient = contrastive.loss_and_gradient(vectors(step), step, None, options)
    assert float(loss) == 0.0
    assert not gradient.any()


TEXTS = st.integers(0, 5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(TEXTS, TEXTS, st.lists(TEXTS, max_size=3)), min_size=1, max_size=8),
    st.booleans(),
    st.booleans(),
)
def test_no_answer_of_a_query_is_ever_pushed_away(
    texts: list[tuple[int, int, list[int]]], symmetric: bool, guided: bool
) -> None:
    rows = [
        {"query": f"q{q}", "positive": f"d{p}", "negatives": [f"d{n}" for n in negatives]}
        for q, p, negatives in texts
    ]
    step = made(rows)
    known = {(row["query"], row["positive"]) for row in rows}
    guide = vectors(step, 3)
    cosines = guide[: len(step.answers)] @ guide[len(step.answers) :].T if guided else None
    everything = torch.arange(len(step.query))
    out, back = contrastive.left_out(step, cosines, everything, 0.1)
    names = [text[0] for text in step.texts]
    queries, documents = names[: len(step.answers)], names[len(step.answers) :]
    for i, row in enumerate(rows):
        own, asked = documents.index(row["positive"]), queries.index(row["query"])
        assert not out[i, own]
        assert not back[i, asked]
        for j, document in enumerate(documents):
            good = guided and float(cosines[asked, j]) > float(cosines[asked, own]) - 0.1  # type: ignore[index]
            assert bool(out[i, j]) == (j != own and ((row["query"], document) in known or good))
        for j, query in enumerate(queries):
            good = guided and float(cosines[j, own]) > float(cosines[asked, own]) - 0.1  # type: ignore[index]
            assert bool(back[i, j]) == (j != asked and ((query, row["positive"]) in known or good))
    options = ContrastiveOptions(temperature=0.3, symmetric=symmetric)
    loss, _ = contrastive.loss_and_gradient(vectors(step), step, cosines, options)
    assert math.isfinite(float(loss))
    assert float(loss) >= 0


def test_the_guide_leaves_out_what_it_finds_as_good_as_the_positive() -> None:
    step = made([{"query": "q0", "positive": "d0", "negatives": ["n0", "n1"]}])
    cosines = torch.tensor([[0.5, 0.45, 0.6]])
    rows = torch.arange(1)
    assert contrastive.left_out(step, cosines, rows, 0.0)[0].tolist() == [[False, False, True]]
    assert contrastive.left_out(step, cosines, rows, 0.1)[0].tolist() == [[False, True, True]]
    assert contrastive.left_out(step, cosines, rows, -0.2)[0].tolist() == [[False, False, False]]


def test_matryoshka_is_the_weighted_mean_over_leading_dimensions() -> None:
    step = made(ROWS)
    units = vectors(step)
    alone = [
        float(contrastive.loss_and_gradient(normalize(units[:, :size], dim=-1), step, None, ONE)[0])
        for size in (2, 5)
    ]
    options = ContrastiveOptions(temperature=0.3, matryoshka=[2, 5], matryoshka_weights=[1.0, 3.0])
    both = float(contrastive.loss_and_gradient(units, step, None, options)[0])
    assert both == pytest.approx((alone[0] + 3 * alone[1]) / 4, rel=1e-12)


# --- the whole step with a model -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedders.encoder(tmp_path_factory.mktemp("bert") / "model", dropout=0.2)


PAIRS = tiny_embedders.pairs(9)


def gradients(
    folder: Path, budget: int, options: ContrastiveOptions, *, dropout: bool = True, guide: Path | None = None
) -> tuple[float, dict[str, Any]]:
    """Loss and gradient of one step of all PAIRS."""
    pairs = read_pairs(PAIRS, options.hard_negatives)
    model, tokens, _ = open_for_training(str(folder), options, torch.float32, pairs)
    encoder = Encoder(model, tokens, budget)
    model.train(dropout)
    other = Guide(pairs, Encoder(*open_model(str(guide), None, "auto"), 99)) if guide else None
    method = contrastive.Method(encoder, options, budget, guide=other)
    step = Steps(pairs, encoder)(range(len(pairs.rows)))
    logs = contrastive.step(model, step, method, lambda i: 100 + i)
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return float(logs["loss"]), found


def assert_same(
    left: tuple[float, dict[str, Any]], right: tuple[float, dict[str, Any]], tolerance: float
) -> None:
    assert left[0] == pytest.approx(right[0], rel=tolerance)
    assert left[1].keys() == right[1].keys() != set()
    scale = max(float(value.abs().max()) for value in left[1].values())
    for name, value in left[1].items():
        assert float((value - right[1][name]).abs().max()) <= tolerance * scale, name


@pytest.mark.parametrize(
    ("settings", "budget"),
    [
        ({}, 60),
        ({}, 5000),
        ({"symmetric": True}, 60),
        ({"matryoshka": [4, 16]}, 60),
        ({"gradient_checkpointing": True}, 60),
        ({"guide": "here"}, 60),
    ],
    ids=["plain", "one micro-batch", "symmetric", "matryoshka", "checkpointing", "guide"],
)
def test_cached_is_uncached_with_dropout_on(
    folder: Path, tmp_path: Path, settings: dict[str, Any], budget: int
) -> None:
    guide = tiny_embedders.encoder(tmp_path / "guide", seed=5) if settings.get("guide") else None
    results = [
        gradients(folder, budget, ContrastiveOptions(cache=cache, temperature=0.1, **settings), guide=guide)  # type: ignore[arg-type]
        for cache in ("off", "on")
    ]
    assert_same(*results, tolerance=1e-5)
    assert results[0][0] > 0.1
    without = gradients(folder, budget, ContrastiveOptions(cache="on", temperature=0.1), dropout=False)
    assert without[0] != pytest.approx(results[0][0], rel=1e-3), (
        "dropout was off: the comparison says nothing"
    )


def test_micro_batches_change_nothing_but_rounding(folder: Path) -> None:
    options = ContrastiveOptions(temperature=0.1)
    whole = gradients(folder, 5000, options, dropout=False)
    for budget in (1, 60, 300):
        assert_same(whole, gradients(folder, budget, options, dropout=False), tolerance=1e-4)


def test_the_guide_is_asked_once_for_each_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = read_pairs(PAIRS, 2)
    encoder = Encoder(*open_model(str(folder), None, "auto"), 500)
    asked: list[str] = []
    encode = encoder.encode

    def counted(texts: Sequence[str], role: Any) -> Any:
        asked.extend(texts)
        return encode(texts, role)

    monkeypatch.setattr(encoder, "encode", counted)
    guide, steps = Guide(pairs, encoder), Steps(pairs, encoder)
    for rows in ([0, 1, 2], [2, 1, 3], [0]):
        step = steps(rows)
        found = guide.vectors(step, range(len(step.texts)))
        assert found.shape == (len(step.texts), 16)
    assert len(asked) == len(set(asked)) == 4 * 4


@pytest.mark.parametrize(
    ("cache", "fitting", "kept"),
    [("off", 0.0, 1.0), ("on", 9.0, 0.0), ("auto", 1.0, 1.0), ("auto", 0.5, 0.5), ("auto", 0.01, 0.0)],
)
def test_a_step_keeps_the_activations_that_it_is_asked_to_or_that_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cache: Any, fitting: float, kept: float
) -> None:
    """At least those of one micro-batch; they are gone when the first of the others is embedded again."""
    seen: list[str] = []
    forward = Encoder.forward

    def watched(self: Encoder, model: Any, features: Any) -> Any:
        vectors = forward(self, model, features)
        seen.append("keep" if torch.is_grad_enabled() else "forget")
        if torch.is_grad_enabled():
            vectors.register_hook(lambda _gradient: seen.append("back"))
        return vectors

    monkeypatch.setattr(Encoder, "forward", watched)
    pairs = read_pairs(PAIRS, 2)
    model, tokens, _ = open_for_training(str(folder), ContrastiveOptions(), torch.float32, pairs)
    config, step = model[0].config, Steps(pairs, Encoder(model, tokens, 30))(range(len(pairs.rows)))
    needed = 68 * step.tokens * config.num_hidden_layers * config.hidden_size
    monkeypatch.setattr(contrastive, "KEPT_BYTES", fitting * needed)
    gradients(folder, 30, ContrastiveOptions(cache=cache, hard_negatives=2))
    count = len(partition([len(text) for text in step.texts], 30))
    first = max(1, int(kept * count))
    assert count > 3
    again = ["keep", "back"] * (count - first)
    assert seen == ["forget"] * (count - first) + ["keep"] * first + ["back"] * first + again
