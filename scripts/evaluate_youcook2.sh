#!/usr/bin/env bash
# Zero-shot youcook2: scripts/evaluate_youcook2.sh CKPT DIR OUT [further settings, as task.on_missing=skip]
exec "$(dirname "$0")/evaluate.sh" youcook2 "$@"
