#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
begin "Self-Healing, demonstration 2: crash a pod with POST /crash"
load probegate demo-model-v1
GUARDED=app.kubernetes.io/instance=model-server
who() { echo "$1 $(field "$1" .status.podIP) $(field "$1" .metadata.uid)"; }
sidecar_restarts() { k get pods -l $GUARDED -o 'jsonpath={range .items[*]}{.status.initContainerStatuses[0].restartCount}{"\n"}{end}' | awk '{ n += $1 } END { print n + 0 }'; }

step "Three pods, plain and guarded"
k apply -f "$HERE/manifests/fastapi-k8s.yaml" >/dev/null
install -f "$(dirname "$0")/values.yaml"
within 120 "all six are ready" eval '[ "$(ready_pods app=fastapi-k8s)" = 3 ] && [ "$(ready_pods)" = 3 ]' || die "nothing to crash"
show k get pods

step "POST /crash"
victim=$(pod_of app=fastapi-k8s)
before=$(who "$victim")
poke "$victim" 8000 /crash
within 20 "RESTARTS goes up to 1, at once" is 1 restarts app=fastapi-k8s fastapi-k8s
show k get pods -l app=fastapi-k8s -o wide
expect "the same pod: name, address and uid" is "$before" who "$victim"
expect "it ended with code 1" is 1 field "$victim" '.status.containerStatuses[0].lastState.terminated.exitCode'
within 30 "it is ready again" is 3 ready_pods app=fastapi-k8s
expect "the log of the one that crashed is kept: kubectl logs --previous" eval 'k logs "$victim" --previous | grep listening'

step "Guarded, and under customers"
work=$(mktemp -d)
out=$work/customers.log
drive "$(address_of model-server 80)" 30s:30 >"$out" &
pid=$!
sleep 5
victim=$(pod_of $GUARDED)
before=$(who "$victim")
poke "$victim" 8080 /crash
within 20 "the model server is restarted" is 1 restarts $GUARDED model
expect "the same pod: name, address and uid" is "$before" who "$victim"
expect "the sidecar is not" is 0 sidecar_restarts
within 60 "it is ready again" is 3 ready_pods
wait $pid
saw=$(tail -n 1 "$out")
show cat "$out"
rm -rf "$work"
show k logs "$victim" -c probegate --tail=4
expect "no answer was wrong" eval "[[ '$saw' =~ \ 0\ wrong ]]"
expect "at most 2 % failed: those that were in its hands, for the others waited at the sidecar" test $((50 * $(seen failed "$saw"))) -le "$(seen requests "$saw")"

step "The difference"
report "| | \`kubectl delete pod\` | \`POST /crash\` |" "|---|---|---|" "| Pod name | new | same |" "| Pod IP | new | same |" \
    "| RESTARTS | 0, a new pod | one more |" "| Who acts | ReplicaSet controller | kubelet |" ""
say "delete: new name, new address, RESTARTS 0, ReplicaSet controller. crash: same name, same address, RESTARTS + 1, kubelet."
finish
