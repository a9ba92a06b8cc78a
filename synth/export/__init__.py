"""Hand a dataset on: layouts other trainers read, as JSONL, parquet or a `datasets` folder, with a dataset card."""

from synth.export.card import dataset_card, redact
from synth.export.layouts import LAYOUTS
from synth.export.write import FORMATS, ExportResult, export, read_rows

__all__ = ["FORMATS", "LAYOUTS", "ExportResult", "dataset_card", "export", "read_rows", "redact"]
