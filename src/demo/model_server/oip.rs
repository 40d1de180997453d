//! Open Inference Protocol v2 over REST: health, metadata, readiness and inference of one model, `digits`.
//!
//! A tensor is FP32 and its data may be flat or nested, as the specification allows. Errors are
//! `{"error": "..."}`.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::classifier::{CLASSES, Image, PIXELS, Prediction};
use super::native::{BATCH_MAX, image};
use super::reply::{Fault, Reply, json_reply, method_not_allowed};
use super::routes::ready;
use super::server::Server;

/// The one model that is served.
const MODEL: &str = "digits";
/// Its one version, as the protocol counts.
const VERSION: &str = "1";

#[derive(Debug, Deserialize)]
struct InferRequest {
    id: Option<String>,
    inputs: Vec<Tensor>,
    outputs: Option<Vec<Wanted>>,
}

#[derive(Debug, Deserialize)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    data: Value,
}

#[derive(Debug, Deserialize)]
struct Wanted {
    name: String,
}

/// Answers what lies below `/v2`. `path` is what follows it, without the first slash.
pub(super) async fn route(server: &Server, method: &Method, path: &str, body: &[u8]) -> Result<Reply, Fault> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let (name, rest) = match segments.as_slice() {
        [] => return read_only(method, server_metadata(server)),
        ["health", "live"] => return read_only(method, json_reply(StatusCode::OK, &json!({ "live": true }))),
        ["health", "ready"] => return read_only(method, readiness(server, &json!({ "ready": ready(server).is_ok() }))),
        ["models", name, "versions", VERSION, rest @ ..] | ["models", name, rest @ ..] => (*name, rest),
        _ => return Err(Fault::not_found(format!("no such path: /v2/{path}"))),
    };
    if name != MODEL {
        return Err(Fault::not_found(format!("no model {name:?} here, only {MODEL:?}")));
    }
    match rest {
        [] => read_only(method, model_metadata()),
        ["ready"] => read_only(method, readiness(server, &json!({ "name": MODEL, "ready": ready(server).is_ok() }))),
        ["infer"] if method == Method::POST => infer(server, body).await,
        ["infer"] => Ok(method_not_allowed("POST")),
        _ => Err(Fault::not_found(format!("no such path: /v2/{path}"))),
    }
}

fn read_only(method: &Method, reply: Reply) -> Result<Reply, Fault> {
    if [Method::GET, Method::HEAD].contains(method) { Ok(reply) } else { Ok(method_not_allowed("GET, HEAD")) }
}

fn readiness(server: &Server, body: &Value) -> Reply {
    json_reply(if ready(server).is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
}

fn server_metadata(server: &Server) -> Reply {
    let version = server.options.release.name();
    json_reply(StatusCode::OK, &json!({ "name": "probegate-model-server", "version": version, "extensions": [] }))
}

fn model_metadata() -> Reply {
    let metadata = json!({
        "name": MODEL,
        "versions": [VERSION],
        "platform": "probegate_mlp",
        "inputs": [{ "name": "pixels", "datatype": "FP32", "shape": [-1, PIXELS] }],
        "outputs": [
            { "name": "label", "datatype": "INT64", "shape": [-1] },
            { "name": "scores", "datatype": "FP32", "shape": [-1, CLASSES] },
        ],
    });
    json_reply(StatusCode::OK, &metadata)
}

async fn infer(server: &Server, body: &[u8]) -> Result<Reply, Fault> {
    let request: InferRequest = serde_json::from_slice(body)
        .map_err(|error| Fault::bad_request(format!("the body is not an inference request: {error}")))?;
    let images = images(&request.inputs)?;
    let wanted = wanted(request.outputs.as_deref())?;
    let predictions = server.infer(&images).await?;
    let outputs: Vec<Value> = wanted.iter().map(|output| output.tensor(&predictions)).collect();
    let mut answer = json!({ "model_name": MODEL, "model_version": VERSION, "outputs": outputs });
    if let Some(id) = request.id {
        answer["id"] = Value::String(id);
    }
    Ok(json_reply(StatusCode::OK, &answer))
}

/// The one input tensor as images.
fn images(inputs: &[Tensor]) -> Result<Vec<Image>, Fault> {
    let [tensor] = inputs else {
        return Err(Fault::bad_request(format!("inputs: expected one tensor, found {}", inputs.len())));
    };
    if tensor.name != "pixels" {
        return Err(Fault::bad_request(format!("inputs[0].name: expected \"pixels\", found {:?}", tensor.name)));
    }
    if tensor.datatype != "FP32" {
        let found = &tensor.datatype;
        return Err(Fault::bad_request(format!("inputs[0].datatype: expected \"FP32\", found {found:?}")));
    }
    let count = match tensor.shape.as_slice() {
        [count @ 1..=BATCH_MAX, PIXELS] => *count,
        shape => {
            let expected = format!("expected [N, {PIXELS}] with N from 1 to {BATCH_MAX}");
            return Err(Fault::bad_request(format!("inputs[0].shape: {expected}, found {shape:?}")));
        }
    };
    let data = numbers(&tensor.data)?;
    if data.len() != count * PIXELS {
        let (expected, found) = (count * PIXELS, data.len());
        return Err(Fault::bad_request(format!("inputs[0].data: expected {expected} numbers, found {found}")));
    }
    let named = data.chunks(PIXELS).enumerate();
    named.map(|(index, pixels)| image(&format!("inputs[0].data, image {index}"), pixels)).collect()
}

/// Numbers of a flat or nested array, row by row. The body's size bounds them, two levels bound the walk.
fn numbers(data: &Value) -> Result<Vec<f32>, Fault> {
    let Value::Array(items) = data else {
        return Err(Fault::bad_request("inputs[0].data: expected an array of numbers"));
    };
    let flat = items.iter().flat_map(|item| match item {
        Value::Array(row) => row.as_slice(),
        single => std::slice::from_ref(single),
    });
    let number = |value: &Value| value.as_f64().map(|number| number as f32);
    let numbers: Option<Vec<f32>> = flat.map(number).collect();
    numbers.ok_or_else(|| Fault::bad_request("inputs[0].data: expected numbers, flat or one row for each image"))
}

#[derive(Clone, Copy)]
enum Output {
    Label,
    Scores,
}

impl Output {
    fn tensor(self, predictions: &[Prediction]) -> Value {
        let count = predictions.len();
        match self {
            Self::Label => {
                let labels: Vec<usize> = predictions.iter().map(|prediction| prediction.label).collect();
                json!({ "name": "label", "shape": [count], "datatype": "INT64", "data": labels })
            }
            Self::Scores => {
                let scores: Vec<f32> = predictions.iter().flat_map(|prediction| prediction.scores).collect();
                json!({ "name": "scores", "shape": [count, CLASSES], "datatype": "FP32", "data": scores })
            }
        }
    }
}

/// The outputs that were asked for; all when none was named.
fn wanted(outputs: Option<&[Wanted]>) -> Result<Vec<Output>, Fault> {
    let Some(outputs) = outputs.filter(|outputs| !outputs.is_empty()) else {
        return Ok(vec![Output::Label, Output::Scores]);
    };
    if outputs.len() > 2 {
        return Err(Fault::bad_request(format!("outputs: expected at most 2, found {}", outputs.len())));
    }
    let known = |wanted: &Wanted| match wanted.name.as_str() {
        "label" => Ok(Output::Label),
        "scores" => Ok(Output::Scores),
        other => Err(Fault::bad_request(format!("outputs: no {other:?} here, only \"label\" and \"scores\""))),
    };
    outputs.iter().map(known).collect()
}
