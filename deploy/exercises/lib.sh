# Shared by the exercises: a namespace of their own, steps that are written down, expectations that count.
#
# An exercise sources this and uses begin, step, show, expect, within, stays, k, ask, install, and at its end finish: one that ends
# without it has given up, whatever it had seen by then. What has something of its own to tidy up traps EXIT and ends in close.
# It reads:
#   KUBECTL      how to speak to the cluster (default kubectl)
#   HELM         the same for Helm (default target/tools/helm, or helm)
#   LOAD_IMAGE   a command that takes an image archive to the nodes; unset: the images are where the nodes find them
#   CLUSTER_NETWORK  a command that runs a program where the cluster's addresses are reached; unset: they are reached from here
#   K6           the k6 program (default target/tools/k6, or k6); without one, load.py makes the same load
#   PATIENCE     times as long as usual to wait for what comes about, on a slow machine (default 1)
#   KEEP         not empty: what the exercise made is left in place
#   REPORT       a file that the report is appended to
# shellcheck shell=bash
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
CHART=$ROOT/deploy/helm/probegate
IMAGES=${IMAGES:-$ROOT/target/image}
REPORT=${REPORT:-/dev/null}
PATIENCE=${PATIENCE:-1}
read -ra KUBECTL <<<"${KUBECTL:-kubectl}"
if [ -z "${HELM:-}" ]; then
    HELM=helm
    [ -x "$ROOT/target/tools/helm" ] && HELM=$ROOT/target/tools/helm
fi
read -ra HELM <<<"$HELM"
read -ra CLUSTER_NETWORK <<<"${CLUSTER_NETWORK:-}"
EXERCISE=$(basename "$(cd "$(dirname "$0")" && pwd)")
NAMESPACE=probegate-$EXERCISE
failed=0 finished='' gave_up='' CUSTOMER_PID=''
started=$SECONDS

# One line an argument.
report() { printf '%s\n' "$@" >>"$REPORT"; }
say() { printf '%s\n' "$@"; }
# Gives up; `run` counts these lines as missed.
abandon() { gave_up=1; say "$EXERCISE: given up: $*" >&2; report "" "**Given up:** $*"; }
die() { abandon "$@"; exit 2; }

# A step of the guide, as the report's next heading.
step() { say "" "== $1"; report "" "### $1" ""; }
# A remark that belongs to what was seen.
note() { say "$@"; report "$@"; }
# A command and what it says, in both.
show() {
    local words="$*" said
    # A file of this run's own goes by its name alone.
    words=$(sed -E 's#[^ ]*/tmp\.[^/ ]+/##g' <<<"$words")
    said=$("$@" 2>&1)
    printf '%s\n' "$said" | sed 's/^/    /'
    report "" '```' "$ ${words/#k /kubectl }" "$said" '```' ""
}

# What the guide promises: a sentence, and a command that is true.
expect() {
    local what=$1
    shift
    if "$@" >/dev/null 2>&1; then
        say "  ok: $what"
        report "- [x] $what"
    else
        say "  MISSED: $what"
        report "- [ ] **missed:** $what"
        failed=$((failed + 1))
    fi
}

# The same for what comes about: within SECONDS WHAT COMMAND...; says how long it took.
within() {
    local limit=$(($1 * PATIENCE)) what=$2 from=$SECONDS
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ $((SECONDS - from)) -ge "$limit" ]; then
            say "  MISSED: $what (not within ${limit}s)"
            report "- [ ] **missed:** $what (not within ${limit}s)"
            failed=$((failed + 1))
            return 1
        fi
        sleep 0.5
    done
    say "  ok: $what ($((SECONDS - from))s)"
    report "- [x] $what ($((SECONDS - from))s)"
}

# For a while something is so at every look: stays SECONDS WHAT COMMAND...
stays() {
    local limit=$1 what=$2 from=$SECONDS
    shift 2
    while [ $((SECONDS - from)) -lt "$limit" ]; do
        if ! "$@" >/dev/null 2>&1; then
            say "  MISSED: $what (not any more after $((SECONDS - from))s)"
            report "- [ ] **missed:** $what (not any more after $((SECONDS - from))s)"
            failed=$((failed + 1))
            return 1
        fi
        sleep 1
    done
    say "  ok: $what (for ${limit}s)"
    report "- [x] $what (for ${limit}s)"
}

k() { "${KUBECTL[@]}" -n "$NAMESPACE" "$@"; }
helm() { "${HELM[@]}" -n "$NAMESPACE" "$@"; }

# The chart's release `model-server`, guarding the demo's model server; more values as arguments. It asks for little, so that it fits on
# a small node.
install() {
    helm upgrade --install model-server "$CHART" --set fullnameOverride=model-server --set rollout.minReadySeconds=1 \
        --set model.resources.requests.cpu=20m --set sidecar.resources.requests.cpu=20m "$@" >/dev/null ||
        die "helm could not install: HELM is ${HELM[*]}"
}

