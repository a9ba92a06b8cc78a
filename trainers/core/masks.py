"""Text rows as tokens and the mask of those to learn.

A prompt's tokens come out as the engine sees them: the same beginning-of-sequence token (never two), the same
generation prompt of the chat template. The end-of-sequence token of a completion is always learnt, also where the
tokenizer pads with it, because masks are made from positions and never from token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from synth.records.jsonl import repair_text


def encode(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text with the tokenizer's beginning-of-sequence token, unless the text already spells it."""
    ids = _plain(tokenizer, text)
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:1] != [bos] and list(tokenizer("")["input_ids"])[:1] == [bos]:
        return [bos, *ids]
    return ids


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def join(tokenizer: Any, prompt: str, completion: str) -> tuple[list[int], int]:
    """Tokens of prompt + completion and how many of them are the prompt's.

    The prompt keeps the tokens it has alone, which are what the engine continued. Where a merge would cross the
    border, the completion is tokenised apart.
    """
    head = encode(tokenizer, prompt)
    whole = encode(tokenizer, prompt + completion)
    if whole[: len(head)] == head:
        return whole, len(head)
    return head + _plain(tokenizer, completion), len(head)


def prompt_completion(tokenizer: Any, prompt: str, completion: str) -> tuple[list[int], list[int]]:
    """token_ids and loss_mask of a plain row: completion and end-of-sequence token are learnt."""
    ids, border = join(tokenizer, repair_text(prompt)[0], repair_text(completion)[0])
    eos = tokenizer.eos_token_id
    if eos is not None and (len(ids) == border or ids[-1] != eos):
        ids.append(eos)
    return ids, [0] * border + [1] * (len(ids) - border)


def conversation(tokenizer: Any, messages: Sequence[dict[str, Any]]) -> tuple[list[int], list[int]] | None:
    """token_ids and loss_mask of a chat: every assistant turn with its end token is learnt.

    Each turn is what the template adds to its own generation prompt. A template that rewrites earlier turns (strips
    their reasoning) leaves only the last turn trainable, as it is the only one the model would produce that way.
    None if not even that turn continues its generation prompt.
    """
    messages = [{**m, "content": repair_text(m["content"])[0]} for m in messages]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    spans: list[tuple[int, int]] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        head = tokenizer.apply_chat_template(messages[:index], tokenize=False, add_generation_prompt=True)
        turn = tokenizer.apply_chat_template(messages[: index + 1], tokenize=False)
        if whole.startswith(turn) and turn.startswith(head):
            spans.append((len(head), len(turn)))
    if not spans or (messages[-1]["role"] == "assistant" and spans[-1][1] != len(whole)):
        return None
    ids: list[int] = []
    mask: list[int] = []
    done = 0
    for start, end in spans:
        for text, trained in ((whole[done:start], 0), (whole[start:end], 1)):
            start_of_text = not ids and not trained
            piece = encode(tokenizer, text) if start_of_text else _plain(tokenizer, text)
            ids += piece
            mask += [trained] * len(piece)
        done = end
    eos = tokenizer.eos_token_id
    if eos is not None and done == len(whole) and eos not in ids[-2:]:
        # Neither `<eos>` nor `<eos>\n` closes the last turn: without it the model would never learn to stop.
        ids.append(eos)
        mask.append(1)
    return ids, mask
