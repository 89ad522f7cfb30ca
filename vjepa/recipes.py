"""From files to trained models: where data sets and models meet.

    videos or images  -> pretrain_encoder       -> an encoder       -> load_encoder
    trajectories      -> train_on_trajectories  -> a world model    -> load_world_model

Every recipe writes a run folder (:mod:`tubelet.core.run`) and goes on exactly where it stopped.
"""

from .corpus_facts import pixel_stats
from .pretrain_recipe import PretrainRunConfig, load_encoder, load_features, pretrain_encoder
from .train_recipe import TrainConfig, load_world_model, split_episodes, train_on_trajectories

__all__ = [
    "PretrainRunConfig",
    "TrainConfig",
    "load_encoder",
    "load_features",
    "load_world_model",
    "pixel_stats",
    "pretrain_encoder",
    "split_episodes",
    "train_on_trajectories",
]
