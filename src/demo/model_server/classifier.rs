//! The model: a small multi-layer perceptron that reads handwritten digits.
//!
//! Owns the arithmetic and the embedded weights. Knows nothing of HTTP, and is right about 98 % of the
//! digits it never saw, so that an answer can be wrong and accuracy means something.

use serde::Deserialize;

/// Pixels of one digit, row by row: 8 x 8.
pub(super) const PIXELS: usize = 64;
/// Pixels in a row.
pub(super) const ROW: usize = 8;
/// What the model tells apart: 0 to 9.
pub(super) const CLASSES: usize = 10;
/// The most ink that a pixel holds; the least is 0.
pub(super) const INK_MAX: f32 = 16.0;

const WEIGHTS: &str = include_str!("../../../demo-model/weights.json");

/// One handwritten digit: ink per pixel, 0 to 16, row by row.
pub(super) type Image = [f32; PIXELS];

/// What the model says about one image.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prediction {
    /// The likeliest digit.
    pub(super) label: usize,
    /// How likely each digit is; they sum to 1.
    pub(super) scores: [f32; CLASSES],
}

impl Prediction {
    /// The score of the likeliest digit, 0 to 1.
    pub(super) fn confidence(&self) -> f32 {
        self.scores[self.label]
    }
}

/// The trained network.
#[derive(Debug)]
pub(super) struct Classifier {
    layers: Vec<Layer>,
}

#[derive(Debug, Deserialize)]
struct Layer {
    weights: Vec<Vec<f32>>,
    bias: Vec<f32>,
}

/// Why the weights cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// Not the JSON that the training script writes.
    #[error("the weights cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A layer does not fit its neighbours.
    #[error("layer {layer} of the weights does not fit: expected {expected} inputs")]
    Shape { layer: usize, expected: usize },
}

impl Classifier {
    /// Parses the embedded weights.
    pub(super) fn load() -> Result<Self, LoadError> {
        Self::parse(WEIGHTS)
    }

    fn parse(text: &str) -> Result<Self, LoadError> {
        #[derive(Deserialize)]
        struct File {
            layers: Vec<Layer>,
        }
        let layers = serde_json::from_str::<File>(text)?.layers;
        let mut inputs = PIXELS;
        for (index, layer) in layers.iter().enumerate() {
            let fits = layer.weights.len() == layer.bias.len() && layer.weights.iter().all(|row| row.len() == inputs);
            if !fits {
                return Err(LoadError::Shape { layer: index, expected: inputs });
            }
            inputs = layer.bias.len();
        }
        if inputs != CLASSES {
            return Err(LoadError::Shape { layer: layers.len(), expected: CLASSES });
        }
        Ok(Self { layers })
    }

    /// Reads one digit. A few microseconds, no allocation worth hiding.
    pub(super) fn predict(&self, image: &Image) -> Prediction {
        let mut signal: Vec<f32> = image.iter().map(|ink| ink / INK_MAX).collect();
        for (index, layer) in self.layers.iter().enumerate() {
            signal = layer.forward(&signal);
            if index + 1 < self.layers.len() {
                signal.iter_mut().for_each(|value| *value = value.max(0.0));
            }
        }
        softmax(&signal)
    }
}

impl Layer {
    fn forward(&self, input: &[f32]) -> Vec<f32> {
        let weighted = |row: &Vec<f32>| row.iter().zip(input).map(|(weight, value)| weight * value).sum::<f32>();
        self.weights.iter().zip(&self.bias).map(|(row, bias)| weighted(row) + bias).collect()
    }
}

fn softmax(logits: &[f32]) -> Prediction {
    // Subtracting the largest keeps exp() finite; it cancels in the division.
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    let mut scores = [0.0; CLASSES];
    for (score, logit) in scores.iter_mut().zip(logits) {
        *score = (logit - largest).exp();
    }
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
    let label = (0..CLASSES).fold(0, |best, digit| if scores[best] < scores[digit] { digit } else { best });
    Prediction { label, scores }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_probabilities_and_the_label_is_the_largest() {
        let prediction = Classifier::load().unwrap().predict(&[3.0; PIXELS]);
        let sum: f32 = prediction.scores.iter().sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        assert!(prediction.scores.iter().all(|score| *score <= prediction.confidence()));
    }

    #[test]
    fn enormous_logits_stay_finite() {
        let prediction = softmax(&[0.0, 1e30, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1e30]);
        assert_eq!(prediction.label, 1);
        assert!(prediction.scores.iter().all(|score| score.is_finite()));
    }

    #[test]
    fn a_layer_that_does_not_fit_is_refused() {
        let text = r#"{"layers": [{"weights": [[1.0, 2.0]], "bias": [0.0]}]}"#;
        let error = Classifier::parse(text).unwrap_err().to_string();
        assert_eq!(error, "layer 0 of the weights does not fit: expected 64 inputs");
    }
}
