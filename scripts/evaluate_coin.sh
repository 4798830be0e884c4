#!/usr/bin/env bash
# Zero-shot coin: scripts/evaluate_coin.sh CKPT DIR OUT [further settings, as task.on_missing=skip]
exec "$(dirname "$0")/evaluate.sh" coin "$@"
