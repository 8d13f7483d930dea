"""THE ARITHMETIC: one traced rule becomes NumPy, machine code and CUDA, the same bits each, and LaTeX.

Read `operations.py`, `trace.py`, then `blocked.py`, which is the reference; `device.py` is the way in.
"""
