"""Checkpoints on the Hugging Face Hub, through ``huggingface_hub``'s mixin.

``huggingface_hub`` is an extra (``pip install tubelet[hub]``) and is imported only when used.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ...core.errors import CheckpointError
from .checkpoint import CONFIG, MANIFEST, Checkpoint
from .files import SINGLE


@cache
def mixin() -> type:
    """The class that ``huggingface_hub`` deals with: a checkpoint to save, load and push.

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
        """A :class:`Checkpoint` in the form that the mixin wants."""

        def __init__(self, checkpoint: Checkpoint):
            self.checkpoint = checkpoint

        def _save_pretrained(self, save_directory: Path) -> None:
            self.checkpoint.save_pretrained(save_directory)

        @classmethod
        def _from_pretrained(cls, *, model_id: str, **download: Any) -> HubCheckpoint:
            folder = Path(model_id)
            if not folder.is_dir():
                wanted = [CONFIG, SINGLE, MANIFEST]
                options = {key: download[key] for key in _DOWNLOAD}
                folder = Path(snapshot_download(model_id, allow_patterns=wanted, **options))
            return cls(Checkpoint.from_pretrained(folder))

    return HubCheckpoint


_DOWNLOAD = ("revision", "cache_dir", "force_download", "local_files_only", "token")


def download_and_load(repo_id: str, **download: Any) -> Checkpoint:
    """Download a repository and load it; see :meth:`Checkpoint.from_pretrained`."""
    hub = mixin()
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
    return mixin()(checkpoint).push_to_hub(repo_id, **options)
