#!/usr/bin/env bash
# Evaluate a checkpoint zero-shot: scripts/evaluate.sh NAME CKPT DIR OUT [further settings]
set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: scripts/evaluate_${1:-NAME}.sh CKPT DIR OUT [key=value ...]" >&2
    echo "  CKPT: a checkpoint, ours or MMPT's; DIR: the data folder (docs/data.md); OUT: folder for the results" >&2
    exit 2
fi
# hydra reads `=`, `(`, `,` and others in a value as its own grammar; in quotes they stay what they are
quoted() { printf "'%s'" "$(printf '%s' "$1" | sed -E "s/(\\\\*)'/\1\1\\\\'/g; s/(\\\\+)\$/\1\1/")"; }
name=$1 checkpoint=$(quoted "$2") data=$(quoted "$3") results=$(quoted "$4")
shift 4
root=$(cd "$(dirname "$0")/.." && pwd)
PATH="$root/.venv/bin:$PATH"  # where `make setup` put it; an active environment is used where there is none
exec fairseq-hydra-train --config-dir "$root/projects/videoclip" --config-name "zeroshot_$name" \
    task.data="$data" checkpoint.restore_file="$checkpoint" task.results_path="$results" "$@"
