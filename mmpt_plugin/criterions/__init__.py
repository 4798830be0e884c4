"""Losses: contrastive ones on pairs, MIL-NCE on clips with bags of texts, and those over labelled seconds."""
