#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
begin "Lab 3, Exercise 2: deploy the buggy version and observe the failures"
load probegate demo-model-v1 demo-model-v2

step "Version 1, twice: as the lab has it, and guarded"
k apply -f "$(dirname "$0")/naive.yaml" >/dev/null
install
within 120 "three naive pods are ready" is 3 ready_pods app=naive
within 120 "three guarded pods are ready" is 3 ready_pods
show k get pods

step "Version 2, which answers every request with 200 and garbage"
customer model-server
k set image deployment/naive model=probegate-demo-model:v2 >/dev/null
install --set model.image.tag=v2 --set rollout.progressDeadlineSeconds=40

within 120 "naive: RESTARTS goes up, for the server fails its own liveness" eval '[ "$(restarts app=naive model)" -ge 1 ]'
within 60 "guarded: the rollout stops by itself (ProgressDeadlineExceeded)" \
    eval 'k get deployment model-server -o "jsonpath={.status.conditions[?(@.type==\"Progressing\")].reason}" | grep ProgressDeadlineExceeded'
show k get pods
show k get events --field-selector type=Warning --sort-by=.lastTimestamp -o 'custom-columns=OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message'
expect "guarded: not one restart of the model server" is 0 restarts app.kubernetes.io/instance=model-server model
expect "guarded: the three old pods have stayed in the Service, the new one never got in" is 3 endpoints
bad=$(k get pods -l app.kubernetes.io/instance=model-server -o 'jsonpath={range .items[*]}{.metadata.name} {.spec.containers[0].image}{"\n"}{end}' | awk '/:v2$/ { print $1 }')
note "" "Why the new pod is not ready, in the sidecar's words:"
show status "pod/$bad"
expect "the reason is the accuracy on labelled digits" eval "status pod/$bad | grep 'of 20 right'"

customer_saw "The customer of the guarded Service"

step "The questions"
note "1. RESTARTS goes up because the liveness probe fails three times and the kubelet restarts the container. The guarded pod is not restarted: no restart makes a bad model good, so accuracy is readiness's business."
note "2. \`0/1\` (\`1/2\` with the sidecar): the readiness probe fails, so the pod gets no traffic."
note "3. Liveness failing costs a restart, readiness failing costs the place in the Service."
finish
