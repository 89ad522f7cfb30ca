"""Frozen evaluation: probes, neighbours and pictures of the features of an encoder at rest."""
