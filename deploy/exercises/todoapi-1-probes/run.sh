#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
begin "The todoapi lab, part 2: liveness and readiness probes"
load probegate demo-model-v1
GUARDED=app.kubernetes.io/instance=model-server
todoapi() { k patch deployment todoapi --type=strategic -p "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"todoapi\",$1}]}}}}" >/dev/null; }
rolled_out() { k rollout status deployment/todoapi --timeout=1s && [ "$(k get pods -l app=todoapi --no-headers | wc -l)" = 2 ]; }
running() { [ "$(k get pods -l app=todoapi --no-headers | grep -c Running)" = 2 ]; }
# Each answers, and none was ever restarted.
well() {
    local pod
    rolled_out || return
    for pod in $(k get pods -l app=todoapi -o 'jsonpath={.items[*].metadata.name}'); do ask "pod/$pod:8000" / || return; done
    [ "$(restarts app=todoapi todoapi)" = 0 ]
}
# While everything hangs, the controls alone answer.
hang() { ask "pod/$1" /hang?all=1 "{}" >/dev/null; }

step "No probes"
k apply -f "$HERE/manifests/todoapi.yaml" >/dev/null
within 60 "two pods run" running || die "nothing to probe"
hang "$(pod_of app=todoapi):8000"
within 10 "one hangs: no request to it is answered" eval '! timeout 2 "${KUBECTL[@]}" get --raw "/api/v1/namespaces/$NAMESPACE/pods/$(pod_of app=todoapi):8000/proxy/"'
stays 20 "it stays ready and in the Service, and nobody restarts it" eval '[ "$(ready_pods app=todoapi)" = 2 ] && [ "$(endpoints todoapi)" = 2 ] && [ "$(restarts app=todoapi todoapi)" = 0 ]'
show k get pods -l app=todoapi

step "A liveness probe on /, port 8000"
todoapi '"livenessProbe":{"httpGet":{"path":"/","port":8000},"periodSeconds":3,"failureThreshold":3}'
within 90 "the change is rolled out" rolled_out
hang "$(pod_of app=todoapi):8000"
within 60 "one hangs: the kubelet restarts it" is 1 restarts app=todoapi todoapi
show k get events --field-selector reason=Unhealthy -o 'custom-columns=OBJECT:.involvedObject.name,MESSAGE:.message'
show k get pods -l app=todoapi

step "Playing with initialDelaySeconds: an application that needs 20 s"
todoapi '"args":["--listen","0.0.0.0:8000","--load-time","20s"],"livenessProbe":{"httpGet":{"path":"/","port":8000},"initialDelaySeconds":1,"periodSeconds":3,"failureThreshold":3}'
restarted() { [ "$(k get pods -l app=todoapi -o 'jsonpath={range .items[*]}{.status.containerStatuses[0].restartCount}{"\n"}{end}' | sort -n | tail -n 1)" -ge 2 ]; }
within 90 "1 s is too early: it is restarted before it is there, again and again" restarted
show k get pods -l app=todoapi
todoapi '"livenessProbe":{"httpGet":{"path":"/","port":8000},"initialDelaySeconds":25,"periodSeconds":3,"failureThreshold":3}'
within 120 "25 s is enough" well
todoapi '"startupProbe":{"httpGet":{"path":"/","port":8000},"periodSeconds":2,"failureThreshold":60},"livenessProbe":{"httpGet":{"path":"/","port":8000},"initialDelaySeconds":0,"periodSeconds":3,"failureThreshold":3}'
within 120 "a startup probe needs no such guess: it asks until the application is there" well
todoapi '"args":["--listen","0.0.0.0:8000"]'
within 120 "and a quick start is quick" well

step "A readiness probe, copied from the liveness probe"
todoapi '"livenessProbe":{"httpGet":{"path":"/","port":8000},"initialDelaySeconds":0,"periodSeconds":3,"failureThreshold":3},"readinessProbe":{"httpGet":{"path":"/","port":8000},"periodSeconds":3,"failureThreshold":1}'
within 90 "the change is rolled out" rolled_out
sick=$(pod_of app=todoapi)
hang "$sick:8000"
within 30 "everything hangs: it leaves the Service first" is 1 endpoints todoapi
within 60 "then it is restarted: the same question twice, and the second answer comes too late to matter" is 1 restarts app=todoapi todoapi
within 60 "it is back" is 2 endpoints todoapi
other=$(k get pods -l app=todoapi -o 'jsonpath={.items[*].metadata.name}' | tr ' ' '\n' | grep -v "^$sick$")
ask "pod/$other:8000" /hang "{}" >/dev/null
stays 20 "only the work hangs, and / still says 200: neither probe sees anything" eval '[ "$(endpoints todoapi)" = 2 ] && [ "$(restarts app=todoapi todoapi)" = 1 ]'

step "The same, guarded"
install -f "$(dirname "$0")/values.yaml"
within 120 "two pods are ready" is 2 endpoints
sick=$(pod_of $GUARDED)
digit=$(ask "pod/$sick:8080" /digits/7)
ask "pod/$sick:8080" /hang "{}" >/dev/null
from=$SECONDS
ask "pod/$sick:8080" /predict "$digit" >/dev/null 2>&1 &
pending=$!
within 40 "only the work hangs: it leaves the Service, for it cannot read a digit" is 1 endpoints
show status "pod/$sick"
within 60 "it is restarted: work pending, nothing moving" is 1 restarts $GUARDED model
took=$((SECONDS - from))
kill $pending 2>/dev/null
wait $pending 2>/dev/null
within 60 "it is back" is 2 endpoints
note "" "Restarted $took s after the hang."

step "The questions"
note "1. The path is /, the port 8000. initialDelaySeconds is a guess about every start to come: too small and a slow start never ends, too large and a hang right after the start goes unseen. A startup probe asks instead."
note "2. A liveness probe that fails costs a restart, a readiness probe that fails the place in the Service. Copied, they ask the same thing, and / knows neither whether the work moves nor whether it is right."
finish
