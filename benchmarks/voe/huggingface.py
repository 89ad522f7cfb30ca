"""V-JEPA 2 as ``transformers`` runs it, without conversion: ``VJEPA2Model`` as a scorer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.errors import CheckpointError, ConfigError
from ...core.rng import stream_seed
from ...vjepa.positions import Grid
from .masked import DISTANCES, copied, dense_split, extrapolated
from .settings import Distance
from .surprise import Pixels, Scorer

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TransformersScorer(Pixels):
    """Surprise of a ``VJEPA2Model``.

    Called as it is, that model encodes the whole clip and lets the predictor see the context's part
    of it, which has attended to the future. Here the context is encoded alone.

    Args:
        model: in eval mode; windows must be of its crop size. name: of the model.
    """

    def __init__(
        self,
        model: Any,
        name: str = "model",
        *,
        mask_index: int = 0,
        distance: Distance = "l1",
        baselines: bool = True,
    ):
        self._model, self._mask_index = model, mask_index
        self._distance = DISTANCES[distance]
        self.step = int(model.config.tubelet_size)
        self.names = (name, "copy", "linear") if baselines else (name,)

    def __call__(
        self, windows: np.ndarray, contexts: Sequence[int], actions: np.ndarray | None = None
    ) -> Tensor:
        config = self._model.config
        batch, frames, height, width, _ = windows.shape
        if (height, width) != (config.crop_size, config.crop_size):
            raise ConfigError(
                f"frames of {height} x {width}: this model is right for {config.crop_size} pixels "
                f"only, set size = {config.crop_size}"
            )
        side = config.crop_size // config.patch_size
        grid = Grid(frames // self.step, side, side)
        device = next(self._model.parameters()).device
        x = torch.from_numpy(windows).to(device).float() / 255
        x = (x - torch.tensor(MEAN, device=device)) / torch.tensor(STD, device=device)
        x = x.movedim(-1, 2)  # [B, T, 3, H, W]
        wanted = _normed(self._encode(x))
        out = torch.full((len(self.names), batch, len(contexts), grid.size), float("nan"))
        for i, c in enumerate(contexts):
            if c % self.step:
                raise ConfigError(f"contexts: {c} is not a multiple of the tubelet's {self.step}")
            context, future = (ids.to(device) for ids in dense_split(grid, c // self.step))
            known = self._encode(x[:, :c])
            guesses = [self._predict(known, context, future, grid)]
            if len(self.names) > 1:
                steps = _normed(known).unflatten(1, (-1, side * side))
                guesses += [copied(steps, grid.t), extrapolated(steps, grid.t)]
            for j, guess in enumerate(guesses):
                first = context.shape[1]
                out[j, :, i][:, first:] = self._distance(guess, wanted[:, first:]).cpu()
        return out.unflatten(3, tuple(grid))

    def _encode(self, x: Tensor) -> Tensor:
        return self._model.encoder(pixel_values_videos=x).last_hidden_state

    def _predict(self, known: Tensor, context: Tensor, future: Tensor, grid: Grid) -> Tensor:
        """The predictor picks its context out of a whole clip's tokens: the rest is left empty."""
        whole = F.pad(known, (0, 0, 0, grid.size - known.shape[1]))
        embeddings = self._model.predictor.embeddings
        forward, index = embeddings.forward, self._mask_index

        def with_index(*args: Any, **kwargs: Any) -> Any:
            return forward(*args, **{**kwargs, "mask_index": index})

        embeddings.forward = with_index  # its caller does not pass the index on
        try:
            masks = [m.expand(len(known), -1) for m in (context, future)]
            return self._model.predictor(whole, [masks[0]], [masks[1]]).last_hidden_state
        finally:
            del embeddings.forward


def load_transformers(
    path: str, mask_index: int, distance: Distance, device: str
) -> tuple[Scorer, Callable[[int], Scorer]]:
    """A Hugging Face folder as a scorer, and its architecture untrained, by seed.

    Raises:
        CheckpointError: no ``transformers``, or weights that do not fit the model one to one.
    """
    try:
        from transformers import VJEPA2Config, VJEPA2Model
    except ImportError as error:
        raise CheckpointError('kind = "transformers" needs it: pip install transformers') from error
    try:
        loaded: Any = VJEPA2Model.from_pretrained(
            path, output_loading_info=True, local_files_only=True
        )
        model, info = loaded
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is no folder of a VJEPA2Model: {error}") from error
    wrong = {key: list(value)[:4] for key, value in info.items() if value}
    if wrong:
        raise CheckpointError(f"{path} did not load in full: {wrong}")
    options: dict[str, Any] = {"mask_index": mask_index, "distance": distance}

    def fresh(seed: int) -> Scorer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(seed, "voe", "untrained"))
            made: Any = VJEPA2Model(VJEPA2Config(**model.config.to_dict()))
        return TransformersScorer(
            made.eval().to(torch.device(device)), f"untrained {seed}", baselines=False, **options
        )

    return TransformersScorer(model.eval().to(torch.device(device)), **options), fresh


def _normed(tokens: Tensor) -> Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:])
