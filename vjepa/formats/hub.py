"""Checkpoints on the Hugging Face Hub, through ``huggingface_hub``'s mixin.

``huggingface_hub`` is an extra (``pip install tubelet[hub]``) and is imported only when used.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import CheckpointError

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

FILES = ["*.json", "*.safetensors"]
_DOWNLOAD = ("revision", "cache_dir", "force_download", "local_files_only", "token")


@cache
def mixin(kind: type[Checkpoint]) -> type:
    """The class that ``huggingface_hub`` deals with: holds a ``kind`` to save, load and push.

    Raises:
        CheckpointError: ``huggingface_hub`` is not installed.
    """
    try:
        from huggingface_hub import ModelHubMixin, snapshot_download
    except ImportError as error:
        raise CheckpointError(
            "the Hugging Face Hub needs huggingface_hub: pip install tubelet[hub]"
        ) from error

    class HubCheckpoint(
        ModelHubMixin,
        library_name="tubelet",
        tags=["video", "v-jepa", "world-model"],
        pipeline_tag="video-feature-extraction",
    ):
        """A checkpoint in the form that the mixin wants."""

        def __init__(self, checkpoint: Checkpoint):
            self.checkpoint = checkpoint

        def _save_pretrained(self, save_directory: Path) -> None:
            self.checkpoint.save_pretrained(save_directory)

        @classmethod
        def _from_pretrained(cls, *, model_id: str, **download: Any) -> HubCheckpoint:
            options = {key: download[key] for key in _DOWNLOAD}
            folder = snapshot_download(model_id, allow_patterns=FILES, **options)
            return cls(kind.from_pretrained(Path(folder)))

    return HubCheckpoint


def download_and_load(kind: type[Checkpoint], repo_id: str, **download: Any) -> Checkpoint:
    """Download a repository and load it; see :meth:`Checkpoint.from_pretrained`."""
    hub = mixin(kind)
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return hub.from_pretrained(repo_id, **download).checkpoint
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{repo_id} is no folder here, and no repository that could be downloaded: {reason}"
        ) from error


def push(checkpoint: Checkpoint, repo_id: str, **options: Any) -> str:
    """Upload; see :meth:`Checkpoint.push_to_hub`."""
    return mixin(type(checkpoint))(checkpoint).push_to_hub(repo_id, **options)
