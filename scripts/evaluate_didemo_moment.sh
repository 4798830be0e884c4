#!/usr/bin/env bash
# Zero-shot didemo_moment: scripts/evaluate_didemo_moment.sh CKPT DIR OUT [further settings, as task.on_missing=skip]
exec "$(dirname "$0")/evaluate.sh" didemo_moment "$@"
