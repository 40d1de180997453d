//! The labelled test set: 400 handwritten digits that the model was not trained on.
//!
//! Owns the embedded file and its notation. Examples of it are what people send to try the server.

use super::classifier::{Image, PIXELS, ROW};

const TEST_SET: &str = include_str!("../../../demo-model/test-set.txt");

/// A handwritten digit and what it really is.
#[derive(Clone, Debug)]
pub(super) struct Digit {
    pub(super) label: usize,
    pub(super) image: Image,
}

/// Parses the embedded test set. The error names the line.
pub(super) fn load() -> Result<Vec<Digit>, String> {
    parse(TEST_SET)
}

fn parse(text: &str) -> Result<Vec<Digit>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.is_empty());
    lines.map(|(index, line)| parse_line(line).ok_or_else(|| format!("test set, line {}", index + 1))).collect()
}

/// `LABEL PIXELS`: each pixel is one digit of base 17.
fn parse_line(line: &str) -> Option<Digit> {
    let (label, pixels) = line.split_once(' ')?;
    let label = label.parse().ok().filter(|label| *label < 10)?;
    if pixels.len() != PIXELS {
        return None;
    }
    let mut image = [0.0; PIXELS];
    for (ink, character) in image.iter_mut().zip(pixels.chars()) {
        *ink = character.to_digit(17)? as f32;
    }
    Some(Digit { label, image })
}

/// The digit as a person sees it, two characters a pixel.
pub(super) fn picture(image: &Image) -> String {
    let shades = [' ', '.', ':', '+', '#', '@'];
    let mut out = String::with_capacity(PIXELS * 2 + ROW);
    for row in image.chunks(ROW) {
        for ink in row {
            let shade = shades[((ink / 16.0 * 5.0).round() as usize).min(shades.len() - 1)];
            out.extend([shade, shade]);
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_test_set_holds_four_hundred_digits_of_every_kind() {
        let digits = load().unwrap();
        assert_eq!(digits.len(), 400);
        assert!((0..10).all(|label| digits.iter().filter(|digit| digit.label == label).count() >= 30));
        assert!(digits.iter().all(|digit| digit.image.iter().all(|ink| (0.0..=16.0).contains(ink))));
    }

    #[test]
    fn a_short_line_is_named() {
        assert_eq!(parse("# head\n3 0123\n").unwrap_err(), "test set, line 2");
    }

    #[test]
    fn a_picture_has_eight_rows() {
        let picture = picture(&load().unwrap()[0].image);
        assert_eq!(picture.lines().count(), 8);
        assert!(picture.lines().all(|line| line.chars().count() == 16));
    }
}
