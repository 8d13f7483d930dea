"""What a GPU does, beside what it must and what it could: `make gpu-check`, or `python -m benchmarks.gpu`.

It needs NumPy and CuPy, and nothing else: what more is there (torch with CUDA, the service's own
dependencies) is measured too, and what is not is named.
"""
