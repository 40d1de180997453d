#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
begin "Lab 3, Exercise 4: Prometheus, alerts, and a rollback that nobody has to trigger"
load probegate demo-model-v1 demo-model-v2
command -v prometheus >/dev/null && command -v prometheus-alertmanager >/dev/null || die "no Prometheus here (scripts/setup deploy)"
readonly PROMETHEUS=127.0.0.1:39090 ALERTMANAGER=127.0.0.1:39093 WEBHOOK=127.0.0.1:39095
curled() { inside curl -fsS --max-time 10 "$@"; }
query() { curled -G "http://$PROMETHEUS/api/v1/query" --data-urlencode "query=$1" |
    python3 -c 'import json, sys
for row in json.load(sys.stdin)["data"]["result"]:
    print(row["metric"].get("pod") or row["metric"].get("alertname", ""), row["metric"].get("code", ""), row["value"][1])'; }
firing() { query 'ALERTS{alertstate="firing"}' | awk '{ print $1 }' | sort -u; }
fires() { query "ALERTS{alertname=\"$1\",alertstate=\"firing\"}" | grep .; }
silent() { ! fires "$1"; }
image_now() { k get deployment model-server -o 'jsonpath={.spec.template.spec.containers[0].image}'; }

work=$(mktemp -d)
started_here=()
tidy() { for pid in ${started_here[@]+"${started_here[@]}"}; do kill "$pid" && wait "$pid"; done 2>/dev/null; rm -rf "$work"; close; }
trap tidy EXIT
begin_inside() { run_inside "$work/$(basename "$1").log" "$@"; started_here+=($!); }
targets() { k get pods -l app.kubernetes.io/instance=model-server -o json | python3 -c 'import json, sys
pods = [pod for pod in json.load(sys.stdin)["items"] if pod["status"].get("podIP")]
print(json.dumps([{"targets": [pod["status"]["podIP"] + ":9090"], "labels": {"namespace": pod["metadata"]["namespace"],
    "pod": pod["metadata"]["name"], "job": "model-server"}} for pod in pods]))' >"$work/targets.new" && mv "$work/targets.new" "$work/targets.json"; }

step "Two pods of version 1, Prometheus and Alertmanager with the files of deploy/"
install --set replicaCount=2
within 120 "two pods are ready" is 2 ready_pods || die "nothing to watch"
cp "$ROOT"/deploy/monitoring/{alert,recording}-rules.yaml "$work/"
sed "s#http://rollback.model-serving:9095#http://$WEBHOOK#" "$ROOT/deploy/rollback/alertmanager.yaml" >"$work/alertmanager.yaml"
cat >"$work/prometheus.yaml" <<YAML
global: {scrape_interval: 5s, evaluation_interval: 5s}
rule_files: [alert-rules.yaml, recording-rules.yaml]
alerting: {alertmanagers: [{static_configs: [{targets: ["$ALERTMANAGER"]}]}]}
scrape_configs:
  - job_name: model-server
    file_sd_configs: [{files: [targets.json], refresh_interval: 5s}]
YAML
targets
while :; do sleep 3; targets; done 2>/dev/null &
started_here+=($!)
begin_inside prometheus --config.file="$work/prometheus.yaml" --storage.tsdb.path="$work/data" --web.listen-address="$PROMETHEUS"
begin_inside prometheus-alertmanager --config.file="$work/alertmanager.yaml" --storage.path="$work/am" --cluster.listen-address= \
    --web.listen-address="$ALERTMANAGER"
within 60 "Prometheus scrapes both pods" eval '[ "$(query "up == 1" | grep -c .)" = 2 ]' || die "$(tail -n 3 "$work/prometheus.log")"

step "The webhook, with an account that may touch this one Deployment"
k apply -f "$ROOT/deploy/rollback/webhook.yaml" >/dev/null
"${KUBECTL[@]}" config view --raw --minify --flatten >"$work/kubeconfig"
chmod 600 "$work/kubeconfig"
as_rollback=("${KUBECTL[@]}" --kubeconfig "$work/kubeconfig")
"${as_rollback[@]}" config set-credentials rollback --token="$(k create token rollback --duration=1h)" >/dev/null
"${as_rollback[@]}" config set-context --current --user=rollback >/dev/null
expect "it may not delete pods" eval '! "${as_rollback[@]}" -n "$NAMESPACE" auth can-i delete pods'
expect "it may not patch another Deployment" eval '! "${as_rollback[@]}" -n "$NAMESPACE" auth can-i patch deployments/other'
begin_inside "$ROOT/deploy/rollback/webhook.py" --deployment "$NAMESPACE/model-server" --listen "$WEBHOOK" --kubectl "${as_rollback[*]}"
within 20 "it listens" eval 'grep -q listening "$work/webhook.py.log"'

step "The lab's queries, on version 1"
for metric in model_accuracy model_degraded model_latency_ms model_requests_total; do show query "$metric"; done
stays 10 "no alert fires" eval '[ -z "$(firing)" ]'

step "Version 2"
customer model-server
from=$SECONDS
install --set replicaCount=2 --set model.image.tag=v2
within 180 "ProbegateAccuracyLow fires" fires ProbegateAccuracyLow && fired=$((SECONDS - from))
show query model_accuracy
show query 'ALERTS{alertstate="firing"}'
within 60 "the webhook undoes the rollout" is probegate-demo-model:v1 image_now && undone=$((SECONDS - from))
show cat "$work/webhook.py.log"
within 60 "the rollout is complete" k rollout status deployment/model-server --timeout=1s
within 90 "the alert is over" silent ProbegateAccuracyLow
note "" "Fired after ${fired:-?} s, undone after ${undone:-?} s."
customer_saw "The customer, from version 2 on"

step "An alert about what a rollback made is left to people"
about() { # POD: the alert about it
    printf '{"alerts":[{"status":"firing","labels":{"alertname":"ProbegateAccuracyLow","namespace":"%s","pod":"%s"}}]}' "$NAMESPACE" "$1"
}
pod=$(k get pods -l app.kubernetes.io/instance=model-server -o 'jsonpath={.items[0].metadata.name}')
show curled --json "$(about "$pod")" "http://$WEBHOOK/alerts"
expect "it says so" eval 'grep -q "a person is needed" "$work/webhook.py.log"'
expect "the bad release was not brought back" is probegate-demo-model:v1 image_now

step "The questions"
note "1. The threshold is 0.8, for one minute."
note "2. This is how: an Alertmanager webhook that calls \`kubectl rollout undo\`, once for each release."
finish
