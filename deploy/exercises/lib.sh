# Shared by the exercises: a namespace of their own, steps that are written down, expectations that count.
#
# An exercise sources this and uses: step, show, expect, within, k, ask, install, and at its end finish. It reads:
#   KUBECTL      how to speak to the cluster (default kubectl)
#   HELM         the same for Helm (default target/tools/helm, or helm)
#   LOAD_IMAGE   a command that takes an image archive to the nodes; unset: the images are where the nodes find them
#   KEEP         not empty: what the exercise made is left in place
#   REPORT       a file that the report is appended to
# shellcheck shell=bash
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
CHART=$ROOT/deploy/helm/probegate
IMAGES=${IMAGES:-$ROOT/target/image}
REPORT=${REPORT:-/dev/null}
read -ra KUBECTL <<<"${KUBECTL:-kubectl}"
if [ -z "${HELM:-}" ]; then
    HELM=helm
    [ -x "$ROOT/target/tools/helm" ] && HELM=$ROOT/target/tools/helm
fi
read -ra HELM <<<"$HELM"
EXERCISE=$(basename "$(cd "$(dirname "$0")" && pwd)")
NAMESPACE=probegate-$EXERCISE
failed=0
started=$SECONDS

report() { printf '%s\n' "$*" >>"$REPORT"; }
say() { printf '%s\n' "$*"; }
die() { say "$EXERCISE: $*" >&2; report "" "**Given up:** $*"; exit 2; }

# A step of the guide, as the report's next heading.
step() { say "" "== $*"; report "" "### $*" ""; }
# A remark that belongs to what was seen.
note() { say "$*"; report "$*"; }
# A command and what it says, in both.
show() {
    local said
    said=$("$@" 2>&1)
    printf '%s\n' "$said" | sed 's/^/    /'
    report '```' "$ ${*//"${KUBECTL[*]}"/kubectl}" "$said" '```'
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
    local limit=$1 what=$2 from=$SECONDS
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

# The chart's release `model-server`, guarding the demo's model server; more values as arguments.
install() {
    helm upgrade --install model-server "$CHART" --set fullnameOverride=model-server --set rollout.minReadySeconds=1 "$@" >/dev/null
}

# A URL whose host is a Service of the namespace, with the Service's address instead: not every busybox resolves names.
at() {
    local rest=${1#http://} host address
    host=${rest%%[:/]*}
    address=$(k get service "$host" --ignore-not-found -o 'jsonpath={.spec.clusterIP}')
    printf 'http://%s%s' "${address:-$host}" "${rest#"$host"}"
}

# An HTTP request from a pod of the cluster: ask URL [BODY]. Prints the body; false if the status is not 2xx.
ask() {
    if [ $# -gt 1 ]; then
        k exec client -- wget -q -T 10 -O - --header "Content-Type: application/json" --post-data "$2" "$(at "$1")"
    else
        k exec client -- wget -q -T 10 -O - "$(at "$1")"
    fi
}
# The status alone.
status_of() { k exec client -- wget -S -q -T 5 -O /dev/null "$(at "$1")" 2>&1 | awk '/HTTP\// { code = $2 } END { print code }'; }

# A client at work in the background: asks for digits that it knows the labels of, some ten a second, for at most
# SECONDS. customer URL SECONDS; then customer_saw prints "N right, N wrong, N failed" and ends it.
customer() {
    CUSTOMER=$(mktemp)
    k exec client -- sh -c '
        end=$(($(date +%s) + $2))
        for n in 0 3 7 11; do wget -q -T 5 -O - "$1/digits/$n" > "/tmp/$n" || echo failed; done
        while [ "$(date +%s)" -lt "$end" ]; do
            for n in 0 3 7 11; do
                label=$(sed "s/.*\"label\": *\([0-9]\).*/\1/" "/tmp/$n")
                answer=$(wget -q -T 5 -O - --header "Content-Type: application/json" --post-file "/tmp/$n" "$1/predict") || { echo failed; continue; }
                case $answer in *"\"label\":$label,"*) echo right ;; *) echo wrong ;; esac
                usleep 50000
            done
        done' sh "$(at "$1")" "$2" >"$CUSTOMER" 2>/dev/null &
    CUSTOMER_PID=$!
}
customer_saw() {
    kill "$CUSTOMER_PID" 2>/dev/null
    wait "$CUSTOMER_PID" 2>/dev/null
    awk '{ n[$1]++ } END { printf "%d right, %d wrong, %d failed\n", n["right"], n["wrong"], n["failed"] }' "$CUSTOMER"
    rm -f "$CUSTOMER"
}

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

# Namespace and client, once for an exercise. Pod Security *restricted* is enforced: the guarded pods fit in.
begin() {
    local title=$1
    say "" "#### $title"
    report "" "## $title" "" "\`deploy/exercises/run $EXERCISE\`, $(date -u +%Y-%m-%dT%H:%M:%SZ)"
    k get namespace "$NAMESPACE" >/dev/null 2>&1 && { k delete namespace "$NAMESPACE" --timeout=120s >/dev/null || die "an older $NAMESPACE does not go"; }
    "${KUBECTL[@]}" create namespace "$NAMESPACE" >/dev/null || die "no cluster: KUBECTL is ${KUBECTL[*]}"
    trap finish EXIT
    "${KUBECTL[@]}" label namespace "$NAMESPACE" pod-security.kubernetes.io/enforce=restricted >/dev/null
    k apply -f - >/dev/null <<'YAML' || die "the client is not accepted"
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 65534, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: client
      image: busybox:1
      imagePullPolicy: IfNotPresent
      command: [sleep, "86400"]
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: tmp, mountPath: /tmp}]
  volumes: [{name: tmp, emptyDir: {sizeLimit: 1Mi}}]
YAML
    k wait --for=condition=Ready pod/client --timeout=60s >/dev/null || die "the client does not start"
}

finish() {
    trap - EXIT
    if [ -z "${KEEP:-}" ]; then
        "${KUBECTL[@]}" delete namespace "$NAMESPACE" --wait=false >/dev/null 2>&1
    fi
    say "" "$EXERCISE: $failed missed, $((SECONDS - started))s"
    report "" "$([ "$failed" = 0 ] && echo "As promised" || echo "**$failed missed**"), in $((SECONDS - started)) s."
    exit $((failed > 0))
}
