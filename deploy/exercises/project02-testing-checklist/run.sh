#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
begin "Project 02: the testing checklist"
load probegate demo-model-v1
here=$(cd "$(dirname "$0")" && pwd)
POD=app.kubernetes.io/instance=model-server
readonly INGRESS=127.0.0.1:39180 PROMETHEUS=127.0.0.1:39190
K6=${K6:-$({ [ -x "$ROOT/target/tools/k6" ] && echo "$ROOT/target/tools/k6"; } || command -v k6 || true)}
values=(-f "$here/values.yaml" --set model.resources.requests.cpu=10m)

work=$(mktemp -d)
started_here=()
tidy() { for pid in ${started_here[@]+"${started_here[@]}"}; do kill "$pid" && wait "$pid"; done 2>/dev/null; rm -rf "$work"; close; }
trap tidy EXIT

names() { k get pods -l $POD -o 'jsonpath={.items[*].metadata.name}'; }
gates_pass() { local pod path; for pod in $(names); do for path in /health /ready /startup; do ask "pod/$pod:9090" $path | grep '"pass"' || return; done; done; }
answered() { ask "pod/$1:9090" /metrics | awk '/^model_requests_total\{.*200/ { sum += $2 } END { print sum + 0 }'; }
replicas() { k get deployment model-server -o 'jsonpath={.status.readyReplicas}'; }
wanted() { k get hpa model-server -o 'jsonpath={.status.desiredReplicas}'; }
at_least() { [ "$("${@:2}")" -ge "$1" ]; }
# A rollout with customers, and what they saw of it: changes with the words given.
under_customers() {
    while :; do endpoints; sleep 1; done >"$work/addresses" 2>/dev/null &
    local sampler=$!
    started_here+=($sampler)
    customer model-server 20
    "$@" >/dev/null
    within 120 "the rollout is complete" k rollout status deployment/model-server --timeout=1s
    # The last of the old pods drain.
    sleep 15
    customer_saw "The customers, meanwhile"
    kill $sampler 2>/dev/null
    wait $sampler 2>/dev/null
    local looks least
    looks=$(wc -l <"$work/addresses")
    least=$(sort -n "$work/addresses" | head -n 1)
    note "" "The Service's addresses, at $looks looks: never fewer than ${least:-?}."
    expect "never fewer than three addresses, at ten looks or more" eval '[ "$looks" -ge 10 ] && [ "$least" -ge 3 ]'
}
# What the HPA wanted over time, as "SECOND REPLICAS": rises are held for five minutes (less what a look may come late), and
# within three quarters of a minute it goes down by half at most.
held() { awk 'NF == 2 { for (i = 1; i <= n; i++) if (rose[i] && $1 - at[i] < 270 && $2 < was[i]) exit 1
    n++; rose[n] = n > 1 && $2 > was[n - 1]; at[n] = $1; was[n] = $2; some += rose[n] } END { if (!some) exit 1 }' "$1"; }
halves() { awk 'NF == 2 { for (i = 1; i <= n; i++) if ($1 - at[i] < 45 && $2 < int(was[i] / 2)) exit 1
    n++; down += n > 1 && $2 < was[n - 1]; at[n] = $1; was[n] = $2 } END { if (!down) exit 1 }' "$1"; }
policies() { k get hpa model-server -o "jsonpath={.spec.behavior.$1.stabilizationWindowSeconds} s, {.spec.behavior.$1.selectPolicy}{range .spec.behavior.$1.policies[*]} {.type} {.value} in {.periodSeconds} s{end}"; }
envs() { k get pods -l $POD -o 'jsonpath={range .items[*]}{.spec.containers[0].env[*].value}{"\n"}{end}' | sort -u; }

step "Pods start successfully"
install "${values[@]}"
within 120 "three pods are ready" is 3 ready_pods $POD || die "nothing to test"
expect "without a restart" is 0 restarts $POD model
show k get all

step "Health checks pass"
expect "/health, /ready and /startup of all three pods" gates_pass

