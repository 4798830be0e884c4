"""From files on disk to batches: shards, corpora, clip sampling, the layout of a batch. Nothing here imports torch."""
