"""An embedding model made ready to be trained, and the finished folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth.records.errors import InputError, WorkError
from trainers.contrastive_options import ContrastiveOptions
from trainers.core import model as models
from trainers.embedding.encoder import INSTRUCT, Encoder, open_model, package
from trainers.embedding.rows import Pairs
from trainers.embedding.tokens import Tokens
from trainers.loop import RECORD, TrainResult

if TYPE_CHECKING:
    import torch

    from trainers.embedding.token_bag import TokenBag

# The reopened tokenizer is compared on these, and on one longer than its limit, with the one that was trained with.
PROBES = ("", "a", "def f(x):\n    return x", "Grüße, 世界")


def check_embedder(path: str, options: ContrastiveOptions, **hub: Any) -> None:
    """Raise InputError for dimensions or layers that the embedding model of the folder `path` does not have, as its
    training would; its weights are not read. hub: `trust_remote_code`."""
    import torch
    from transformers import AutoModel

    config = models.open_config(path, **hub)
    if options.matryoshka:
        _check_sizes(options.matryoshka, _dimensions(Path(path), config))
    if options.lora is not None:
        with models.reading(f"model {path}", "give a model that transformers knows"), torch.device("meta"):
            shape = AutoModel.from_config(config, **hub)
        models.add_adapter(shape, options.lora, "FEATURE_EXTRACTION")


def _dimensions(folder: Path, config: Any) -> int:
    """Length of the vectors as the folder's files tell it."""
    package()
    from sentence_transformers.sentence_transformer.modules import Pooling

    size = config.get_text_config().hidden_size
    layout = folder / "modules.json"
    with models.reading(str(layout), "mend the model's layout"):
        for module in json.loads(layout.read_text("utf-8")) if layout.exists() else ():
            place = folder / module["path"] / "config.json"
            if module["type"].endswith(".Pooling"):
                size = Pooling.load(str(place.parent)).get_embedding_dimension()
            elif module["type"].endswith(".Dense"):
                size = json.loads(place.read_text("utf-8"))["out_features"]
    return size


def _check_sizes(sizes: Sequence[int], most: int) -> None:
    for wanted in sizes:
        if wanted > most:
            raise InputError("train.matryoshka", f"{wanted} of {most} dimensions", "use smaller ones")


def open_for_training(
    path: str, options: ContrastiveOptions, compute: torch.dtype, pairs: Pairs, **hub: Any
) -> tuple[Any, Tokens, str]:
    """The model with float32 master weights, an adapter if asked for, and unit vectors; its tokenisation; the type
    that its weights are stored in.

    Only the frozen base under an adapter stays as it is stored, where that is also computed in. Prompts are set so
    that whoever encodes with the saved model reads what was trained.
    """
    import torch
    from sentence_transformers.sentence_transformer.modules import Normalize

    model, tokens = open_model(path, options, "auto", **hub)
    stored = next(model.parameters()).dtype
    if options.lora is None or compute != torch.bfloat16 or stored != compute:
        model.float()
    _check_sizes(options.matryoshka, model.get_embedding_dimension())
    if not any(isinstance(module, Normalize) for module in model):
        model.append(Normalize())
    instructions = pairs.instructions()
    if len(instructions) == 1 and "" not in instructions:
        # Every query was read with it: it is what a query without an instruction of its own means.
        (instruction,) = instructions
        model.prompts["query"] = model.prompts[INSTRUCT].replace("{instruction}", instruction)
    first = model[0]
    pooler = getattr(first.model, "pooler", None)
    if pooler is not None:
        pooler.requires_grad_(False)  # it takes no part in the vectors
    if options.gradient_checkpointing:
        # The non-reentrant form replays dropout and lets gradients reach adapters below frozen embeddings.
        first.model.gradient_checkpointing_enable({"use_reentrant": False})
    if options.lora is not None:
        first.model = models.add_adapter(first.model, options.lora, "FEATURE_EXTRACTION")
    return model, tokens, str(stored).removeprefix("torch.")


def write_embedder(
    result: TrainResult,
    encoder: Encoder,
    dtype: str,
    fingerprint: str,
    sections: Sequence[str],
    hub_name: str | None = None,
    bag: TokenBag | None = None,
) -> None:
    """Write the folder `result.path` so that it appears whole or not at all; sentence-transformers opens it.

    sections: lines for the end of sentence-transformers' model card. hub_name: of the start model, if it has one.
    bag: what `open_encoder` appends.

    The adapter is merged; the model is used up. Raises WorkError if the written tokenizer reads texts otherwise
    than the one that was trained with.
    """
    import torch

    from trainers.embedding.token_bag import FOLDER

    out, model = result.path, encoder.model
    # The same name every time, so that the next try clears away what a killed one left.
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    first = model[0]
    first.model = models.merged(first.model)
    model.to("cpu").to(getattr(torch, dtype))
    config = first.model.config
    config.dtype = getattr(torch, dtype)
    if hasattr(config, FOLDER):  # of the start model: it went with the transformer as it was
        delattr(config, FOLDER)
    if bag is not None:
        setattr(config, FOLDER, {"weight": bag.weight})
    # What the tokenizer was last asked to cut at is no part of it.
    encoder.tokens.forget_calls()
    model.model_card_data.model_name = out.name
    model.model_card_data.base_model = hub_name
    model.model_card_data.add_tags(["generated_from_trainer", "synthloop", "contrastive"])
    model.save_pretrained(str(temporary))
    if bag is not None:
        bag.to(getattr(torch, dtype)).write(temporary)
    header = {"fingerprint": fingerprint, "stopped_early": result.stopped_early}
    record = "".join(json.dumps(line) + "\n" for line in (header, *result.logs))
    (temporary / RECORD).write_text(record, encoding="utf-8", newline="\n")
    with (temporary / "README.md").open("a", encoding="utf-8", newline="\n") as file:
        file.write("\n".join(["", *sections]) + "\n")
    _check_tokenizer(str(temporary), encoder.tokens)
    models.publish(temporary, out)


def _check_tokenizer(folder: str, tokens: Tokens) -> None:
    from transformers import AutoTokenizer

    again = Tokens(AutoTokenizer.from_pretrained(folder), tokens.end_id)
    probes = [*PROBES, "word " * min(tokens.tokenizer.model_max_length, 10_000)]
    for text, before, after in zip(probes, tokens.ids(probes), again.ids(probes), strict=True):
        if before.tolist() != after.tolist():
            raise WorkError(
                "the written tokenizer", f"reads {text[:30]!r} otherwise than the one trained with",
                "report this with the model's name",
            )  # fmt: skip
