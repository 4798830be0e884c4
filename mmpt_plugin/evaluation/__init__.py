"""Zero-shot evaluation: benchmarks (annotations -> what to encode -> metrics), pure metrics, the results file.

Only `encoding.py` knows the model.
"""
