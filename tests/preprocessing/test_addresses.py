"""Addresses as they are reached and as they are shown."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from preprocessing.addresses import absolute, without_secrets
from preprocessing.schema import UserError
from preprocessing.shards.storage import Store


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://user:S3CRET@host:5432/db?password=S3CRET", "postgresql://host:5432/db"),
        ("postgresql+psycopg2://user:S3/CRET@host/db", "postgresql+psycopg2://host/db"),
        ("postgresql://user:S3?CRET@host/db", "postgresql://host/db"),
        ("postgresql://user:S3@CRET'S3@host/db", "postgresql://host/db"),
        ("http://S3CRET@host/path#S3CRET", "http://host/path"),
        ("s3://key:S3CRET@bucket/a?region=x&token=S3CRET", "s3://bucket/a?region=x"),
        ("s3://b/a?endpoint_override=http://localhost:9", "s3://b/a?endpoint_override=http://localhost:9"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("s3://bucket/me@work", "s3://bucket/me@work"),
        ("/data/me@work", "/data/me@work"),
        (
            "no answer of 'http://a:S3CRET@host/api', nor of http://b:S3CRET@host. Mail me@work",
            "no answer of 'http://host/api', nor of http://host. Mail me@work",
        ),
    ],
)
def test_a_text_is_shown_without_the_secrets_of_its_urls(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_store_is_the_same_folder_in_a_process_with_another_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("shards")
    travelled = pickle.dumps(store)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pickle.loads(travelled).local == tmp_path / "shards"
    assert pickle.loads(travelled).url == store.url == store.shown == str(tmp_path / "shards")
    assert absolute("s3://bucket/a") == "s3://bucket/a"


def test_a_store_that_cannot_be_used_is_named_without_its_key() -> None:
    store = Store("cloud://key:S3CRET@bucket/a")
    with pytest.raises(UserError, match="cannot use cloud://bucket/a as a folder") as raised:
        store.sizes()
    assert "S3CRET" not in str(raised.value)


def test_a_folder_below_the_home_folder_as_shells_leave_it_in_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert absolute("~/shards") == "/home/me/shards"
    assert absolute("s3://bucket/~/x") == "s3://bucket/~/x" and absolute("/a/~/x") == "/a/~/x"
