#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
begin "Lab 3, Exercise 2: deploy the buggy version and observe the failures"
load probegate demo-model-v1 demo-model-v2

# The pod of version 2 among those with a label, and its address.
of_v2() { k get pods -l "$1" -o 'jsonpath={range .items[*]}{.metadata.name} {.spec.containers[0].image}{"\n"}{end}' | awk '/:v2$/ { print $1 }'; }
ready_column() { k get pod "$1" --no-headers | awk '{ print $2 }'; }
has_traffic() { k get endpointslices -l kubernetes.io/service-name=naive \
    -o 'jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.addresses[0]}{"\n"}{end}' | grep -Fx "$(field "$1" .status.podIP)"; }

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
naive=$(of_v2 app=naive)
within 60 "naive: the new pod's READY is 0/1, for the server fails its own readiness too" is 0/1 ready_column "$naive"
within 60 "guarded: the rollout stops by itself (ProgressDeadlineExceeded)" \
    eval 'k get deployment model-server -o "jsonpath={.status.conditions[?(@.type==\"Progressing\")].reason}" | grep ProgressDeadlineExceeded'
show k get pods
show k get events --field-selector type=Warning --sort-by=.lastTimestamp -o 'custom-columns=OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message'
show k get endpointslices -l kubernetes.io/service-name=naive
expect "naive: the new pod is not among the Service's addresses" eval '[ -n "$naive" ] && ! has_traffic "$naive"'
within 60 "naive: the three old ones are, for the default strategy waits for the new one" is 3 endpoints naive
show ask service/naive:80 /health
within 30 "naive: so the Service answers" ask service/naive:80 /health
expect "guarded: not one restart of the model server" is 0 restarts app.kubernetes.io/instance=model-server model
expect "guarded: the three old pods have stayed in the Service, the new one never got in" is 3 endpoints
bad=$(of_v2 app.kubernetes.io/instance=model-server)
note "" "Why the new pod is not ready, in the sidecar's words:"
show status "pod/$bad"
expect "the reason is the accuracy on labelled digits" eval "status pod/$bad | grep 'of 20 right'"

customer_saw "The customer of the guarded Service"

step "The questions"
note "1. RESTARTS goes up because the liveness probe fails three times and the kubelet restarts the container. The guarded pod is not restarted: no restart makes a bad model good, so accuracy is readiness's business."
note "2. \`0/1\` (\`1/2\` with the sidecar): the readiness probe fails, so the pod gets no traffic."
note "3. Liveness failing costs a restart, readiness failing costs the place in the Service."
finish
