"""Videos with known factors, drawn by NumPy and written as real H.264 files."""
