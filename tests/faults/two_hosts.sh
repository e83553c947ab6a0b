#!/bin/bash
# One training on two hosts: two network namespaces that see each other by a cable only. Needs root (`ip netns`).
#
# usage: tests/faults/two_hosts.sh [PYTHON]
# The second host has no store: it works in a folder of its own. Prints the run, and fails where there is not one run
# with one version, or where the second host has written a store.
set -euo pipefail

python=$(realpath -s "${1:-.venv/bin/python}")
code=$(realpath "$(dirname "$0")/../..")
work=$(mktemp -d)
first=moodify-a$$ second=moodify-b$$
trap 'ip netns del $first; ip netns del $second; rm -rf "$work"' EXIT

ip netns add $first
ip netns add $second
ip link add va$$ netns $first type veth peer name vb$$ netns $second
ip -n $first addr add 10.77.0.1/24 dev va$$
ip -n $second addr add 10.77.0.2/24 dev vb$$
for pair in "$first va$$" "$second vb$$"; do
  set -- $pair
  ip -n "$1" link set lo up
  ip -n "$1" link set "$2" up
done

export PYTHONPATH=$code MOODIFY_OFFLINE=1 OMP_NUM_THREADS=1
unset MLFLOW_TRACKING_URI
train() { # NAMESPACE INTERFACE ADDRESS NODE
  mkdir -p "$work/$4"
  cd "$work/$4"
  MOODIFY_CACHE=$work/$4/cache GLOO_SOCKET_IFNAME=$2 timeout 400 ip netns exec "$1" \
    "$python" -m torch.distributed.run --nnodes 2 --nproc-per-node 1 --node-rank "$4" --local-addr "$3" \
    --rdzv-id two-hosts --rdzv-backend c10d --rdzv-endpoint 10.77.0.1:29400 --rdzv-conf "is_host=$((1 - $4))" \
    -m trainer train --dataset sketch --device cpu --blocks "8 16" --hidden 16 --batch-size 256 --epochs 2
}
train $first va$$ 10.77.0.1 0 &
one=$!
(train $second vb$$ 10.77.0.2 1) >"$work/second.log" 2>&1 &
two=$!
wait $one
wait $two
echo "--- what the second host said:"
cat "$work/second.log"

cd "$work/0"
"$python" - <<'EOF'
from trainer.store.location import open_store

store = open_store(create=False)
runs = store.client().search_runs([store.experiment_id("sketch")])
versions = store.client().search_model_versions()
assert len(runs) == len(versions) == 1, (runs, versions)
assert runs[0].info.status == "FINISHED"
assert runs[0].data.params["processes"] == "2"
print("one run on two hosts, one version; accuracy on test", runs[0].data.tags["test_accuracy"])
EOF
test ! -e "$work/1/mlruns"
