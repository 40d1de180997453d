//! Secrets: where they come from, and a type that cannot be printed by accident.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::limits::SECRET_BYTES_MAX;

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
    /// The file cannot be read, or holds nothing that could be a secret.
    #[error("file {}: {why}", path.display())]
    File { path: PathBuf, why: String },
}

impl SecretSource {
    /// Reads the secret now.
    pub fn resolve(&self) -> Result<Secret, SecretError> {
        match self {
            Self::File(path) => read(path).map(Secret).map_err(|why| SecretError::File { path: path.clone(), why }),
            Self::Template(template) => template.expand().map(Secret),
        }
    }
}

/// The file's text without one trailing line break, or why there is none. A pipe or a device might make us wait, or
/// never end: neither is opened.
fn read(path: &Path) -> Result<String, String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::InvalidData => "not UTF-8 text".to_owned(),
        _ => error.to_string(),
    };
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err("not a regular file".to_owned());
    }
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(format!("larger than {} KiB", SECRET_BYTES_MAX / 1024));
    }
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    // What was never filled in looks like this: better a word about it than a wrong password.
    if text.trim().is_empty() { Err("empty".to_owned()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(content: &[u8]) -> Result<Secret, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, content).unwrap();
        let secret = SecretSource::File(path.clone()).resolve();
        secret.map_err(|error| error.to_string().replace(&path.display().to_string(), "F"))
    }

    #[test]
    fn one_line_break_at_the_end_is_dropped_and_no_more() {
        assert_eq!(of_file(b"sesame\n").unwrap().expose(), "sesame");
        assert_eq!(of_file(b"sesame\r\n").unwrap().expose(), "sesame");
        assert_eq!(of_file(b" two\n\n").unwrap().expose(), " two\n");
    }

    #[test]
    fn a_file_that_holds_no_secret_says_so() {
        assert_eq!(of_file(b"").unwrap_err(), "file F: empty");
        assert_eq!(of_file(b"\n").unwrap_err(), "file F: empty");
        assert_eq!(of_file(b"\xff\xfe").unwrap_err(), "file F: not UTF-8 text");
        assert!(of_file(&vec![b'x'; SECRET_BYTES_MAX as usize]).is_ok());
        assert_eq!(of_file(&vec![b'x'; SECRET_BYTES_MAX as usize + 1]).unwrap_err(), "file F: larger than 64 KiB");
        let of = |path: &str| SecretSource::File(PathBuf::from(path)).resolve().unwrap_err().to_string();
        assert_eq!(of("/no/such/file"), "file /no/such/file: no such file");
        assert_eq!(of("/dev/zero"), "file /dev/zero: not a regular file");
    }
}
