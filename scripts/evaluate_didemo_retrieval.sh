#!/usr/bin/env bash
# Zero-shot didemo_retrieval: scripts/evaluate_didemo_retrieval.sh CKPT DIR OUT [further settings, as task.on_missing=skip]
exec "$(dirname "$0")/evaluate.sh" didemo_retrieval "$@"
