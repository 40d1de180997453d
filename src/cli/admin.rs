//! A running sidecar's admin listener, as the commands see it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Request, StatusCode};

use super::Failure;
use crate::answers::report::Report;
use crate::config::{self, AdminAddress, Listen, Overrides};
use crate::net::http::{Target, fetch};
use crate::secret::SecretSource;

/// The file that `run` reads if none is named.
const DEFAULT_FILE: &str = "probegate.toml";
/// A report of 10 000 checks is some 10 MB.
const REPORT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// An answer comes from a process on this machine.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How to find the sidecar. Shared by the commands that speak to one.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// Its admin listener [default: what `run` would use here, 127.0.0.1:9091 if nothing says otherwise]
    #[arg(long, value_name = "HOST:PORT|unix:PATH", conflicts_with = "config")]
    admin: Option<String>,

    /// Its configuration file, to read listen.admin from
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The file with the admin token, if the listener wants one
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// One sidecar.
pub(super) struct Sidecar {
    target: Target,
    token: Option<SecretSource>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// Nobody is there, or not in time.
    #[error("no sidecar answers at {0}: {1}")]
    Gone(String, String),
    /// It answered with a refusal.
    #[error("{0}")]
    Refused(String),
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        Self::new(unanswered.to_string())
    }
}

impl Place {
    pub(super) fn find(&self) -> Result<Sidecar, Failure> {
        let mut token = self.token_file.clone().map(SecretSource::File);
        let target = match &self.admin {
            Some(admin) => target(admin),
            None => {
                let listen = self.listen()?;
                token = token.or(listen.admin_token);
                configured(&listen.admin)?
            }
        };
        Ok(Sidecar { target, token })
    }
}

impl Place {
    /// The listeners of the sidecar that the file, or the environment alone, describes. A preStop hook must find it
    /// also when the file has become faulty since the sidecar read it.
    fn listen(&self) -> Result<Listen, Failure> {
        let file = self.config.as_deref();
        let text = match file {
            Some(file) => config::read(file).map_err(|why| Failure::new(format!("{}: {why}", file.display())))?,
            None => config::read(Path::new(DEFAULT_FILE)).unwrap_or_default(),
        };
        let overrides = Overrides::from_process();
        let listen = config::listen(file.unwrap_or_else(|| Path::new(DEFAULT_FILE)), &text, &overrides);
        listen.map_err(|problems| Failure::new(problems.to_string()))
    }
}

fn target(address: &str) -> Target {
    match address.strip_prefix("unix:") {
        Some(path) => Target::Unix(PathBuf::from(path)),
        None if address.starts_with('/') => Target::Unix(PathBuf::from(address)),
        None => Target::Tcp { address: address.to_owned(), tls: None },
    }
}

fn configured(address: &AdminAddress) -> Result<Target, Failure> {
    match address {
        AdminAddress::Unix(path) => Ok(Target::Unix(path.clone())),
        AdminAddress::Tcp(address) if address.port() == 0 => {
            Err(Failure::new("the file leaves the admin port to chance: give --admin with the one that was logged"))
        }
        AdminAddress::Tcp(address) => {
            let mut address = *address;
            // Listening everywhere includes here.
            if address.ip().is_unspecified() {
                address.set_ip(if address.is_ipv4() {
                    std::net::Ipv4Addr::LOCALHOST.into()
                } else {
                    std::net::Ipv6Addr::LOCALHOST.into()
                });
            }
            Ok(Target::Tcp { address: address.to_string(), tls: None })
        }
    }
}

impl Sidecar {
    /// For people.
    pub(super) fn address(&self) -> String {
        self.target.address()
    }

    /// The report, as it came.
    pub(super) async fn report_text(&self) -> Result<Bytes, Unanswered> {
        self.ask(Method::GET, "/api/report").await
    }

    pub(super) async fn report(&self) -> Result<Report, Unanswered> {
        self.understand(&self.report_text().await?)
    }

    /// A report, from its text.
    pub(super) fn understand(&self, text: &[u8]) -> Result<Report, Unanswered> {
        serde_json::from_slice(text).map_err(|error| {
            Unanswered::Refused(format!("what answers at {} is no sidecar of this version: {error}", self.address()))
        })
    }

    pub(super) async fn post(&self, path: &str) -> Result<Bytes, Unanswered> {
        self.ask(Method::POST, path).await
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Bytes, Unanswered> {
        let unusable = |why: String| Unanswered::Refused(why);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .body(Bytes::new())
            .map_err(|error| unusable(error.to_string()))?;
        if let Some(token) = &self.token {
            let token = token.resolve().map_err(|error| unusable(error.to_string()))?;
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .map_err(|_| unusable("the admin token is not one line of visible characters".to_owned()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let gone = |why: String| Unanswered::Gone(self.address(), why);
        let response = tokio::time::timeout(TIMEOUT, fetch(&self.target, request, REPORT_BYTES_MAX))
            .await
            .map_err(|_| gone(format!("timeout after {}", humantime::format_duration(TIMEOUT))))?
            .map_err(|failure| gone(failure.to_string()))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        Err(Unanswered::Refused(match status {
            StatusCode::UNAUTHORIZED => format!("{} wants a token: give --token-file", self.address()),
            _ => {
                let said: Option<serde_json::Value> = serde_json::from_slice(response.body()).ok();
                let said = said.and_then(|said| said["error"].as_str().map(ToOwned::to_owned));
                said.unwrap_or_else(|| format!("{} answered {status}", self.address()))
            }
        }))
    }
}

/// A runtime for a command that asks and waits.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_port_or_a_socket() {
        assert!(matches!(target("unix:/run/a.sock"), Target::Unix(path) if path.as_os_str() == "/run/a.sock"));
        assert!(matches!(target("/run/a.sock"), Target::Unix(_)));
        assert!(matches!(target("10.0.0.1:9091"), Target::Tcp { address, .. } if address == "10.0.0.1:9091"));
    }

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        let everywhere = AdminAddress::Tcp("0.0.0.0:9091".parse().unwrap());
        assert_eq!(configured(&everywhere).unwrap().address(), "127.0.0.1:9091");
        assert!(configured(&AdminAddress::Tcp("127.0.0.1:0".parse().unwrap())).is_err());
    }
}
