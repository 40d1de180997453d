#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
begin "Self-Healing, demonstration 4: watch events during self-healing"
load probegate demo-model-v1
GUARDED=app.kubernetes.io/instance=model-server
work=$(mktemp -d)
k_watch=
tidy() { [ -z "$k_watch" ] || kill "$k_watch" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"; close; }
trap tidy EXIT
# What the watch has written since the last mark.
mark() { wc -l <"$work/events" >"$work/mark"; }
since() { tail -n +$(($(cat "$work/mark") + 1)) "$work/events"; }
told() { since | grep -E "$1"; }

step "A watch on the pods' events"
k apply -f "$HERE/manifests/fastapi-k8s.yaml" >/dev/null
install
within 120 "all six are ready" eval '[ "$(ready_pods app=fastapi-k8s)" = 3 ] && [ "$(ready_pods)" = 3 ]' || die "nothing to watch"
k get events --watch --field-selector involvedObject.kind=Pod >"$work/events" 2>&1 &
k_watch=$!
within 60 "it writes" test -s "$work/events"
sleep 2

step "POST /crash"
mark
poke "$(pod_of app=fastapi-k8s)" 8000 /crash
within 30 "Pulled, Created, Started" eval 'told Pulled && told Created && told Started'
within 30 "it is ready again" is 3 ready_pods app=fastapi-k8s
show since
expect "no Killing: nobody killed it. The text lists one, but that belongs to a liveness probe or a deletion" eval '! told "Killing.*fastapi-k8s"'

step "A liveness probe that fails"
mark
ask "pod/$(pod_of app=fastapi-k8s):8000" "/hang?all=1" "{}" >/dev/null
within 90 "Unhealthy three times, then Killing" eval 'told "Unhealthy.*Liveness" && told "Killing.*failed liveness probe"'
within 60 "and Started" told Started
show since

step "POST /ready/disable"
within 60 "all are ready" is 3 ready_pods app=fastapi-k8s
mark
ask "pod/$(pod_of app=fastapi-k8s):8000" /ready/disable "{}" >/dev/null
within 30 "Unhealthy: the readiness probe's status is 503" told 'Unhealthy.*Readiness probe failed: HTTP probe failed with statuscode: 503'
stays 10 "and no more: it is not killed" eval '! told Killing'
show since

step "kubectl delete pod, guarded"
mark
k delete pod "$(pod_of $GUARDED)" --wait=false >/dev/null
within 60 "Killing for both containers, Scheduled and Started for those of the new pod" \
    eval 'told "Killing.*Stopping container model" && told "Killing.*Stopping container probegate" && told Scheduled && [ "$(since | grep -c Started)" -ge 2 ]'
within 60 "three are ready" is 3 ready_pods
show since

step "What the sidecar writes beside it"
note "Events tell what was done; the sidecar's log tells why."
crashed=$(pod_of $GUARDED)
poke "$crashed" 8080 /crash
within 30 "the model server was restarted" is 1 restarts $GUARDED model
within 60 "three are ready" is 3 ready_pods
show k logs "$crashed" -c probegate --tail=8
expect "the gate's changes are in it" eval 'k logs "$crashed" -c probegate | grep -i ready'
finish
