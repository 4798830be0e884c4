"""Batches of similar videos: an index over embeddings, clusters around random videos, their renewal each epoch."""
