#!/usr/bin/env bash
# Zero-shot hirest: scripts/evaluate_hirest.sh CKPT DIR OUT [further settings, as task.on_missing=skip]
exec "$(dirname "$0")/evaluate.sh" hirest "$@"
