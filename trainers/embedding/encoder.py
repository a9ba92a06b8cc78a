"""An embedding model as it is trained and used: one object that owns templates, tokenisation, limit and pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from synth.records.errors import EMBEDDING_EXTRA, InputError
from synth.records.jsonl import repair_text
from trainers.contrastive_options import ContrastiveOptions
from trainers.core.batching import partition, token_budget
from trainers.core.model import reading
from trainers.core.session import quiet_bars
from trainers.embedding.tokens import NO_LIMIT, Tokens, end_with_token

if TYPE_CHECKING:
    import numpy as np
    import torch

Role = Literal["query", "document"]
# The prompt of a tuned folder that holds its template for queries with an instruction.
INSTRUCT = "instruction_template"


class Encoder:
    """Texts to unit vectors.

    model: the sentence-transformers model. tokens: its tokenisation. budget: padded tokens of one forward pass.
    """

    def __init__(self, model: Any, tokens: Tokens, budget: int) -> None:
        self.model, self.tokens, self.budget = model, tokens, budget

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return int(self.model.get_embedding_dimension())

    def text(self, text: str, role: Role = "document", instruction: str = "") -> str:
        """What the model reads: the text behind its role's prompt, lone surrogates as U+FFFD."""
        prompts: Mapping[str, str] = self.model.prompts
        if role == "query":
            if instruction.strip():
                prompt = prompts[INSTRUCT].replace("{instruction}", instruction)
            else:
                prompt = prompts.get("query") or ""
        else:
            prompt = document_prompt(prompts)
        return repair_text(prompt + text)[0]

    def encode(
        self, texts: Sequence[str], role: Role = "document", instruction: str | Sequence[str] = ""
    ) -> np.ndarray:
        """Unit rows, float32 [n, dimensions], in the order of the texts.

        instruction: of the task that the queries belong to, one for all or one for each; without one they get the
        folder's own query prompt, as `SentenceTransformer.encode_query` gives them. Documents never have one.
        """
        import numpy as np
        import torch

        if role not in ("query", "document"):
            raise InputError("role", f"{role!r}", "use query or document")
        each = [instruction] * len(texts) if isinstance(instruction, str) else list(instruction)
        if len(each) != len(texts):
            seen = f"{len(each)} instructions for {len(texts)} texts"
            raise InputError("instruction", seen, "give one for all, or one for each text")
        rows = self.tokens.ids([self.text(t, role, i) for t, i in zip(texts, each, strict=True)])
        vectors = np.zeros((len(rows), self.dimensions), dtype=np.float32)
        was_training = self.model.training
        self.model.eval()
        try:
            # Not inference mode: what a model keeps of its positions would be lost to a training that goes on.
            with torch.no_grad():
                for group in partition([len(row) for row in rows], self.budget):
                    batch = self.tokens.batch([rows[i] for i in group])
                    vectors[group] = self.forward(self.model, batch).cpu().numpy()
        finally:
            self.model.train(was_training)
        return vectors

    def forward(self, model: Any, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Unit vectors [B, dimensions] float32 of a batch; `model` is this one's, or what wraps it."""
        import torch

        device = self.model.device
        features = {name: value.to(device, non_blocking=True) for name, value in features.items()}
        vectors = model(features)["sentence_embedding"]
        return torch.nn.functional.normalize(vectors.float(), dim=-1)


def document_prompt(prompts: Mapping[str, str]) -> str:
    """The prompt that sentence-transformers puts before documents."""
    return next((prompts[name] or "" for name in ("document", "passage", "corpus") if name in prompts), "")


def open_encoder(
    model: str,
    *,
    options: ContrastiveOptions | None = None,
    device: str | None = None,
    hub: Mapping[str, Any] | None = None,
) -> Encoder:
    """The embedding model of a folder or hub name, ready to encode.

    options: its templates, pooling, max_length and dtype; without them, what the folder says. device: where it runs,
    by default an accelerator if there is one. hub: `revision`, `trust_remote_code`. Weights stay in the type they
    are stored in unless `dtype` says otherwise. Raises InputError where there is no model that can encode texts.
    """
    import torch

    from trainers.embedding.token_bag import read_bag

    if device is None:
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        device = found.type if found else "cpu"
    wanted = options.dtype if options else "auto"
    opened, tokens = open_model(model, options, wanted, **dict(hub or {}))
    bag = read_bag(opened, model, (hub or {}).get("revision"))
    if bag is not None:
        opened.append(bag)
    budget = token_budget(options.micro_batch_tokens if options else None, device)
    return Encoder(opened.to(device).eval(), tokens, budget)


def open_model(
    path: str, options: ContrastiveOptions | None, dtype: str | torch.dtype, **hub: Any
) -> tuple[Any, Tokens]:
    """A sentence-transformers model on the CPU, with pooling, prompts and limit set, and its tokenisation.

    The token bag, if the folder has one, is left out.
    """
    package()
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    with reading(f"model {path}", "give a folder with config.json or a name on the hub"), quiet_bars():
        model = _read(path, dtype, **hub)
    first = model[0]
    if not isinstance(first, Transformer) or "text" not in first.modality_config:
        seen = f"begins with {type(first).__name__}, which reads no text through a transformer"
        raise InputError(f"model {path}", seen, "give a transformer")
    if "message" in first.modality_config:
        seen = "its texts would go through a chat template"
        raise InputError(f"model {path}", seen, "take `message` out of sentence_bert_config.json")
    tokenizer = first.tokenizer
    if tokenizer is None:
        raise InputError(f"model {path}", "has no tokenizer", "add its tokenizer.json")
    if options and options.pooling != "auto":
        _set_pooling(model, options.pooling, path)
    pooling = next((module for module in model if isinstance(module, Pooling)), None)
    if pooling is not None and not pooling.include_prompt:
        raise InputError(
            f"model {path}", "leaves prompts out of its pooling", "set include_prompt in its pooling"
        )
    if model.truncate_dim is not None:
        seen = f"cuts its vectors to {model.truncate_dim} dimensions"
        raise InputError(f"model {path}", seen, "take truncate_dim out of config_sentence_transformers.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    last = pooling is not None and "lasttoken" in pooling.pooling_mode
    end_id = end_with_token(tokenizer, path) if last else None
    _set_limit(tokenizer, options.max_length if options else None)
    _set_prompts(model, options)
    return model, Tokens(tokenizer, end_id, is_decoder(first.config))


def package() -> Any:
    """The sentence_transformers package. Raises InputError where it is not installed."""
    try:
        import sentence_transformers
    except ImportError:
        raise InputError("sentence-transformers", "is not installed", EMBEDDING_EXTRA) from None
    return sentence_transformers


def _read(path: str, dtype: str | torch.dtype, **hub: Any) -> Any:
    from sentence_transformers import SentenceTransformer, SentenceTransformerModelCardData
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from sentence_transformers.util import is_sentence_transformer_model

    # The card is written from what is known here; it asks no hub about the model.
    card = SentenceTransformerModelCardData(local_files_only=True)
    kwargs = {"dtype": dtype}
    if is_sentence_transformer_model(path, revision=hub.get("revision")):
        return SentenceTransformer(path, device="cpu", model_kwargs=kwargs, model_card_data=card, **hub)
    # Named outright, or a tokenizer with a chat template would wrap every text in it.
    text: Any = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    _refuse_lost_weights(path, **hub)
    transformer = Transformer(
        path, model_kwargs={**kwargs, **hub}, processor_kwargs=dict(hub), config_kwargs=dict(hub),
        modality_config=text, module_output_name="token_embeddings",
    )  # fmt: skip
    decoder = is_decoder(transformer.config)
    if decoder and transformer.tokenizer is not None:
        # On this side the text's own positions never depend on its neighbours' lengths.
        transformer.tokenizer.padding_side = "right"
    pooling = Pooling(transformer.get_embedding_dimension(), "lasttoken" if decoder else "mean")
    return SentenceTransformer(
        modules=[transformer, pooling, Normalize()], device="cpu", model_card_data=card
    )


def _refuse_lost_weights(path: str, **hub: Any) -> None:
    """Raise InputError if a tensor of the model came from no file: it would be filled with random numbers.

    sentence-transformers does not ask, so the files are read once more, for a start model without its layout alone.
    """
    from transformers import AutoModel

    loaded: Any = AutoModel.from_pretrained(path, output_loading_info=True, **hub)
    # The pooler, which heads for other tasks lack, takes no part in the vectors.
    lost = sorted(name for name in loaded[1]["missing_keys"] if "pooler" not in name)
    if lost:
        seen = f"{len(lost)} tensors are missing: {', '.join(lost[:3])}" + (", ..." if len(lost) > 3 else "")
        raise InputError(f"weights of {path}", seen, "give a folder with the whole model")


def is_decoder(config: Any) -> bool:
    """Whether a model reads left to right only: its family has a causal head and no masked one."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    family = config.model_type
    causal = family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and family not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return causal and getattr(config, "is_causal", True)


def _set_pooling(model: Any, mode: str, path: str) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    for number, module in enumerate(model):
        if isinstance(module, Pooling) and isinstance(module.pooling_mode, str):
            model[number] = Pooling(module.embedding_dimension, mode)  # type: ignore[arg-type]
            return
    raise InputError("train.pooling", f"'{mode}', but {path} has no single pooling to replace", "use auto")


def _set_limit(tokenizer: Any, wanted: int | None) -> None:
    """Lower the limit that the tokenizer cuts at; it is saved with the model, whoever opens it has the same."""
    own = tokenizer.model_max_length
    if wanted is not None and (own >= NO_LIMIT or wanted < own):
        tokenizer.model_max_length = wanted


def _set_prompts(model: Any, options: ContrastiveOptions | None) -> None:
    """Put the templates into the model's prompts, which are saved with it."""
    template = options.query_template if options else _saved_template(model)
    prefix = template.removesuffix("{query}")
    model.prompts[INSTRUCT] = prefix
    if "{instruction}" not in prefix:
        model.prompts["query"] = prefix  # it says the same for every query
    if options and options.document_template is not None:
        model.prompts["document"] = options.document_template.removesuffix("{document}")


def _saved_template(model: Any) -> str:
    """The query template that a tuned folder was trained with, else the default one."""
    saved = model.prompts.get(INSTRUCT)
    return ContrastiveOptions.query_template if saved is None else f"{saved}{{query}}"
