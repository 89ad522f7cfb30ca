"""Checkpoints in and out: Meta's, Hugging Face's and our own."""
