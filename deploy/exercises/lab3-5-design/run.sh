#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
begin "Lab 3, Exercise 5: design your own health checks"
load probegate demo-model-v1
stand_in_redis
redis() { k exec "$1" -- /usr/bin/redis-cli "${@:2}"; }
POD=app.kubernetes.io/instance=model-server
first() { k get pods -l $POD -o 'jsonpath={.items[0].metadata.name}'; }
# A gate's word on one pod: gate POD NAME
gate() { status "pod/$1" | awk -v gate="$2" '$1 == gate { print $2; exit }'; }
both() { local pod; for pod in $(k get pods -l $POD -o name); do [ "$(gate "${pod#pod/}" "$1")" = "$2" ] || return; done; }
never_restarted() { is 0 restarts $POD model; }

step "Embeddings are not there yet: starting up"
k apply -f "$(dirname "$0")/peers.yaml" >/dev/null
within 60 "Redis, the cache and the profile API run" k wait --for=condition=Ready pod -l 'app in (redis, cache, profile-api)' --timeout=1s || die "without them there is nothing to see"
install -f "$(dirname "$0")/values.yaml"
within 60 "the model is loaded after its 10 s, and only the embeddings are missing" eval 'status "pod/$(first)" | grep "startup *FAIL.*embeddings"'
expect "so nobody gets traffic" is 0 endpoints
show status "pod/$(first)"
expect "and nobody is restarted for it" never_restarted
redis redis set embeddings:version 42 >/dev/null
within 30 "the embeddings are loaded: both pods are ready" is 2 ready_pods $POD || die "the rest needs them ready"

step "Question 2: the user-profile API is down"
k scale deployment profile-api --replicas=0 >/dev/null
within 40 "readiness warns" both ready WARN
show status "pod/$(first)"
stays 10 "both pods stay in the Service" is 2 endpoints
expect "liveness passes" both health PASS
expect "requests are served" ask service/model-server:80 /digits/7
k scale deployment profile-api --replicas=1 >/dev/null
within 40 "the warning is over once it is back" both ready PASS

step "Question 3: the memory cache fills up"
redis cache debug populate 300000 entry 100 >/dev/null
within 30 "readiness warns" both ready WARN
show status "pod/$(first)"
expect "both pods stay in the Service" is 2 endpoints
expect "liveness passes: a restart would only empty the cache, and all of it at once" both health PASS
redis cache flushall >/dev/null
within 30 "the warning is over once there is room" both ready PASS

step "Redis is gone: no embeddings, no answer"
k delete pod redis >/dev/null
within 40 "both pods leave the Service, as was accepted in the file" is 0 endpoints
expect "liveness passes: a restart brings no Redis back" both health PASS
show status "pod/$(first)"
k apply -f "$(dirname "$0")/peers.yaml" >/dev/null
within 60 "Redis is back" k wait --for=condition=Ready pod/redis --timeout=1s
redis redis set embeddings:version 43 >/dev/null
within 30 "so are both pods" is 2 endpoints
expect "not one restart in all of this" never_restarted

step "Question 1: what liveness is for. One model server hangs"
hung=$(first)
digit=$(ask "pod/$hung:8080" /digits/7)
ask "pod/$hung:8080" /hang "{}" >/dev/null
ask "pod/$hung:8080" /predict "$digit" >/dev/null 2>&1 &
pending=$!
within 30 "a request is pending, no byte moves, the counter is frozen: /health fails after 10 s" is FAIL gate "$hung" health
show k logs "$hung" -c probegate --tail=4
within 60 "the kubelet restarts the model server, and it alone" eval '[ "$(restarts $POD model)" = 1 ]'
kill "$pending" 2>/dev/null
wait "$pending" 2>/dev/null
sidecars() { k get pods -l $POD -o 'jsonpath={range .items[*]}{.status.initContainerStatuses[0].restartCount}{"\n"}{end}' | awk '{ sum += $1 } END { print sum + 0 }'; }
expect "the sidecar was not restarted" is 0 sidecars
within 60 "it loads, and is back in the Service" is 2 endpoints
stays 10 "the verdict is not about the new one" eval '[ "$(restarts $POD model)" = 1 ]'
show k get pods -l $POD

step "The answers"
note "1. They are asked for different things: liveness \"would a restart help?\", readiness \"shall I send it traffic?\"."
note "2. The profile API: not liveness, for no restart mends another service; not readiness, for every pod would leave at once. It is shown, and serves worse."
note "3. The cache: not liveness, not readiness. A full cache is a slow answer, not a wrong one."
finish