step "Service load balances across pods"
before=$(for pod in $(names); do echo "$pod $(answered "$pod")"; done)
line=$(drive "$(address_of model-server 80)" 15s:40)
note "$line"
shares=$(while read -r pod count; do echo "$pod $(($(answered "$pod") - count))"; done <<<"$before")
show echo "$shares"
expect "every pod answered its part, at least a fifth of all" eval 'awk "{ n[NR] = \$2; sum += \$2 } END { for (i in n) if (n[i] * 5 < sum) exit 1 }" <<<"$shares"'
expect "all requests succeed" eval "[[ '$line' =~ ^[1-9][0-9]*\ requests,.*\ 0\ wrong,\ 0\ failed ]]"

step "HPA scales up under load"
within 120 "it knows what the pods use" eval 'k get hpa model-server -o "jsonpath={.status.currentMetrics[*].containerResource.current.averageUtilization}" | grep .'
show k get hpa
expect "up: at once, the larger of double and two in 30 s" eval '[ "$(policies scaleUp)" = "0 s, Max Percent 100 in 30 s Pods 2 in 30 s" ]'
expect "down: after 300 s, by half in a minute" eval '[[ "$(policies scaleDown)" =~ ^300\ s,\ (Max)?\ Percent\ 50\ in\ 60\ s$ ]]'
while :; do echo "$SECONDS $(wanted)"; sleep 2; done >"$work/wanted" 2>/dev/null &
started_here+=($!)
stages=20s:40,100s:40
BATCH=${BATCH:-128}
line=
if [ -n "$K6" ]; then
    note "The load test by k6 ($("$K6" version | grep -o 'v[0-9.]*' | head -n 1)), batches of $BATCH digits, connections of their own:"
    run_inside "$work/k6" env TARGET="http://$(address_of model-server 80)" STAGES=$stages BATCH=$BATCH "$K6" run --quiet --no-usage-report "$here/../load/load.js"
else
    note "k6 is not here: the same load by load.py, batches of $BATCH digits, connections of their own:"
    drive "$(address_of model-server 80)" $stages --batch "$BATCH" --most-failed 0.01 --p95 500 >"$work/k6" 2>&1 &
fi
pid=$!
from=$SECONDS
within 120 "the HPA wants more than three" at_least 4 wanted && up=$((SECONDS - from))
show k get hpa
within 60 "and they are ready" at_least 4 replicas
wait $pid
rc=$?
line=$(grep requests, "$work/k6" | tail -n 1)
note "$line"
expect "the load test's own limits are kept: nothing wrong, at most 1 % failed, p95 at most 500 ms" test $rc = 0
expect "all requests succeed" eval "[[ '$line' =~ ^[1-9][0-9]*\ requests,.*\ 0\ wrong,\ 0\ failed ]]"
expect "no pod crashed" is 0 restarts $POD model
show k get pods
most=$(replicas)

step "The same load by our own generator, as where k6 is not installed"
line=$(drive "$(address_of model-server 80)" 10s:40,20s:40 --batch "$BATCH" --most-failed 0.01 --p95 500)
rc=$?
note "$line"
expect "within the same limits" test $rc = 0
quiet=$SECONDS

step "Ingress routes traffic"
controller() { k get ingress model-server -o 'jsonpath={.status.loadBalancer.ingress[0].ip}{.status.loadBalancer.ingress[0].hostname}'; }
through=$(controller)
if [ -z "$through" ]; then
    nginx=$(command -v nginx || echo /usr/sbin/nginx)
    [ -x "$nginx" ] || die "neither an Ingress controller in the cluster nor an nginx here"
    k get ingress model-server -o json | "$here/ingress.py" --listen $INGRESS --to "model-server=$(address_of model-server 80)" >"$work/nginx.conf"
    run_inside "$work/nginx.log" "$nginx" -p "$work" -c nginx.conf
    started_here+=($!)
    through=$INGRESS
    note "Stand-in: the cluster has no Ingress controller. This machine's $("$nginx" -v 2>&1 | cut -d' ' -f3), configured from the Ingress object by ingress.py, is in its place."
fi
routed() { inside curl -sS --max-time 10 -o "$work/answer" -w '%{http_code}' "$@"; }
within 20 "GET /health by its host name" is 200 routed -H 'Host: model.example' "http://$through/health"
digit=$(ask service/model-server:80 /digits/7)
expect "POST /predict, and the digit is right" eval '[ "$(routed -H "Host: model.example" --json "$digit" "http://$through/predict")" = 200 ] && grep -q "\"correct\":true" "$work/answer"'
expect "another host is not routed: 404" is 404 routed -H 'Host: other.example' "http://$through/health"
head -c 11000000 /dev/zero >"$work/large"
expect "a body above 10 MB is refused: 413" is 413 routed -H 'Host: model.example' --data-binary "@$work/large" "http://$through/predict"