# A request by way of the API server, which reaches Services and pods from anywhere and needs no client in the cluster:
#   ask service/model-server:80 /health          ask pod/NAME:8080 /predict BODY
# Prints the body; false if the status is not 2xx. The API server chooses among the ready addresses of a Service.
ask() {
    local path="/api/v1/namespaces/$NAMESPACE/${1%%/*}s/${1#*/}/proxy$2"
    if [ $# -gt 2 ]; then
        printf '%s' "$3" | "${KUBECTL[@]}" create --raw "$path" -f -
    else
        "${KUBECTL[@]}" get --raw "$path"
    fi
}

# A customer in the background, who asks for digits and knows what they are, some a second, on time, until customer_saw ends it:
#   customer SERVICE [RATE]; ...; customer_saw WHO
# It sends straight to the Service's address. An answer may take half a minute, so that a machine that stands still is no failure.
CUSTOMER_SECONDS_MAX=3600
customer() {
    CUSTOMER_RATE=${2:-5}
    CUSTOMER=$(mktemp)
    run_inside "$CUSTOMER" python3 "$HERE/load/load.py" --target "http://$(address_of "$1" 80)" --timeout 30 \
        --stages "${CUSTOMER_SECONDS_MAX}s:$CUSTOMER_RATE"
    CUSTOMER_PID=$!
    CUSTOMER_FROM=$SECONDS
}
# Writes down what it saw, and expects that it was there all the time, and that nothing was wrong and nothing failed.
customer_saw() {
    local lasted=$((SECONDS - CUSTOMER_FROM)) there saw asked
    kill "$CUSTOMER_PID" 2>/dev/null
    there=$?
    wait "$CUSTOMER_PID" 2>/dev/null
    CUSTOMER_PID=''
    saw=$(tail -n 1 "$CUSTOMER")
    note "" "$1, $CUSTOMER_RATE a second for $lasted s: ${saw:-nothing}."
    asked=$(seen requests "$saw")
    # Half of what was due: the first seconds go by before it knows its digits.
    expect "it asked all that time" eval "[ $there = 0 ] && [ $((2 * ${asked:-0})) -ge $((lasted * CUSTOMER_RATE)) ]"
    expect "no answer was wrong, none failed" eval '[[ $saw =~ ^[1-9][0-9]*\ requests,\ [1-9][0-9]*\ right,\ 0\ wrong,\ 0\ failed ]]'
    rm -f "$CUSTOMER"
}

# A program that must reach the cluster's addresses.
inside() { ${CLUSTER_NETWORK[@]+"${CLUSTER_NETWORK[@]}"} "$@"; }
# The same in the background: run_inside LOG PROGRAM... Nothing forks on this way, so $! is the program's own, and ends it.
run_inside() { ${CLUSTER_NETWORK[@]+"${CLUSTER_NETWORK[@]}"} "${@:2}" >"$1" 2>&1 & }
# One POST straight to a pod's port, once: the API server's way may try again when the answer does not come, as after a crash.
poke() { inside curl -sS --max-time 5 -X POST -o /dev/null "http://$(field "$1" .status.podIP):$2$3" 2>/dev/null; }
# The address of a Service, as in address_of model-server 80.
address_of() { echo "$(k get service "$1" -o 'jsonpath={.spec.clusterIP}'):$2"; }
# Load on a Service from inside the cluster's network, requests starting on time: drive ADDRESS STAGES [WORDS OF load.py].
# Prints "N requests, N right, N wrong, N failed, p50 ...".
drive() { inside python3 "$HERE/load/load.py" --target "http://$1" --stages "$2" "${@:3}"; }
# A number of such a line: seen right "$line".
seen() { grep -o "[0-9]* $1" <<<"$2" | tail -n 1 | cut -d' ' -f1; }

# The sidecar in words: status POD-OR-DEPLOYMENT.
status() { k exec "$1" -c probegate -- /probegate status || true; }   # it exits with 1 while not ready

ready_pods() { k get pods -l "${1:-app.kubernetes.io/instance=model-server}" \
    -o 'jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' | grep -c True; }
# Addresses that the Service sends traffic to.
endpoints() { k get endpointslices -l "kubernetes.io/service-name=${1:-model-server}" \
    -o 'jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.addresses[0]}{"\n"}{end}' | sort -u | grep -c .; }
# Restarts of a container, over all pods with a label: restarts LABEL CONTAINER.
restarts() { k get pods -l "$1" -o "jsonpath={range .items[*]}{.status.containerStatuses[?(@.name==\"$2\")].restartCount}{\"\n\"}{end}" |
    awk '{ sum += $1 } END { print sum + 0 }'; }
# The oldest pod with a label that nobody has deleted, and one field of a pod: pod_of LABEL, field POD JSONPATH.
pod_of() {
    k get pods -l "${1:-app.kubernetes.io/instance=model-server}" --sort-by=.metadata.creationTimestamp \
        -o go-template='{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}}{{"\n"}}{{end}}{{end}}' | sed -n 1p
}
field() { k get pod "$1" -o "jsonpath={$2}"; }
# The condition of a rollout that was given up, and how it is told from one that goes on.
given_up() { [ "$(k get deployment "$1" -o 'jsonpath={.status.conditions[?(@.type=="Progressing")].reason}')" = ProgressDeadlineExceeded ]; }
# Whether the pods with a label have had an event whose reason or message matches: happened LABEL PATTERN.
happened() {
    local pods
    pods=$(k get pods -l "$1" -o 'jsonpath={.items[*].metadata.name}')
    k get events -o 'jsonpath={range .items[*]}{.involvedObject.name} {.reason}: {.message}{"\n"}{end}' |
        grep -E "^(${pods// /|}) " | grep -E "$2"
}
is() { [ "$("${@:2}")" = "$1" ]; }

# Takes one of our images to the nodes, where that is for the exercises to do.
load() {
    [ -n "${LOAD_IMAGE:-}" ] || return 0
    local name
    for name in "$@"; do
        [ -f "$IMAGES/$name.tar" ] || die "no $IMAGES/$name.tar: run deploy/image/build"
        $LOAD_IMAGE "$IMAGES/$name.tar" >/dev/null || die "cannot load $name"
    done
}

# A Redis for the exercises that need one: this machine's own with its libraries, where images cannot be pulled.
REDIS_IMAGE=redis:7
stand_in_redis() {
    [ -n "${LOAD_IMAGE:-}" ] || return 0
    command -v redis-server >/dev/null || die "no redis-server to make an image of (scripts/setup test)"
    local files=() library program
    for library in $({ ldd "$(command -v redis-server)"; ldd "$(command -v redis-cli)"; } | grep -o '/[^ ]*' | sort -u); do
        files+=(--file "$library=$library")
    done
    program=$(readlink -f "$(command -v redis-server)")
    files+=(--file "$(readlink -f "$(command -v redis-cli)")=/usr/bin/redis-cli")
    mkdir -p "$IMAGES"
    "$ROOT/deploy/image/archive.py" --out "$IMAGES/redis.tar" --name "$REDIS_IMAGE" --program "$program" \
        --entrypoint '["/usr/bin/redis-server"]' --cmd '["--save", ""]' "${files[@]}" >/dev/null
    load redis
    note "Stand-in: \`$REDIS_IMAGE\` is this machine's redis-server $(redis-server --version | grep -o 'v=[^ ]*')."
}

# The exercise's namespace. Pod Security *restricted* is enforced: the guarded pods fit in.
begin() {
    local title=$1
    say "" "#### $title"
    report "" "## $title" "" "\`deploy/exercises/run $EXERCISE\`, $(date -u +%Y-%m-%dT%H:%M:%SZ)"
    "${KUBECTL[@]}" version >/dev/null 2>&1 || die "no cluster: KUBECTL is ${KUBECTL[*]}"
    if "${KUBECTL[@]}" get namespace "$NAMESPACE" >/dev/null 2>&1; then
        "${KUBECTL[@]}" delete namespace "$NAMESPACE" --timeout=120s >/dev/null || die "an older $NAMESPACE does not go"
    fi
    "${KUBECTL[@]}" create namespace "$NAMESPACE" >/dev/null || die "no namespace $NAMESPACE"
    trap close EXIT
    "${KUBECTL[@]}" label namespace "$NAMESPACE" pod-security.kubernetes.io/enforce=restricted >/dev/null
}

# The last line of an exercise.
finish() { finished=1; exit; }

# However it ends, by its last line or before.
close() {
    trap - EXIT
    [ -z "$CUSTOMER_PID" ] || { kill "$CUSTOMER_PID" 2>/dev/null; rm -f "$CUSTOMER"; }
    [ -n "$finished$gave_up" ] || abandon "it ended before its last line"
    if [ -z "${KEEP:-}" ]; then
        "${KUBECTL[@]}" delete namespace "$NAMESPACE" --wait=false >/dev/null 2>&1
    fi
    local outcome="As promised"
    [ "$failed" = 0 ] || outcome="**$failed missed**"
    [ -z "$gave_up" ] || outcome="**Not to its end**, $failed missed before"
    say "" "$EXERCISE: ${gave_up:+given up, }$failed missed, $((SECONDS - started))s"
    report "" "$outcome, in $((SECONDS - started)) s."
    [ -z "$gave_up" ] || exit 2
    exit $((failed > 0))
}
