"""Upload a finished mix to the Hugging Face Hub: exactly the files of its manifest, private unless asked otherwise."""

from __future__ import annotations

from pathlib import Path

from columnar.errors import CaravanError
from columnar.store import open_dataset


def push(directory: Path, repository: str, private: bool = True) -> str:
    """Upload rows/, the card, the config and the manifest; not the dropped rows, the sidecars or the flags. Returns the URL.

    Raises:
        CaravanError: the Hub refused (no token, no permission, no network).
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    dataset = open_dataset(directory)
    files = [o["path"] for o in dataset.manifest["identity"]["outputs"] if o["path"].startswith("rows/")]
    api = HfApi()
    try:
        url = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=directory,
            allow_patterns=[*files, "README.md", "config.yaml", "manifest.json"],
            commit_message=f"{dataset.manifest['identity']['name']}: {dataset.rows} rows",
        )
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        raise CaravanError(f"{repository}: the upload failed: {error}", "log in with: hf auth login") from error
    return str(url)
