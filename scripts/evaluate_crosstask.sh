#!/usr/bin/env bash
# Zero-shot crosstask: scripts/evaluate_crosstask.sh CKPT DIR OUT [further settings, as task.on_missing=skip]
exec "$(dirname "$0")/evaluate.sh" crosstask "$@"
