#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
begin "The todoapi lab, part 5: a misspelled image"
load probegate demo-model-v1
GUARDED=app.kubernetes.io/instance=model-server
waiting() { k get pods -l "$1" -o 'jsonpath={range .items[*]}{.status.initContainerStatuses[*].state.waiting.reason} {.status.containerStatuses[*].state.waiting.reason}{"\n"}{end}'; }
cannot_pull() { waiting "$1" | grep -E 'ErrImagePull|ImagePullBackOff'; }

step "Both run"
k apply -f "$HERE/manifests/todoapi.yaml" >/dev/null
k scale deployment todoapi --replicas=4 >/dev/null
install
within 120 "four todoapi pods, three guarded ones" eval '[ "$(ready_pods app=todoapi)" = 4 ] && [ "$(endpoints)" = 3 ]' || die "nothing to sabotage"

step "The image's name is misspelled"
customer model-server
k set image deployment/todoapi todoapi=probegate-demo-modle:v1 >/dev/null
install --set model.image.repository=probegate-demo-modle --set rollout.progressDeadlineSeconds=20
within 60 "todoapi: ErrImagePull, then ImagePullBackOff" cannot_pull app=todoapi
within 60 "guarded: the model server's container the same" cannot_pull $GUARDED
show k get pods
show k get events --field-selector type=Warning --sort-by=.lastTimestamp -o 'custom-columns=OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message'
expect "todoapi: the default strategy has given one of four away for it" is 3 ready_pods app=todoapi
expect "guarded: three addresses" is 3 endpoints
bad=$(k get pods -l $GUARDED -o 'jsonpath={range .items[*]}{.metadata.name} {.spec.containers[0].image}{"\n"}{end}' | awk '/modle/ { print $1 }')
show status "pod/$bad"
expect "the new pod's sidecar runs, and says that it has nothing to guard yet" eval 'status "pod/$bad" | grep "startup *FAIL"'
within 60 "guarded: the rollout is given up by itself" given_up model-server
expect "todoapi: no restart will come of it, for nothing was ever started" is 0 restarts app=todoapi todoapi

step "Taken back"
k rollout undo deployment/todoapi >/dev/null
k rollout undo deployment/model-server >/dev/null
within 90 "both are whole" eval '[ "$(ready_pods app=todoapi)" = 4 ] && k rollout status deployment/model-server --timeout=1s && [ "$(endpoints)" = 3 ]'

step "The sidecar's own image is misspelled"
install --set image.repository=probegaet --set rollout.progressDeadlineSeconds=20
within 60 "Init:ErrImagePull: the model server waits for its sidecar" eval 'k get pods -l $GUARDED --no-headers | grep -E "Init:(ErrImagePull|ImagePullBackOff)"'
show k get pods -l $GUARDED
expect "three addresses" is 3 endpoints
k rollout undo deployment/model-server >/dev/null
within 90 "taken back" k rollout status deployment/model-server --timeout=1s
customer_saw "The customer of the guarded Service, all that time"

step "The questions"
note "1. What happens: the kubelet cannot pull, waits longer each time (ImagePullBackOff), and the rollout stands. What ran before runs on, less what the strategy gave away in advance."
note "2. In the wild: a tag that was never pushed, a registry that is down or wants a login, an image for another architecture, a digest that was deleted."
finish
