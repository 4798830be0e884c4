#!/usr/bin/env bash
# A table of one's own: scripts/evaluate_csv.sh CKPT DIR OUT [further settings, as task.annotations=TABLE]
exec "$(dirname "$0")/evaluate.sh" csv "$@"