step "Monitoring collects metrics"
if command -v prometheus >/dev/null; then
    note "Stand-in: Debian's Prometheus is built without Kubernetes discovery. The script gives it the pods that carry the annotations."
    annotated() { k get pods -o json | python3 -c 'import json, sys
pods = [(pod, pod["metadata"].get("annotations", {})) for pod in json.load(sys.stdin)["items"] if pod["status"].get("podIP")]
print(json.dumps([{"targets": [pod["status"]["podIP"] + ":" + notes["prometheus.io/port"]], "labels": {"pod": pod["metadata"]["name"],
    "__metrics_path__": notes["prometheus.io/path"]}} for pod, notes in pods if notes.get("prometheus.io/scrape") == "true"]))'; }
    annotated >"$work/targets.json"
    cat >"$work/prometheus.yaml" <<YAML
global: {scrape_interval: 5s}
scrape_configs:
  - job_name: pods
    file_sd_configs: [{files: [targets.json]}]
YAML
    run_inside "$work/prometheus.log" prometheus --config.file="$work/prometheus.yaml" --storage.tsdb.path="$work/data" --web.listen-address=$PROMETHEUS
    started_here+=($!)
    query() { inside curl -fsS --max-time 10 -G "http://$PROMETHEUS/api/v1/query" --data-urlencode "query=$1" |
        python3 -c 'import json, sys
for row in json.load(sys.stdin)["data"]["result"]:
    print(row["metric"].get("pod", ""), row["value"][1])'; }
    within 60 "Prometheus scrapes every pod, found by its annotations" eval '[ "$(query "up == 1" | grep -c .)" = "$(k get pods -l $POD --no-headers | wc -l)" ]'
    note "Pods, requests answered, accuracy:"
    show query 'sum by (pod) (model_requests_total)'
    show query model_accuracy
    expect "the model's own metrics are there" eval 'query model_accuracy | grep .'
    expect "so are the sidecar's verdicts" eval 'query "probegate_gate_status{gate=\"ready\"}" | grep " 1$"'
else
    note "No Prometheus here (scripts/setup deploy): the page is read as it is scraped."
    expect "the pod's page has the model's metrics and the sidecar's" eval 'page=$(ask "pod/$(pod_of):9090" /metrics); [[ $page == *model_accuracy* && $page == *probegate_gate_status* ]]'
fi
within 60 "the metrics server knows them too" k top pods -l $POD
show k top pods -l $POD --containers

step "Logs are accessible"
pod=$(pod_of)
show k logs "$pod" -c model --tail=3
show k logs "$pod" -c probegate --tail=3
expect "the model server's" eval 'k logs "$pod" -c model | grep listening'
expect "the sidecar's" eval 'k logs "$pod" -c probegate | grep .'

step "Rolling update works"
under_customers install "${values[@]}" --set 'model.env[0].name=RELEASE' --set 'model.env[0].value=next'
within 60 "every pod has what is new" is next envs

step "Rollback works"
under_customers k rollout undo deployment/model-server
expect "nothing of the update is left" eval '[ -z "$(k get deployment model-server -o "jsonpath={.spec.template.spec.containers[0].env}")" ]'

step "HPA scales down when idle"
within 780 "back to three, after five quiet minutes and by half a minute" is 3 wanted
within 10 "the look-out has seen it too" eval 'tail -n 1 "$work/wanted" | grep -q " 3$"'
expect "no rise was taken back within five minutes" held "$work/wanted"
expect "and never more than half went in one period" halves "$work/wanted"
show awk 'NF == 2 && $2 != was { was = $2; print "wanted after " $1 " s: " $2 }' "$work/wanted"
within 60 "three pods are left" is 3 ready_pods
show k get hpa
show k get events --field-selector reason=SuccessfulRescale -o 'custom-columns=MESSAGE:.message'
note "" "From ${most:-?} pods to three, $((SECONDS - quiet)) s after the load ended; up it went after ${up:-?} s."
expect "no pod crashed in all of this" is 0 restarts $POD model
finish
