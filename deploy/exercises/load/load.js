// Project 02's load test for k6, on the demo's model server. load.py beside it is the same load without k6.
//
//   TARGET=http://ADDRESS STAGES=10s:20,60s:100,10s:20 k6 run load.js
//
// Requests start on time, whether or not the earlier ones have ended. Each is a POST /predict with BATCH labelled digits (default 1)
// over a connection of its own, so that a Service spreads them over its pods. The test fails if an answer is wrong, if more than
// MOST_FAILED (default 0.01) of the requests fail, or if the 95th percentile is above P95 milliseconds (default 500).
import http from "k6/http";
import { Counter } from "k6/metrics";

const TARGET = __ENV.TARGET || "http://127.0.0.1:8080";
const BATCH = Number(__ENV.BATCH || 1);
const DIGITS = 20;
const stages = (__ENV.STAGES || "10s:20,60s:100,10s:20").split(",").map((stage) => {
  const [duration, target] = stage.split(":");
  return { duration, target: Number(target) };
});

const right = new Counter("answers_right");
const wrong = new Counter("answers_wrong");
const failed = new Counter("answers_failed");

export const options = {
  noConnectionReuse: true,
  scenarios: {
    digits: {
      executor: "ramping-arrival-rate",
      startRate: stages[0].target,
      timeUnit: "1s",
      stages,
      // Made beforehand: one that is made while its request is due comes too late, and counts as failed.
      preAllocatedVUs: 200,
      maxVUs: 500,
    },
  },
  thresholds: {
    answers_wrong: ["count==0"],
    http_req_failed: [`rate<=${__ENV.MOST_FAILED || 0.01}`],
    http_req_duration: [`p(95)<=${__ENV.P95 || 500}`],
  },
  summaryTrendStats: ["med", "p(95)", "p(99)"],
};

// Digits whose label is known, once for all virtual users.
export function setup() {
  const digits = [];
  for (let index = 0; index < DIGITS; index++) {
    digits.push(http.get(`${TARGET}/digits/${index}`).json());
  }
  return digits;
}

export default function (digits) {
  const chosen = [];
  for (let n = 0; n < BATCH; n++) chosen.push(digits[(__ITER + n) % digits.length]);
  const body = JSON.stringify({ instances: chosen.map((digit) => digit.pixels) });
  const answer = http.post(`${TARGET}/predict`, body, { headers: { "Content-Type": "application/json" }, timeout: "5s" });
  if (answer.status !== 200) {
    failed.add(1);
    return;
  }
  const labels = answer.json("predictions").map((one) => one.label);
  (labels.every((label, n) => label === chosen[n].label) ? right : wrong).add(1);
}

export function handleSummary(data) {
  const count = (name) => (data.metrics[name] ? data.metrics[name].values.count : 0);
  const took = data.metrics.http_req_duration.values;
  const counts = [count("answers_right"), count("answers_wrong"), count("answers_failed")];
  const total = counts[0] + counts[1] + counts[2] + count("dropped_iterations");
  const line =
    `${total} requests, ${counts[0]} right, ${counts[1]} wrong, ${total - counts[0] - counts[1]} failed, ` +
    `p50 ${took.med.toFixed(0)} ms, p95 ${took["p(95)"].toFixed(0)} ms, p99 ${took["p(99)"].toFixed(0)} ms\n`;
  return { stdout: line };
}
