"""New columns and settings leave what earlier versions wrote readable and equal."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.packing import SPEC, finish, start
from preprocessing.schema import INDEX_SCHEMA, METADATA_KEY, SCHEMA_VERSION, ExtractionSpec, UserError
from preprocessing.shards.index import read_index
from preprocessing.shards.statistics import sources_text, statistics
from preprocessing.shards.storage import Store

FIRST_COLUMNS = 19
"""Of the first version of the index."""


def test_settings_at_their_default_leave_no_trace() -> None:
    first = {"height": 360, "fps": None, "quality": 2, "max_frames": None, "profile": "clean"}
    assert ExtractionSpec().to_dict() == first
    assert ExtractionSpec(tone_map=False).to_dict() == first | {"tone_map": False}
    assert ExtractionSpec(**ExtractionSpec(deinterlace=True).to_dict()) == ExtractionSpec(deinterlace=True)


def test_an_index_of_the_first_version_is_read(folder_root: Path, tmp_path: Path) -> None:
    job, clips, work = start(folder_root, tmp_path)
    finish(job, clips, work)
    path = tmp_path / "index.parquet"
    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[METADATA_KEY])
    assert metadata.pop("schema") == SCHEMA_VERSION and metadata["spec"] == SPEC.to_dict()
    old = table.select(INDEX_SCHEMA.names[:FIRST_COLUMNS])
    pq.write_table(old.replace_schema_metadata({METADATA_KEY: json.dumps(metadata)}), path)
    index = read_index(Store(tmp_path))
    assert index.table.schema.equals(INDEX_SCHEMA)
    assert index.table.select(old.column_names).equals(old.cast(pa.schema(list(INDEX_SCHEMA)[:FIRST_COLUMNS])))
    assert index.table["interlaced"].null_count == len(clips)
    assert sources_text(statistics(index)) == ""


def test_other_settings_need_another_folder(folder_root: Path, tmp_path: Path) -> None:
    start(folder_root, tmp_path, ExtractionSpec(height=48, deinterlace=True))
    with pytest.raises(UserError, match="started with deinterlace = True, now it is None"):
        start(folder_root, tmp_path, SPEC)
