"""Fine-tuning on the benchmarks' own training splits."""
