//! The server's own API: `POST /predict`, and digits to try it with.
//!
//! One image as `{"pixels": [64 numbers]}` or many as `{"instances": [[64 numbers], ...]}`. A `label` beside
//! `pixels` says what the digit really is; the answer then says whether the model was right.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::classifier::{INK_MAX, Image, PIXELS, Prediction};
use super::digits;
use super::reply::{Fault, Reply, json_reply, text_reply};
use super::server::Server;

/// Images in one request.
pub(super) const BATCH_MAX: usize = 256;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    pixels: Option<Vec<f32>>,
    label: Option<usize>,
    instances: Option<Vec<Vec<f32>>>,
}

#[derive(Serialize)]
struct Answer<'a> {
    label: usize,
    confidence: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    correct: Option<bool>,
    scores: &'a [f32],
    model_version: &'static str,
}

/// `POST /predict`.
pub(super) async fn predict(server: &Server, body: &[u8]) -> Result<Reply, Fault> {
    let request: Request = serde_json::from_slice(body)
        .map_err(|error| Fault::bad_request(format!("the body is not a prediction request: {error}")))?;
    match (request.pixels, request.instances) {
        (Some(pixels), None) => {
            let predictions = server.infer(&[image("pixels", &pixels)?]).await?;
            let correct = request.label.map(|label| label == predictions[0].label);
            Ok(json_reply(StatusCode::OK, &answer(server, &predictions[0], correct)))
        }
        (None, Some(instances)) => {
            let predictions = server.infer(&batch(&instances)?).await?;
            let answers: Vec<_> = predictions.iter().map(|prediction| answer(server, prediction, None)).collect();
            Ok(json_reply(StatusCode::OK, &json!({ "predictions": answers })))
        }
        _ => Err(Fault::bad_request(
            r#"expected either {"pixels": [64 numbers]} or {"instances": [[64 numbers], ...]}; try GET /digits/0"#,
        )),
    }
}

fn answer<'a>(server: &Server, prediction: &'a Prediction, correct: Option<bool>) -> Answer<'a> {
    Answer {
        label: prediction.label,
        confidence: prediction.confidence(),
        correct,
        scores: &prediction.scores,
        model_version: server.options.release.name(),
    }
}

fn batch(instances: &[Vec<f32>]) -> Result<Vec<Image>, Fault> {
    if instances.is_empty() || instances.len() > BATCH_MAX {
        let found = instances.len();
        return Err(Fault::bad_request(format!("instances: expected 1 to {BATCH_MAX} images, found {found}")));
    }
    let named = instances.iter().enumerate();
    named.map(|(index, pixels)| image(&format!("instances[{index}]"), pixels)).collect()
}

/// Checks one image; `name` is what the error calls it.
pub(super) fn image(name: &str, pixels: &[f32]) -> Result<Image, Fault> {
    let image: Image = pixels
        .try_into()
        .map_err(|_| Fault::bad_request(format!("{name}: expected {PIXELS} numbers, found {}", pixels.len())))?;
    match image.iter().position(|ink| !(0.0..=INK_MAX).contains(ink)) {
        None => Ok(image),
        Some(at) => Err(Fault::bad_request(format!("{name}[{at}]: expected 0 to {INK_MAX}, found {}", image[at]))),
    }
}

/// `GET /digits/N`: a digit of the test set as a request body, or drawn for a person (`?as=picture`).
pub(super) fn digit(server: &Server, index: &str, query: Option<&str>) -> Result<Reply, Fault> {
    let loaded = server.loaded().ok_or(super::server::Rejected::Loading)?;
    let digits = &loaded.digits;
    let found = index.parse().ok().and_then(|index: usize| digits.get(index));
    let digit = found.ok_or_else(|| Fault::not_found(format!("digits go from 0 to {}", digits.len() - 1)))?;
    if query == Some("as=picture") {
        return Ok(text_reply("text/plain; charset=utf-8", digits::picture(&digit.image)));
    }
    // Whole numbers read better than 7.0.
    let pixels: Vec<Value> = digit.image.iter().map(|ink| json!(*ink as u8)).collect();
    Ok(json_reply(StatusCode::OK, &json!({ "label": digit.label, "pixels": pixels })))
}
