"""The registered fairseq tasks."""
