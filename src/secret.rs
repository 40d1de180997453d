//! Secrets: where they come from, and a type that cannot be printed by accident.

use std::fmt;
use std::path::PathBuf;

/// A secret value. `Debug` and `Display` never show it; [`Secret::expose`] is the only way in.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself. Call it where the bytes go on the wire, nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Where a secret (or a text that may hold one) is read from, each time it is used, so that a rotated
/// Secret volume takes effect without a reload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SecretSource {
    /// A file, read at each use; one trailing line break is dropped.
    File(PathBuf),
    /// A text whose `${NAME}` parts are taken from the environment at each use. `$${` is a literal `${`.
    Template(Template),
}

/// A text with `${NAME}` references. Its own `Debug` is safe: it shows the names, never the values.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template(String);

impl Template {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text as typed, `${NAME}` unexpanded.
    pub fn as_typed(&self) -> &str {
        &self.0
    }

    /// Names of the variables that the text refers to, in order.
    pub fn variables(&self) -> Vec<&str> {
        let mut names = Vec::new();
        let mut rest = self.0.as_str();
        while let Some(at) = rest.find("${") {
            let escaped = rest[..at].ends_with('$');
            let tail = &rest[at + 2..];
            let Some(end) = tail.find('}') else { break };
            if !escaped {
                names.push(&tail[..end]);
            }
            rest = &tail[end + 1..];
        }
        names
    }

    fn expand(&self) -> Result<String, SecretError> {
        let mut out = String::with_capacity(self.0.len());
        let mut rest = self.0.as_str();
        while let Some(at) = rest.find("${") {
            let tail = &rest[at + 2..];
            let Some(end) = tail.find('}') else { break };
            if rest[..at].ends_with('$') {
                out.push_str(&rest[..at - 1]);
                out.push_str(&rest[at..at + 2 + end + 1]);
            } else {
                out.push_str(&rest[..at]);
                let name = &tail[..end];
                out.push_str(&std::env::var(name).map_err(|_| SecretError::Variable(name.to_owned()))?);
            }
            rest = &tail[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// Why a secret could not be read. The message names the place, never a value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set, or not Unicode.
    #[error("environment variable {0} is not set")]
    Variable(String),
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
}

impl SecretSource {
    /// Reads the secret now.
    pub fn resolve(&self) -> Result<Secret, SecretError> {
        match self {
            Self::File(path) => {
                let mut text =
                    std::fs::read_to_string(path).map_err(|source| SecretError::File { path: path.clone(), source })?;
                if text.ends_with('\n') {
                    text.pop();
                    if text.ends_with('\r') {
                        text.pop();
                    }
                }
                Ok(Secret(text))
            }
            Self::Template(template) => template.expand().map(Secret),
        }
    }
}
