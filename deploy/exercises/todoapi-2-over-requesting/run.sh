#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
begin "The todoapi lab, parts 3 and 4: over-requesting, and a scaling limit"
load probegate demo-model-v1
GUARDED=app.kubernetes.io/instance=model-server
readonly SEAT=exercise.example/seats
readonly SEAT_PATH=/status/capacity/exercise.example~1seats
NODE=$("${KUBECTL[@]}" get nodes -o 'jsonpath={.items[0].metadata.name}')
seats() { "${KUBECTL[@]}" patch node "$NODE" --subresource=status --type=json -p "[{\"op\":\"add\",\"path\":\"$SEAT_PATH\",\"value\":\"$1\"}]" >/dev/null; }
tidy() { "${KUBECTL[@]}" patch node "$NODE" --subresource=status --type=json -p "[{\"op\":\"remove\",\"path\":\"$SEAT_PATH\"}]" >/dev/null 2>&1; close; }
trap tidy EXIT

# request CPU SEATS: what each todoapi container asks for.
request() { k patch deployment todoapi --type=strategic -p "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"todoapi\",\"resources\":{\"requests\":{\"cpu\":\"$1\",\"$SEAT\":\"$2\"},\"limits\":{\"$SEAT\":\"$2\"}}}]}}}}" >/dev/null; }
requests() { k get pods -o 'jsonpath={range .items[*]}{.metadata.name}{"  "}{.spec.containers[*].resources.requests}{"\n"}{end}'; }
pending() { k get pods -l "$1" --field-selector=status.phase=Pending --no-headers 2>/dev/null | grep -c .; }
todos() { k get pods -l app=todoapi --no-headers | grep -c Running; }
revision() { k get deployment todoapi -o 'jsonpath={.metadata.annotations.deployment\.kubernetes\.io/revision}'; }
scheduling() { k get events --field-selector reason=FailedScheduling --sort-by=.lastTimestamp -o 'custom-columns=OBJECT:.involvedObject.name,MESSAGE:.message'; }

step "Four replicas that ask for little, and four guarded ones"
k apply -f "$HERE/manifests/todoapi.yaml" >/dev/null
k scale deployment todoapi --replicas=4 >/dev/null
install --set replicaCount=4 --set model.resources.requests.cpu=20m --set sidecar.resources.requests.cpu=10m
within 120 "eight pods run" eval '[ "$(todos)" = 4 ] && [ "$(ready_pods)" = 4 ]' || die "nothing to scale"
show requests
cpus=$("${KUBECTL[@]}" get node "$NODE" -o 'jsonpath={.status.allocatable.cpu}')
note "The node has $cpus CPUs to give, to all that runs on it."

step "A modest request"
k patch deployment todoapi --type=strategic -p '{"spec":{"template":{"spec":{"containers":[{"name":"todoapi","resources":{"requests":{"cpu":"30m"}}}]}}}}' >/dev/null
within 60 "30m of CPU: rolled out" k rollout status deployment/todoapi --timeout=1s
within 30 "four replicas, none pending" eval '[ "$(todos)" = 4 ] && [ "$(pending app=todoapi)" = 0 ]'

step "More than a node has left"
customer model-server
k patch deployment todoapi --type=strategic -p "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"todoapi\",\"resources\":{\"requests\":{\"cpu\":\"$cpus\"}}}]}}}}" >/dev/null
install --set replicaCount=4 --set "model.resources.requests.cpu=$cpus" --set sidecar.resources.requests.cpu=10m --set rollout.progressDeadlineSeconds=20
within 60 "todoapi: what is new stays pending" eval '[ "$(pending app=todoapi)" -ge 1 ]'
within 60 "FailedScheduling: Insufficient cpu" eval 'scheduling | grep "Insufficient cpu"'
show k get pods
show scheduling
expect "todoapi, with the default 25 % unavailable: three of four are left" is 3 todos
expect "guarded, with maxUnavailable 0: all four serve on" is 4 endpoints
within 60 "guarded: the rollout is given up, for somebody to look" given_up model-server
customer_saw "The customer of the guarded Service"

step "Backed off again"
k rollout undo deployment/todoapi >/dev/null
k rollout undo deployment/model-server >/dev/null
within 90 "both are whole, and nothing is pending" eval '[ "$(todos)" = 4 ] && [ "$(endpoints)" = 4 ] && [ "$(pending app=todoapi)$(pending $GUARDED)" = 00 ]'
helm uninstall model-server >/dev/null

step "Another limit: four seats on the node, and a fifth replica"
note "Stand-in: the lab's nodes hold so many pods by their network interfaces. Here the node is given four \`$SEAT\`, and each todoapi pod takes one; the scheduler treats both alike, and nobody else on the cluster is held up."
k delete deployment todoapi --wait >/dev/null
k apply -f "$HERE/manifests/todoapi.yaml" >/dev/null
seats 4
request 20m 1
k scale deployment todoapi --replicas=4 >/dev/null
within 90 "four replicas, four seats" eval '[ "$(todos)" = 4 ] && [ "$(pending app=todoapi)" = 0 ]'
k patch deployment todoapi --type=json -p '[{"op":"replace","path":"/spec/template/spec/containers/0/name","value":"todoapiv2"}]' >/dev/null
within 90 "the lab's meaningless change, for a second revision, is rolled out" eval '[ "$(todos)" = 4 ] && [ "$(pending app=todoapi)" = 0 ] && k rollout status deployment/todoapi --timeout=1s'
k scale deployment todoapi --replicas=5 >/dev/null
within 30 "the fifth stays pending" is 1 pending app=todoapi
within 30 "FailedScheduling: Insufficient $SEAT" eval 'scheduling | grep "Insufficient $SEAT"'
show k get pods -l app=todoapi
show k rollout history deployment/todoapi
before=$(revision)
show k rollout undo deployment/todoapi
within 30 "undo is taken" eval '[ "$(revision)" -gt "$before" ]'
sleep 5
show k get pods -l app=todoapi
expect "it is worse than before: fewer run, more wait, and the rollback does not end" eval '[ "$(pending app=todoapi)" -ge 2 ] && ! k rollout status deployment/todoapi --timeout=2s'
note "Stand-in: a fourth node is three seats more."
seats 7
within 90 "with room, the stuck rollback ends by itself: five run" eval 'k rollout status deployment/todoapi --timeout=1s && [ "$(todos)" = 5 ]'
show k get pods -l app=todoapi
show k get events --field-selector involvedObject.kind=Deployment -o 'custom-columns=REASON:.reason,MESSAGE:.message'

step "The questions"
note "1. A request is a promise of the scheduler about one node: what no single node has left, no pod gets, however idle the nodes are. The pod is Pending, and FailedScheduling says what is missing."
note "2. A rollback is a rollout: it needs room too. With maxUnavailable 0 it cannot take what serves; with 25 % it can, and here did."
finish
