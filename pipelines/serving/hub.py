"""Models on Hugging Face's hub: downloads one, or uploads the folder that `share` has written."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from adafocus import checkpoint
from adafocus.interop.pretrained import FILES
from preprocessing.schema import UserError


def find_pretrained(name: str | Path, revision: str | None = None) -> Path:
    """The folder of a shared model: `name` is that folder, or else a name on the hub (`user/model`), which is
    downloaded once and kept; `revision` is then its branch, tag or commit.

    Raises UserError if there is neither.
    """
    folder = Path(name)
    if folder.is_dir() and any((folder / each).exists() for each in (checkpoint.META, checkpoint.SHARED)):
        return folder
    if folder.is_dir() or folder.is_absolute() or str(name).startswith("."):
        raise UserError(f"{name} holds no shared model: there is no {checkpoint.SHARED}")
    hub = _library()
    try:
        return Path(hub.snapshot_download(str(name), revision=revision, allow_patterns=list(FILES)))
    except (hub.errors.HFValidationError, hub.errors.HfHubHTTPError, hub.errors.LocalEntryNotFoundError) as error:
        raise UserError(f"{name} is no folder, and cannot be had from the hub: {_in_a_line(error)}") from None


def push(folder: Path, name: str, *, private: bool = True, token: str | None = None) -> str:
    """Upload a shared model's folder as `user/model`, which is made if it does not exist; the commit's address. What is
    to be private is not uploaded to a place that is public.

    `token` None takes the one of `hf auth login` or HF_TOKEN. Raises UserError where the hub refuses it.
    """
    hub = _library()
    try:
        api = hub.HfApi(token=token)
        target = api.create_repo(name, private=private, exist_ok=True).repo_id
        if private and api.model_info(target).private is False:  # one that exists keeps its visibility
            raise UserError(f"{target} exists and is public: say --public, or choose another name")
        done = api.upload_folder(
            repo_id=target, folder_path=folder, allow_patterns=list(FILES), commit_message="Share a model of AdaFocus"
        )
    except (hub.errors.HFValidationError, hub.errors.HfHubHTTPError, hub.errors.LocalTokenNotFoundError) as error:
        raise UserError(f"the hub does not take {name}: {_in_a_line(error)}") from None
    except Exception as error:
        if not type(error).__module__.startswith("httpx"):  # httpx or httpx2, by the version of huggingface_hub
            raise
        raise UserError(f"the hub cannot be reached: {_in_a_line(error)}") from None
    return str(done.commit_url)


def _library() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ModuleNotFoundError:
        raise UserError("the hub needs huggingface_hub: in a checkout of AdaFocus, pip install '.[hub]'") from None
    return huggingface_hub


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
