#!/usr/bin/env bash
# Zero-shot msrvtt_qa: scripts/evaluate_msrvtt_qa.sh CKPT DIR OUT [further settings, as task.on_missing=skip]
exec "$(dirname "$0")/evaluate.sh" msrvtt_qa "$@"
