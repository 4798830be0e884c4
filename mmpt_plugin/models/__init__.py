"""The dual encoder and its checkpoints."""
