"""Shared ground: errors, configs, atomic files, random streams, run folders.

Imports no other folder of tubelet.
"""
