#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
begin "Self-Healing, demonstration 3: toggle readiness with POST /ready/disable"
load probegate demo-model-v1
GUARDED=app.kubernetes.io/instance=model-server
addresses() { k get endpointslices -l "kubernetes.io/service-name=$1" -o 'jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.addresses[0]}{"\n"}{end}' | sort -u; }
in_service() { addresses "$1" | grep -x "$(field "$2" .status.podIP)"; }
out_of_service() { ! in_service "$@"; }
shown() { k get pod "$1" --no-headers | awk '{ print $2 }'; }

step "Three pods, plain and guarded"
k apply -f "$HERE/manifests/fastapi-k8s.yaml" >/dev/null
# The model server's own port is opened to us: through the sidecar a pod that is not ready is not reached.
install --set 'model.args={--listen,0.0.0.0:8000}' --set networkPolicy.enabled=false
within 120 "all six are ready" eval '[ "$(ready_pods app=fastapi-k8s)" = 3 ] && [ "$(ready_pods)" = 3 ]' || die "nothing to toggle"
show k get endpointslices

for design in fastapi-k8s model-server; do
    label=app=fastapi-k8s container=fastapi-k8s whole=1/1 none=0/1
    [ $design = fastapi-k8s ] || { label=$GUARDED container=model whole=2/2 none=1/2; }
    pod=$(pod_of $label)
    step "$design: POST /ready/disable on one pod"
    ask "pod/$pod:8000" /ready/disable "{}" >/dev/null
    within 30 "its address is gone from the endpoints" out_of_service $design "$pod"
    expect "the other two are there" is 2 endpoints $design
    show k get pods -l $label
    within 10 "it shows $none, and runs on" is $none shown "$pod"
    [ $design = fastapi-k8s ] || show status "pod/$pod"
    saw=$(drive "$(address_of $design 80)" 10s:20)
    note "Customers, for ten seconds: $saw."
    expect "none of them came to it: nothing failed" eval "[[ '$saw' =~ \ 0\ wrong,\ 0\ failed ]]"
    stays 20 "it is not restarted" is 0 restarts $label $container
    ask "pod/$pod:8000" /ready/enable "{}" >/dev/null
    within 30 "POST /ready/enable: its address is back" in_service $design "$pod"
    within 10 "it shows $whole" is $whole shown "$pod"
done
finish
