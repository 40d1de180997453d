//! Everything that is wrong with a configuration, at once, for a person.

use std::fmt;
use std::path::{Path, PathBuf};

use super::document::Spot;

/// All problems of one configuration. At least one.
#[derive(Clone, Debug)]
pub struct Problems {
    list: Vec<Problem>,
}

/// One problem: where, what was found, what was expected.
#[derive(Clone, Debug)]
pub struct Problem {
    pub(crate) place: Place,
    pub(crate) key: String,
    pub(crate) message: String,
    pub(crate) expected: Option<String>,
    pub(crate) nearest: Option<String>,
}

/// Where a faulty value came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// The file as a whole: missing, too large, not text.
    Whole(PathBuf),
    File(PathBuf, Spot),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
    /// A built-in preset.
    Preset(String),
}

impl Problems {
    pub(crate) fn new(mut list: Vec<Problem>) -> Self {
        // The file's own order; what has no line comes first.
        list.sort_by_key(|problem| problem.line_column().unwrap_or((0, 0)));
        Self { list }
    }

    pub(crate) fn whole(file: &Path, message: impl Into<String>) -> Self {
        let place = Place::Whole(file.to_owned());
        let problem = Problem { place, key: String::new(), message: message.into(), expected: None, nearest: None };
        Self { list: vec![problem] }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Problem {
    /// The file, if the value was typed in one.
    pub fn file(&self) -> Option<&Path> {
        match &self.place {
            Place::Whole(file) | Place::File(file, _) => Some(file),
            Place::Variable(_) | Place::Flag(_) | Place::Preset(_) => None,
        }
    }

    /// Line and column, both from 1, the column in characters.
    pub fn line_column(&self) -> Option<(usize, usize)> {
        match &self.place {
            Place::File(_, spot) => Some((spot.line, spot.column)),
            _ => None,
        }
    }

    /// Where, on one line: `probegate.toml:12:9`, a variable, a flag.
    pub fn place(&self) -> String {
        match &self.place {
            Place::Whole(file) => file.display().to_string(),
            Place::File(file, spot) => format!("{}:{}:{}", file.display(), spot.line, spot.column),
            Place::Variable(name) => format!("environment variable {name}"),
            Place::Flag(name) => name.clone(),
            Place::Preset(name) => format!("preset {name}"),
        }
    }

    /// The key path, as in `checks.redis.interval`; empty if it is about the whole.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What was found.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What would have been right.
    pub fn expected(&self) -> Option<&str> {
        self.expected.as_deref()
    }

    /// The nearest valid name.
    pub fn nearest(&self) -> Option<&str> {
        self.nearest.as_deref()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place())?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if let Some(expected) = &self.expected {
            write!(f, ", expected {expected}")?;
        }
        if let Place::File(_, spot) = &self.place
            && !spot.shown.is_empty()
        {
            let number = spot.line.to_string();
            let margin = " ".repeat(number.len());
            // A tab before the caret stays a tab, so that the caret stands where the text does.
            let indent: String =
                spot.shown.chars().take(spot.carets.0).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            write!(f, "\n {number} | {}\n {margin} | {indent}{}", spot.shown, "^".repeat(spot.carets.1))?;
        }
        if let Some(nearest) = &self.nearest {
            write!(f, "\nhelp: did you mean {nearest:?}?")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
