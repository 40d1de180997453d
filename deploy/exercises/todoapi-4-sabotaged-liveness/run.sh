#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
begin "The todoapi lab, part 5: a sabotaged liveness probe"
load probegate demo-model-v1
here=$(dirname "$0")
GUARDED=app.kubernetes.io/instance=model-server
looping() { k get pods -l "$1" --no-headers | grep CrashLoopBackOff; }

step "Both run"
k apply -f "$HERE/manifests/todoapi.yaml" >/dev/null
install -f "$here/values.yaml"
within 120 "two todoapi pods, two guarded ones" eval '[ "$(ready_pods app=todoapi)" = 2 ] && [ "$(endpoints)" = 2 ]' || die "nothing to sabotage"

step "todoapi: the probe asks for a path that is not there"
k patch deployment todoapi --type=strategic -p '{"spec":{"template":{"spec":{"containers":[{"name":"todoapi","livenessProbe":{"httpGet":{"path":"/helth","port":8000},"periodSeconds":3,"failureThreshold":3}}]}}}}' >/dev/null
within 60 "the rollout succeeds: every new pod was ready before its liveness first failed" k rollout status deployment/todoapi --timeout=1s
within 60 "then the kubelet restarts them" eval '[ "$(restarts app=todoapi todoapi)" -ge 2 ]'
show k get events --field-selector type=Warning --sort-by=.lastTimestamp -o 'custom-columns=OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message'
within 180 "again and again: CrashLoopBackOff" looping app=todoapi
show k get pods -l app=todoapi
nobody() { [ "$(endpoints todoapi)" = 0 ]; }
within 120 "and there are times when nobody is left in the Service" nobody
note "The application never had a fault."

# The chart with another probegate.toml, and new pods for it.
reconfigure() { install -f "$here/values.yaml" --set rollOnConfigChange=true --set rollout.progressDeadlineSeconds=20 --set-file "config=$1"; }
sabotaged=$(mktemp)
careful=$(mktemp)
cp "$here/sabotaged.toml" "$sabotaged"
sed '0,/^require = .*/s//require = ["model", "app"]/' "$here/sabotaged.toml" >"$careful"

step "Guarded, and careful: what liveness requires, startup requires first"
customer model-server
reconfigure "$careful"
within 90 "the rollout is given up: what has never passed keeps the new pod from starting up" given_up model-server
show k get pods -l $GUARDED
bad=$(k get pods -l $GUARDED --sort-by=.metadata.creationTimestamp -o 'jsonpath={.items[-1:].metadata.name}')
show status "pod/$bad"
expect "both old pods serve on" is 2 endpoints
expect "nobody was restarted" is 0 restarts $GUARDED model
k rollout undo deployment/model-server >/dev/null
within 90 "taken back" eval 'k rollout status deployment/model-server --timeout=1s && [ "$(endpoints)" = 2 ]'
customer_saw "The customer, all that time"

step "Guarded, and careless: liveness alone requires it"
reconfigure "$sabotaged"
within 120 "the rollout succeeds, as todoapi's did" eval 'k rollout status deployment/model-server --timeout=1s && [ "$(k get pods -l $GUARDED --no-headers | wc -l)" = 2 ]'
within 120 "each pod is restarted once: that is the budget, 1 per 1h" is 2 restarts $GUARDED model
warned() { local pod; for pod in $(k get pods -l $GUARDED -o name); do status "$pod" | grep -q "health *WARN" || return 1; done; }
within 60 "both are back, and liveness says so: a warning, not a failure" eval '[ "$(endpoints)" = 2 ] && warned'
stays 45 "then restarts are held back: both stay in the Service, and nobody is restarted again" eval '[ "$(endpoints)" = 2 ] && [ "$(restarts $GUARDED model)" = 2 ]'
show status "pod/$(pod_of $GUARDED)"
saw=$(drive "$(address_of model-server 80)" 10s:20)
note "Customers, by then: $saw."
expect "no answer was wrong, none failed" eval "[[ '$saw' =~ \ 0\ wrong,\ 0\ failed ]]"
rm -f "$sabotaged" "$careful"

step "The questions"
note "1. A liveness probe that fails costs a restart, and a restart mends nothing here: so it fails again, the kubelet waits longer each time, and the pods are down most of the time."
note "2. In the wild: a path that a release renames, a port that moves, a check that wants a login since yesterday, a probe that waits for what others have broken."
finish
