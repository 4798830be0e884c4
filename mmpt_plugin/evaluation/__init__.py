"""Zero-shot evaluation: benchmarks (annotations -> what to encode -> metrics), pure metrics, the results file.

Only `run.py` knows the model; everything else here is numpy and the standard library.
"""
