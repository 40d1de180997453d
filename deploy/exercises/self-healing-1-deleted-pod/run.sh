#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
begin "Self-Healing, demonstration 1: kill a pod with kubectl delete"
load probegate demo-model-v1
GUARDED=app.kubernetes.io/instance=model-server
lists() { k get pods -l "$1" -o 'jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}'; }
three_others() { [ "$(ready_pods "$1")" = 3 ] && ! lists "$1" | grep -x "$2"; }

step "Three pods, plain and guarded"
k apply -f "$HERE/manifests/fastapi-k8s.yaml" >/dev/null
install
within 120 "all six are ready" eval '[ "$(ready_pods app=fastapi-k8s)" = 3 ] && [ "$(ready_pods)" = 3 ]' || die "nothing to delete"
show k get pods -o wide

step "kubectl delete pod"
victim=$(pod_of app=fastapi-k8s) old=$(lists app=fastapi-k8s) address=$(field "$victim" .status.podIP)
show k delete pod "$victim" --wait=false
created() { [ "$(comm -13 <(sort <<<"$old") <(lists app=fastapi-k8s | sort) | grep -c .)" = 1 ]; }
within 10 "a new pod is made at once, by another name" created
new=$(comm -13 <(sort <<<"$old") <(lists app=fastapi-k8s | sort))
within 60 "three are ready again" three_others app=fastapi-k8s "$victim"
show k get pods -l app=fastapi-k8s -o wide
expect "with another address" eval '[ "$(field "$new" .status.podIP)" != "$address" ]'
expect "and its RESTARTS is 0: it is new" is 0 field "$new" '.status.containerStatuses[0].restartCount'
expect "it was the ReplicaSet controller that acted" eval 'k get events --field-selector reason=SuccessfulCreate -o "jsonpath={range .items[*]}{.source.component} {.message}{\"\n\"}{end}" | grep "^replicaset-controller .*$new"'

step "Guarded, and under customers"
out=$(mktemp)
drive "$(address_of model-server 80)" 30s:30 >"$out" &
pid=$!
sleep 3
victim=$(pod_of $GUARDED)
ask "pod/$victim:8080" "/stream?tokens=100&interval_ms=60" >"$out.stream" 2>&1 &
stream=$!
within 10 "a stream of six seconds has begun" grep -q '"index":3' "$out.stream"
k delete pod "$victim" --wait=false >/dev/null
wait $stream
expect "the stream that was under way when the pod was deleted comes to its end" grep -q 'DONE' "$out.stream"
within 60 "three are ready again" three_others $GUARDED "$victim"
wait $pid
saw=$(cat "$out")
rm -f "$out" "$out.stream"
note "" "The customers: $saw."
expect "no answer was wrong, none failed: the sidecar drains before anything is stopped" eval "[[ '$saw' =~ ^[1-9][0-9]*\ requests,.*\ 0\ wrong,\ 0\ failed ]]"
finish
