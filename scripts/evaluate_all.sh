#!/usr/bin/env bash
# Zero-shot on those of the paper's benchmarks whose folder DIR has, in one process: scripts/evaluate_all.sh CKPT DIR OUT [--benchmarks NAME ...] [--help]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
PATH="$root/.venv/bin:$PATH"  # where `make setup` put it; an active environment is used where there is none
exec python -m mmpt_plugin.commands.evaluate "$@"
