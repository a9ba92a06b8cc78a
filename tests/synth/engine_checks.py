"""What every engine that samples from a model must do, whatever it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synth.engines import Output, Request, Sampling


def ask(engine: Any, *requests: Request) -> dict[str, Output]:
    engine.submit(requests)
    outputs = list(engine.outputs())
    assert len({output.id for output in outputs}) == len(outputs), "an output came twice"
    return {output.id: output for output in outputs}


def sample(engine: Any, prompt: str, count: int = 1, first_seed: int = 0, **sampling: Any) -> list[Output]:
    """`count` completions of one prompt with seeds from `first_seed`."""
    settings = Sampling(**sampling)
    requests = [
        Request(f"s{seed}", prompt, None, seed, settings) for seed in range(first_seed, first_seed + count)
    ]
    got = ask(engine, *requests)
    return [got[request.id] for request in requests]


def reference_greedy(folder: Path, ids: list[int], tokens: int) -> tuple[list[int], list[float]]:
    """Greedy continuation by plain forward passes without a cache, and the log-probs of `ids` from the second on."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    sequence, end = list(ids), model.generation_config.eos_token_id
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        scored = logprobs.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
        while len(sequence) - len(ids) < tokens:
            sequence.append(int(model(torch.tensor([sequence])).logits[0, -1].argmax()))
            if sequence[-1] == end:
                break
    return sequence[len(ids) :], scored


def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def check_greedy_matches_plain_forward_passes(engine: Any, folder: Path) -> None:
    prompts = ["What is 3 + 4?", "def add(a, b):", "The", "Answer: 7. What is the sum of two numbers? " * 2]
    settings = Sampling(temperature=0.0, max_tokens=12)
    encoded = {prompt: tokenizer(folder).encode(prompt) for prompt in prompts}
    got = ask(engine, *(Request(prompt, prompt, None, 0, settings) for prompt in prompts))
    for prompt, ids in encoded.items():
        assert got[prompt].prompt_token_ids == ids
        assert got[prompt].token_ids == reference_greedy(folder, ids, 12)[0], prompt
    given = ask(engine, *(Request(prompt, "", tuple(ids), 0, settings) for prompt, ids in encoded.items()))
    assert {prompt: output.token_ids for prompt, output in given.items()} == {
        prompt: output.token_ids for prompt, output in got.items()
    }


def check_ends(engine: Any, folder: Path) -> None:
    """Finish reasons: end of sequence (its token included), token budget, stop string, full context."""
    words = tokenizer(folder)
    outputs = sample(engine, "What is", count=200, max_tokens=40)
    ended = [output for output in outputs if output.finish_reason == "stop"]
    cut = [output for output in outputs if output.finish_reason == "length"]
    assert ended
    assert cut
    for output in ended:
        assert output.token_ids is not None
        assert output.token_ids[-1] == words.eos_token_id
        assert words.eos_token_id not in output.token_ids[:-1]
        assert "<eos>" not in output.text
    assert all(len(output.token_ids or []) == 40 for output in cut)

    plain = max(cut, key=lambda output: len(output.text))
    stop = next(
        char for char in plain.text if char.isascii() and char.isprintable() and plain.text.index(char) > 0
    )
    seed = int(plain.id[1:])
    if engine.capabilities.per_request_seed:
        [stopped] = sample(engine, "What is", 1, seed, max_tokens=40, stop=(stop,))
        assert stopped.finish_reason == "stop"
        assert stopped.text == plain.text[: plain.text.index(stop)]
        assert stopped.token_ids == (plain.token_ids or [])[: len(stopped.token_ids or [])]
    for output in sample(engine, "What is", 50, max_tokens=40, stop=(stop, "\n")):
        assert stop not in output.text

    room = engine.max_model_len
    [full] = ask(
        engine, Request("full", "", tuple([5] * (room - 2)), 0, Sampling(max_tokens=50, temperature=0.0))
    ).values()
    assert len(full.token_ids or []) <= 2
    assert full.finish_reason in ("length", "stop")


def check_rejections(engine: Any) -> None:
    room = engine.max_model_len
    settings = Sampling(max_tokens=2)
    got = ask(
        engine,
        Request("long", "", tuple([5] * room), 0, settings),
        Request("text", "word " * room, None, 0, settings),
        Request("fits", "", tuple([5] * (room - 1)), 0, settings),
        Request("foreign", "", (5, 10**6), 0, settings),
    )
    assert {name: output.finish_reason == "rejected" for name, output in got.items()} == {
        "long": True,
        "text": True,
        "fits": False,
        "foreign": True,
    }
    assert f"{room} tokens, model takes {room}" in str(got["long"].error)
    assert len(got["fits"].token_ids or []) == 1


def check_sampling_settings(engine: Any) -> None:
    greedy = sample(engine, "The sum", temperature=0.0, max_tokens=8)[0].token_ids
    assert sample(engine, "The sum", temperature=1.0, top_k=1, max_tokens=8)[0].token_ids == greedy
    assert sample(engine, "The sum", temperature=1.0, top_p=1e-6, max_tokens=8)[0].token_ids == greedy
    assert sample(engine, "The sum", temperature=1e-3, max_tokens=8)[0].token_ids == greedy
    first = [tuple(output.token_ids or ()) for output in sample(engine, "The sum", 100, max_tokens=1)]
    narrow = [
        tuple(output.token_ids or ()) for output in sample(engine, "The sum", 100, max_tokens=1, top_k=2)
    ]
    assert len(set(narrow)) <= 2 < len(set(first))


def check_seeds(engine: Any) -> None:
    once = sample(engine, "What is 3", 40, max_tokens=12)
    again = sample(engine, "What is 3", 40, max_tokens=12)
    assert [output.token_ids for output in once] == [output.token_ids for output in again]
    other = sample(engine, "What is 3", 40, first_seed=1000, max_tokens=12)
    assert {str(output.token_ids) for output in once} != {str(output.token_ids) for output in other}
    assert len({str(output.token_ids) for output in once}) > 10


def check_weights_and_logprobs(engine: Any, first: Path, second: Path) -> None:
    """Log-probs are the first model's own (1e-4), and the second's after `load_weights`; then the first's again."""
    _check_model(engine, first)
    for folder in (second, first):
        engine.load_weights(str(folder))
        _check_model(engine, folder)


def _check_model(engine: Any, folder: Path) -> None:
    sequences = [[5, 9, 200, 31, 7, 7, 12], [40], list(range(20, 90))]
    values = engine.prompt_logprobs(sequences)
    assert [len(row) for row in values] == [len(ids) - 1 for ids in sequences]
    for ids, row in zip(sequences, values, strict=True):
        expected = reference_greedy(folder, ids, 0)[1]
        assert all(abs(a - b) < 1e-4 for a, b in zip(row, expected, strict=True)), folder.name
    greedy = sample(engine, "The sum", temperature=0.0, max_tokens=8)[0].token_ids
    assert greedy == reference_greedy(folder, tokenizer(folder).encode("The sum"), 8)[0]


def check_chat(engine: Any, folder: Path) -> None:
    messages = [{"role": "user", "content": "What is 3 + 4?"}]
    [output] = ask(
        engine, Request("c", "ignored", None, 0, Sampling(max_tokens=2), messages=messages)
    ).values()
    assert tokenizer(folder).decode(output.prompt_token_ids) == "<user>What is 3 + 4?<assistant>"
