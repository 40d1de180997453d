#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
begin "Lab 3, Exercise 1: explore the healthy system"
load probegate demo-model-v1
POD=app.kubernetes.io/instance=model-server
probes_of() { k describe pod "$1" | grep -E '^ +(Liveness|Readiness|Startup):'; }
addresses_are_the_pods() {
    [ "$(k get pods -l $POD -o 'jsonpath={range .items[*]}{.status.podIP}{"\n"}{end}' | sort)" = "$(k get endpointslices \
        -l kubernetes.io/service-name=model-server -o 'jsonpath={range .items[*].endpoints[*]}{.addresses[0]}{"\n"}{end}' | sort)" ]
}
passes() { local pod; for pod in $(k get pods -l $POD -o 'jsonpath={.items[*].metadata.name}'); do ask "pod/$pod:9090" "$1" | grep '"pass"' || return; done; }

step "1. The running pods"
install
within 120 "three pods are ready" is 3 ready_pods $POD || die "nothing to explore"
show k get pods
expect "each has two containers, and both are ready" eval '[ "$(k get pods --no-headers | awk "{ print \$2 }" | sort -u)" = 2/2 ]'
expect "no container was restarted" is 0 restarts $POD model

step "2. One pod in detail"
pod=$(pod_of $POD)
show probes_of "$pod"
port() { field "$pod" ".spec.containers[0].$1.httpGet.port"; }
expect "all three probes of the model server ask the sidecar" eval '[ "$(port startupProbe) $(port livenessProbe) $(port readinessProbe)" = "9090 9090 9090" ]'
show k get events --field-selector "involvedObject.name=$pod" --sort-by=.lastTimestamp -o 'custom-columns=TYPE:.type,REASON:.reason,MESSAGE:.message'
expect "its events tell of the start and of no failed liveness probe" eval 'happened $POD Started && ! happened $POD "Liveness probe failed"'
note "" "The lab expects successful probes among the events. The kubelet writes down failures only: no news is good news."

step "3. The Service's endpoints"
show k get endpointslices -l kubernetes.io/service-name=model-server
expect "three addresses" is 3 endpoints
expect "they are the pods' own" addresses_are_the_pods

step "4. The health endpoints"
for path in /health /ready; do show ask service/model-server:80 "$path"; done
note "Port 80 is the traffic: those are the model server's own words, past the gate. What the kubelet is told stands on the sidecar's port:"
for path in /health /ready /startup; do
    show ask "pod/$pod:9090" "$path"
    expect "all three pods pass $path" passes "$path"
done
page() { ask service/model-server:9090 /metrics | grep -E '^(model_accuracy|model_degraded|model_requests_total|probegate_gate_status)'; }
show page
expect "/metrics has the model's figures and the sidecar's on one page" eval 'page | grep ^model_accuracy && page | grep ^probegate_gate_status'
show status "pod/$pod"
expect "the sidecar says why, check by check" eval 'status "pod/$pod" | grep answers'

step "The questions"
note "1. \`READY 1/1\`: one container of one passes its readiness probe. Here it is \`2/2\`, the model server and its sidecar."
note "2. Three addresses: one for each pod that is ready."
note "3. A pod whose readiness failed would leave the Service and not be restarted. So it is:"
ask "pod/$pod:8080" /ready/disable "{}" >/dev/null
within 20 "told not to be ready, it leaves: two addresses" is 2 endpoints
stays 10 "nobody is restarted" is 0 restarts $POD model
show status "pod/$pod"
finish
