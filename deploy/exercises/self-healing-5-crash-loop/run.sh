#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
# CRASHES: how far the table is followed, 3 to 8. Seven are the whole of it, and take eleven minutes.
CRASHES=${CRASHES:-7}
begin "Self-Healing: CrashLoopBackOff"
load probegate demo-model-v1
here=$(dirname "$0")
work=$(mktemp -d)
watch=
tidy() { [ -z "$watch" ] || kill "$watch" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"; close; }
trap tidy EXIT
# The text's table: what the kubelet waits before it starts the container again, after crash 1, 2, 3 ...
readonly TABLE=(0 10 20 40 80 160 300 300)
# The kubelet looks again about every ten seconds, and its own second is not ours.
readonly SLACK=17

# What was seen of `crash` so far, as "CRASH DELAY" lines: from its n-th end to the start that follows.
delays() { "$here/delays.py" <"$work/watched"; }
enough() { [ "$(delays | wc -l)" -ge "$CRASHES" ]; }
crashes() { k get pods -l "app=$1" -o 'jsonpath={.items[0].status.containerStatuses[0].restartCount}'; }

pod() { sed "s/NAME/$1/g; s/POLICY/$2/; s/ARGS/$3/" "$here/pod.yaml"; echo ---; }
readonly WELL='["--listen", "0.0.0.0:8000"]' WRONG='["--load-time", "as long as it takes"]' ENDS='["--help"]'

step "A container that cannot start, and one that crashes twice"
note "\`crash\` has a wrong argument, as an application with a missing variable would; \`once\` is well, is crashed by hand twice, and then left alone."
{
    pod crash Always "$WRONG"
    pod once Always "$WELL"
    pod always-0 Always "$ENDS"
    pod on-failure-0 OnFailure "$ENDS"
    pod on-failure-2 OnFailure "$WRONG"
    pod never-0 Never "$ENDS"
    pod never-2 Never "$WRONG"
} >"$work/pods.yaml"
# The watch is there before the pod, so that it sees the first crash too.
k get pods -l app=crash --watch -o json >"$work/watched" 2>/dev/null &
watch=$!
sleep 5
k apply -f "$work/pods.yaml" >/dev/null
within 30 "\`once\` runs" k wait --for=condition=Ready pod/once --timeout=1s || die "nothing to crash"
crash_once() { poke once 8000 /crash; }
crash_once
within 30 "its first restart is at once" is 1 crashes once
within 30 "it runs" ask pod/once:8000 /health
crash_once
within 60 "its second comes after ten seconds" is 2 crashes once
calm=$SECONDS
within 90 "\`crash\` is in CrashLoopBackOff" eval 'k get pod crash --no-headers | grep CrashLoopBackOff'
show k get pods

step "How to debug it"
within 40 "1. the log of the crash before says what is wrong" eval 'k logs crash --previous 2>&1 | grep "invalid value"'
show k logs crash --previous
show k get events --field-selector involvedObject.name=crash -o 'custom-columns=TYPE:.type,REASON:.reason,MESSAGE:.message'
expect "2. the events say BackOff" happened app=crash BackOff
expect "3. the exit code: 2, which is no OOM kill" eval 'k get pod crash -o "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}{.status.containerStatuses[0].lastState.terminated.exitCode}" | grep 2'

step "The restart policies"
ended() { [ "$(field "$1" .status.phase)" = "$2" ] && [ "$(crashes "$1")" = 0 ]; }
again() { [ "$(crashes "$1")" -ge 1 ]; }
within 30 "Always: restarted, ended with 2 or with 0" eval 'again crash && again always-0'
within 30 "OnFailure: ended with 2 it is restarted" again on-failure-2
expect "OnFailure: ended with 0 it stays ended, Succeeded" ended on-failure-0 Succeeded
expect "Never: ended with 0 it stays ended, Succeeded" ended never-0 Succeeded
expect "Never: ended with 2 it stays ended, Failed" ended never-2 Failed
show k get pods
k delete pod always-0 on-failure-0 on-failure-2 never-0 never-2 --wait=false >/dev/null

step "The table, $CRASHES crashes of it"
within 1200 "so many were seen" enough
report "| crash | the text | from its end to the next start |" "|---|---|---|"
while read -r n delay; do
    [ "$n" -le "$CRASHES" ] || break
    promised=${TABLE[$((n - 1))]:-300}
    say "  crash $n: $delay s (the text: $promised s)"
    report "| $n | $promised s | $delay s |"
done < <(delays)
report ""
as_promised() {
    local n delay promised count=0
    while read -r n delay; do
        [ "$n" -le "$CRASHES" ] || break
        promised=${TABLE[$((n - 1))]:-300}
        # A container that ends in the second of its start: one second of rounding down.
        [ "$delay" -ge $((promised - 1)) ] && [ "$delay" -le $((promised + SLACK)) ] || return
        count=$((count + 1))
    done < <(delays)
    [ "$count" = "$CRASHES" ]
}
expect "each delay is the table's, and at most $SLACK s more: the kubelet does not look at every moment" as_promised
show k get pod crash

step "After ten calm minutes"
if [ "$CRASHES" -ge 7 ]; then
    while [ $((SECONDS - calm)) -lt 640 ]; do sleep 5; done
    before=$SECONDS
    crash_once
    within 60 "\`once\` crashes a third time, $((before - calm)) s after its second" is 3 crashes once
    note "Restarted $((SECONDS - before)) s after the crash; had the kubelet remembered the two others, it would have waited 20 s."
    expect "the delay has started over" test $((SECONDS - before)) -le 10
else
    note "Left out: it takes ten minutes (CRASHES=7)."
fi
finish
