#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
begin "Lab 3, bonus: a cascading failure"
load probegate demo-model-v1 demo-model-v2
here=$(dirname "$0")
GUARDED=app.kubernetes.io/instance=model-server

step "Three pods without readiness probes, three that are guarded; one of each goes bad"
k apply -f "$here/bare.yaml" >/dev/null
install
within 120 "all six run" eval '[ "$(ready_pods app=bare)" = 3 ] && [ "$(ready_pods)" = 3 ]' || die "nothing to break"
ask "pod/$(pod_of app=bare):8080" /degrade "{}" >/dev/null
sick=$(pod_of)
ask "pod/$sick:8080" /degrade "{}" >/dev/null
within 60 "guarded: the bad pod leaves, two carry the traffic" is 2 endpoints
expect "bare: all three stay" is 3 endpoints bare
show status "pod/$sick"
bare=$(drive "$(address_of bare 80)" 20s:20)
guarded=$(drive "$(address_of model-server 80)" 20s:20)
note "" "Twenty seconds of customers. Without readiness: $bare. Guarded: $guarded."
expect "bare: customers get wrong answers" test "$(seen wrong "$bare")" -gt 0
expect "guarded: no answer is wrong, none failed" eval "[[ '$guarded' =~ \ 0\ wrong,\ 0\ failed ]]"
expect "guarded: it was not restarted for it" is 0 restarts $GUARDED model

step "The lab's own way: two replicas, version 2, and the endpoints watched"
install --set replicaCount=2
k scale deployment bare --replicas=2 >/dev/null
within 90 "two of each" eval '[ "$(k get pods -l app=bare --no-headers | wc -l)" = 2 ] && [ "$(k get pods -l $GUARDED --no-headers | wc -l)" = 2 ]'
k rollout restart deployment/model-server >/dev/null   # a fresh start for the pod that was told to be bad
within 90 "and all good" eval 'k rollout status deployment/model-server --timeout=1s && [ "$(endpoints)" = 2 ]'
k set image deployment/bare model=probegate-demo-model:v2 >/dev/null
install --set replicaCount=2 --set model.image.tag=v2
within 60 "bare: version 2 has taken over" k rollout status deployment/bare --timeout=1s
stays 30 "guarded: both old pods stay in the Service, the new one does not get in" is 2 endpoints
show k get endpointslices
bare=$(drive "$(address_of bare 80)" 10s:20)
guarded=$(drive "$(address_of model-server 80)" 10s:20)
note "" "Without readiness: $bare. Guarded: $guarded."
expect "bare: most answers are wrong" test "$(seen wrong "$bare")" -gt "$(seen right "$bare")"
expect "guarded: no answer is wrong, none failed" eval "[[ '$guarded' =~ \ 0\ wrong,\ 0\ failed ]]"
k delete -f "$here/bare.yaml" --wait=false >/dev/null

step "The cascade: three pods at 80 % of what they can do, and one crashes"
k apply -f "$here/deep.yaml" >/dev/null
install -f "$here/values.yaml"
within 180 "three of each, of the slow kind" eval '[ "$(endpoints deep)" = 3 ] && k rollout status deployment/model-server --timeout=1s && [ "$(endpoints)" = 3 ]' || die "no load without them"
# One after the other, so that neither takes the machine from the other.
fall() { # DEPLOYMENT LABEL PORT: a minute of load, a crash in its fifteenth second; leaves `line` and `least`
    local work out
    work=$(mktemp -d)
    out=$work/customers.log
    drive "$(address_of "$1" 80)" 70s:48 --timeout 3 >"$out" &
    local pid=$! now
    sleep 15
    poke "$(pod_of "$2")" "$3" /crash
    least=3
    while kill -0 $pid 2>/dev/null; do
        now=$(endpoints "$1")
        [ "$now" -lt "$least" ] && least=$now
        sleep 1
    done
    show cat "$out"
    line=$(tail -n 1 "$out")
    rm -rf "$work"
}
fall deep app=deep 8080
deep=$line deep_least=$least deep_restarts=$(restarts app=deep model)
show k get pods -l app=deep
fall model-server $GUARDED 8000
guarded=$line guarded_least=$least
show k get pods -l $GUARDED
note "" "| | answers | fewest pods in the Service | restarts, the crash among them |" "|---|---|---|---|" \
    "| probes that ask for an inference | $deep | $deep_least | $deep_restarts |" \
    "| guarded | $guarded | $guarded_least | $(restarts $GUARDED model) |" ""
expect "probes that ask for an inference: the crash of one took the others along" test "$deep_restarts" -gt 1
expect "guarded: nobody but the crashed one was restarted" is 1 restarts $GUARDED model
expect "guarded: the other two stayed in the Service" is 2 echo "$guarded_least"
expect "guarded: more requests were answered" test "$(seen right "$guarded")" -gt "$(seen right "$deep")"
within 60 "guarded: all three are back" is 3 endpoints

step "The key insight"
note "Readiness takes a bad pod out of the traffic, and its share goes to the others. Whether that protects users or pulls the others down too depends on what they do with more than they can: a probe that waits in the same queue as the customers fails when the pod is busy, and takes out a pod that was needed. The sidecar refuses what is too much, and answers the probes from what it knows."
finish
