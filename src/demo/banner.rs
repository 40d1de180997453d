//! What a person sees first: where everything is, what to try, what to break and what will be seen then.

use std::fmt::{self, Display, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::model_server::Release;

/// Everything that the first screen shows.
#[derive(Debug)]
pub(super) struct Banner<'a> {
    /// How this program was called: it need not be on the search path.
    pub(super) program: &'a str,
    pub(super) traffic: SocketAddr,
    pub(super) probes: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) model_server: SocketAddr,
    pub(super) config: &'a Path,
    pub(super) release: Release,
    pub(super) load_time: Duration,
    /// The demo ends by itself after this.
    pub(super) lasts: Option<Duration>,
    /// Headings in bold.
    pub(super) colour: bool,
}

impl Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.places(f)?;
        self.try_it(f)?;
        self.break_it(f)?;
        let end = self.lasts.map_or_else(
            || "Ctrl-C ends it".to_owned(),
            |lasts| format!("It ends after {}, or at Ctrl-C", humantime::format_duration(lasts)),
        );
        writeln!(f, "{end}. One line for each change follows.\n")
    }
}

impl Banner<'_> {
    fn places(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.heading(
            f,
            "Probegate demo: a model server that reads handwritten digits, and the sidecar in front of it",
        )?;
        let Self { traffic, probes, admin, model_server, config, .. } = self;
        writeln!(f, "  traffic       http://{traffic}   what clients call")?;
        writeln!(f, "  probes        http://{probes}   what the kubelet and Prometheus call")?;
        writeln!(f, "  admin         http://{admin}   status and controls of the sidecar")?;
        writeln!(f, "  model server  http://{model_server}   {}, behind the sidecar", self.release.name())?;
        writeln!(f, "  configuration {}", config.display())?;
        if !self.load_time.is_zero() {
            let load = humantime::format_duration(self.load_time);
            writeln!(f, "The model loads for {load} first: until then /startup and /ready say 503, /health says 200.")?;
        }
        f.write_char('\n')
    }

    fn try_it(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, traffic, probes, admin, .. } = self;
        self.heading(f, "Try it, in a second terminal")?;
        writeln!(f, "  curl -s '{traffic}/digits/7?as=picture'")?;
        writeln!(f, "  curl -s {traffic}/digits/7 | curl -s -d @- {traffic}/predict")?;
        writeln!(f, "  curl -sN '{traffic}/stream?digit=7&tokens=10&interval_ms=200'")?;
        writeln!(f, "  curl -s '{probes}/ready?verbose'")?;
        writeln!(f, "  curl -s {probes}/metrics | grep -E '^(model|probegate_gate)_'")?;
        writeln!(f, "  {program} status --admin {admin}\n")
    }

    fn break_it(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.heading(f, "Break the model server, and watch")?;
        let lines = [
            ("/hang", "inference never answers, yet its /health says 200: /ready fails"),
            ("/unhang", "... and heals"),
            ("/crash", "it exits with code 1 and is started again"),
            ("/ready/disable", "it says that it is not ready: so does /ready"),
            ("/ready/enable", "... and heals"),
            ("/degrade", "noise, accuracy falls below 0.8: /ready warns, and stays 200"),
            ("/recover", "... and heals"),
        ];
        for (path, what) in lines {
            let call = format!("curl -X POST {}{path}", self.model_server);
            writeln!(f, "  {call:<43}  {what}")?;
        }
        writeln!(f, "They go past the sidecar, which lets nothing through while the model server is not ready.")?;
        writeln!(f, "A release that answers 200 with garbage: {} demo --version v2\n", self.program)
    }

    fn heading(&self, f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
        if self.colour { writeln!(f, "\x1b[1m{text}\x1b[0m") } else { writeln!(f, "{text}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banner(colour: bool) -> String {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let banner = Banner {
            program: "probegate",
            traffic: at(8080),
            probes: at(9090),
            admin: at(9091),
            model_server: at(41234),
            config: Path::new("/tmp/x/probegate.toml"),
            release: Release::V1,
            load_time: Duration::from_secs(3),
            lasts: Some(Duration::from_secs(10)),
            colour,
        };
        banner.to_string()
    }

    #[test]
    fn it_names_every_address_and_what_to_break() {
        let text = banner(false);
        for expected in ["http://127.0.0.1:8080", "127.0.0.1:9090/ready?verbose", "curl -X POST 127.0.0.1:41234/hang "]
        {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        assert!(text.contains("It ends after 10s, or at Ctrl-C."));
    }

    #[test]
    fn without_colour_it_holds_no_escapes() {
        assert!(!banner(false).contains('\x1b'));
        assert!(banner(false).lines().all(|line| line.len() <= 110));
        assert!(banner(true).contains("\x1b[1m"));
    }
}
