#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
begin "Lab 3, Exercise 3: perform a rollback"
load probegate demo-model-v1 demo-model-v2
image_now() { k get deployment model-server -o 'jsonpath={.spec.template.spec.containers[0].image}'; }
revisions() { k rollout history deployment/model-server | grep -cE '^[0-9]+ '; }
old_pods_only() { [ "$(k get pods -l app.kubernetes.io/instance=model-server -o 'jsonpath={.items[*].spec.containers[0].image}' | tr ' ' '\n' | sort -u)" = probegate-demo-model:v1 ]; }

step "Version 1, then version 2"
install
within 120 "three pods are ready" is 3 ready_pods
customer model-server
install --set model.image.tag=v2 --set rollout.progressDeadlineSeconds=20
within 60 "the rollout is given up" \
    eval 'k get deployment model-server -o "jsonpath={.status.conditions[?(@.type==\"Progressing\")].reason}" | grep ProgressDeadlineExceeded'
show k rollout history deployment/model-server
expect "there are two revisions" is 2 revisions

step "kubectl rollout undo"
from=$SECONDS
show k rollout undo deployment/model-server
within 60 "the rollout is complete" k rollout status deployment/model-server --timeout=1s
within 60 "the bad pod is gone" old_pods_only
took=$((SECONDS - from))
expect "version 1 is what runs" is probegate-demo-model:v1 image_now
expect "all three addresses are in the Service" is 3 endpoints
expect "it answers" ask service/model-server:80 /health
show k rollout history deployment/model-server
expect "the undone revision came back as the newest, so there are still two" is 2 revisions

customer_saw "The customer, before, during and after"

step "The same without a person: the pipeline's last line"
install --set model.image.tag=v2 --set rollout.progressDeadlineSeconds=20
note '`kubectl rollout status || kubectl rollout undo`:'
if k rollout status deployment/model-server --timeout=60s >/dev/null 2>&1; then
    expect "the bad release is noticed" false
else
    show k rollout undo deployment/model-server
fi
within 60 "the rollback is complete" k rollout status deployment/model-server --timeout=1s
expect "version 1 is what runs" is probegate-demo-model:v1 image_now

step "The questions"
note "1. The rollback took $took s, nearly all of it the bad pod's end: the three good pods had never been taken away."
note "2. \`$(image_now)\` runs."
note "3. Automated: readiness by accuracy and a progress deadline stop the rollout; the pipeline's last line, an Alertmanager webhook, Argo Rollouts or Flagger take it back ([deploy/rollback](../../deploy/rollback/README.md))."
finish
