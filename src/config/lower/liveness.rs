//! What must not decide liveness alone: a saturated server is busy, and a wrong answer is not mended by a
//! restart that nobody has asked for twice.

use super::super::fault::{Fault, Faults, join, path};
use super::super::plan::{CheckSpec, Kind, MetricSelector};
use crate::engine::{Member, Plan};

/// Gauges of load that model servers export: queues, caches, requests at once.
const SATURATION: [&str; 31] = [
    "batch_request_queue",
    "bentoml_service_request_in_progress",
    "llamacpp:kv_cache_tokens",
    "llamacpp:kv_cache_usage_ratio",
    "llamacpp:requests_deferred",
    "llamacpp:requests_processing",
    "nv_inference_pending_request_count",
    "nv_trt_llm_kv_cache_block_metrics",
    "nv_trt_llm_request_metrics",
    "parallel_request_queue",
    "QueueTime",
    "ray_serve_deployment_queued_queries",
    "ray_serve_replica_processing_queries",
    "sglang:num_queue_reqs",
    "sglang:num_running_reqs",
    "sglang:token_usage",
    "te_queue_size",
    "tgi_batch_current_max_tokens",
    "tgi_batch_current_size",
    "tgi_queue_size",
    "trtllm_kv_cache_utilization",
    "trtllm_num_requests_running",
    "trtllm_num_requests_waiting",
    "ts_queue_latency_microseconds",
    "vllm:cpu_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "vllm:kv_cache_usage_perc",
    "vllm:num_requests_running",
    "vllm:num_requests_swapped",
    "vllm:num_requests_waiting",
    "vllm:num_requests_waiting_by_reason",
];

/// Refuses `[health]` members that golden requests or signs of load could bring down by themselves.
pub(super) fn refuse_unfit(plan: &Plan, specs: &[CheckSpec], faults: &mut Faults) {
    let golden = |spec: &CheckSpec| matches!(spec.kind, Kind::Golden(_));
    let load = |spec: &CheckSpec| match &spec.kind {
        Kind::Metric(metric) => is_saturation(&metric.selector),
        kind => matches!(kind, Kind::Saturation(_)),
    };
    for check in &plan.checks {
        let named = check.progress().and_then(|progress| progress.golden);
        if named.and_then(|id| specs.get(id.index())).is_some_and(|spec| !golden(spec)) {
            let place = path(["checks", &check.name, "progress", "golden"]);
            faults.push(Fault::value(place, "names a check of another kind").expected("a golden check"));
        }
    }
    for (index, member) in plan.health.require.iter().enumerate() {
        let place = || join(&path(["health", "require"]), &index.to_string());
        let name = plan.member_name(*member);
        let is_golden = alone(plan, specs, *member, &golden);
        if is_golden {
            let message = format!("`{name}` would let wrong answers alone restart the model server");
            let expected =
                "it in [ready], or named by a progress check as `golden`: a restart does not mend a bad model";
            faults.push(Fault::value(place(), message).expected(expected));
        }
        let is_load = alone(plan, specs, *member, &load);
        if is_load {
            let message = format!("`{name}` is a sign of load, and busy is not dead");
            let expected = "it in [ready]: a restart of a saturated server only adds a model load to the overload";
            faults.push(Fault::value(place(), message).expected(expected));
        }
        // An overload makes golden requests late: the two together say no more than each.
        if !is_golden && !is_load && alone(plan, specs, *member, &|spec| golden(spec) || load(spec)) {
            let message = format!("`{name}` would let load and wrong answers restart the model server");
            let expected = "a member that must be down as well: one of the model server's own checks, or `progress`";
            faults.push(Fault::value(place(), message).expected(expected));
        }
    }
}

fn is_saturation(selector: &MetricSelector) -> bool {
    SATURATION.contains(&selector.name.as_str())
}

/// Whether checks of that sort, all down, bring the member down whatever the others say.
fn alone(plan: &Plan, specs: &[CheckSpec], member: Member, sort: &impl Fn(&CheckSpec) -> bool) -> bool {
    // Groups are without circles only once that has been checked, which is reported by itself.
    fn walk(
        plan: &Plan,
        specs: &[CheckSpec],
        member: Member,
        sort: &impl Fn(&CheckSpec) -> bool,
        depth: usize,
    ) -> bool {
        match member {
            Member::Check(check) => specs.get(check.index()).is_some_and(sort),
            Member::Group(group) => {
                let Some(group) = plan.groups.get(group.index()).filter(|_| depth <= plan.groups.len()) else {
                    return false;
                };
                let down = group.of.iter().filter(|&&member| walk(plan, specs, member, sort, depth + 1)).count();
                group.of.len() < down + group.min as usize
            }
        }
    }
    walk(plan, specs, member, sort, 0)
}
