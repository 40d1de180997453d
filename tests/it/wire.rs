//! HTTP/1.1 by hand: what goes over the socket is what the test says.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::until::DEADLINE;

/// One answer, as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.body))
    }
}

/// A connection that is kept.
pub(crate) struct Line(BufReader<TcpStream>);

impl Line {
    pub(crate) fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// For so long it waits for each part of an answer.
    pub(crate) fn patience(&self, span: Duration) -> io::Result<()> {
        self.0.get_ref().set_read_timeout(Some(span))
    }

    pub(crate) fn send(&mut self, bytes: &str) -> io::Result<()> {
        self.0.get_mut().write_all(bytes.as_bytes())
    }

    /// The next answer. One to HEAD has no body, whatever its head says.
    pub(crate) fn reply(&mut self, to_head: bool) -> io::Result<Reply> {
        let mut reply = self.head()?;
        if to_head {
            return Ok(reply);
        }
        let chunked = reply.header("transfer-encoding") == Some("chunked");
        let length: Option<usize> = reply.header("content-length").map(|length| length.parse().expect("a length"));
        let body = match (chunked, length) {
            (true, _) => self.chunks()?,
            (false, Some(length)) => {
                let mut body = vec![0; length];
                self.0.read_exact(&mut body)?;
                body
            }
            (false, None) => {
                let mut body = Vec::new();
                self.0.read_to_end(&mut body)?;
                body
            }
        };
        reply.body = String::from_utf8_lossy(&body).into_owned();
        Ok(reply)
    }

    /// Status and headers alone; what follows is for [`Line::chunk`].
    pub(crate) fn head(&mut self) -> io::Result<Reply> {
        let status = self.line()?;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = code.ok_or_else(|| io::Error::other(format!("not a status line: {status:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            match line.split_once(':') {
                Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
                None => return Ok(Reply { status, headers, body: String::new() }),
            }
        }
    }

    /// The next chunk; empty is the last.
    pub(crate) fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let size = self.line()?;
        let size =
            usize::from_str_radix(&size, 16).map_err(|_| io::Error::other(format!("no chunk size: {size:?}")))?;
        let mut chunk = vec![0; size + 2];
        self.0.read_exact(&mut chunk)?;
        chunk.truncate(size);
        Ok(chunk)
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend(chunk);
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Whether the other side has closed.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.0.fill_buf(), Ok([]) | Err(_))
    }
}

/// One request on a connection of its own.
pub(crate) fn ask(to: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> io::Result<Reply> {
    let mut line = Line::open(to)?;
    let length = body.len();
    line.send(&format!(
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    ))?;
    line.reply(method == "HEAD")
}

pub(crate) fn get(to: SocketAddr, path: &str) -> Reply {
    ask(to, "GET", path, "", "").unwrap_or_else(|error| panic!("GET {path} from {to}: {error}"))
}

pub(crate) fn post(to: SocketAddr, path: &str, body: &str) -> Reply {
    ask(to, "POST", path, "", body).unwrap_or_else(|error| panic!("POST {path} to {to}: {error}"))
}
