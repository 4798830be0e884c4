#!/usr/bin/env bash
# Zero-shot msrvtt: scripts/evaluate_msrvtt.sh CKPT DIR OUT [further settings, as task.on_missing=skip]
exec "$(dirname "$0")/evaluate.sh" msrvtt "$@"
