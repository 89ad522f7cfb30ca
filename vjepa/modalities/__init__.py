"""Masked latent prediction beyond video: the same blocks, predictor, targets and objectives on
point clouds (Point-JEPA) and skeletons (S-JEPA).

What changes with the modality is a tokenizer, how tokens know where they are, which of them are
hidden, and which view of a sample the context sees: :mod:`.tokens` is that interface.
"""
