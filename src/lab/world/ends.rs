//! How a request ended: a closed list, for scores and reports.

/// How a request ended.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum End {
    Ok,
    /// A 200 with garbage in it.
    Wrong,
    /// A stream that had begun broke off.
    Cut,
    /// A dependency that it needs did not answer.
    Dependency,
    /// The sidecar takes no new requests: the pod ends.
    Draining,
    /// Loading: 503 by the server.
    Loading,
    /// Nobody in rotation.
    NoEndpoint,
    /// The sidecar's readiness gate is closed.
    NotReady,
    /// The server's queue is full: 503.
    Overloaded,
    /// The sidecar lets no more in, and no more wait.
    QueueFull,
    /// It waited at the sidecar for as long as it may.
    QueueTimeout,
    /// Nobody listens.
    Refused,
    /// The process died with the request in its hands.
    Reset,
    /// The sidecar lets no new ones in: the server is saturated.
    Saturated,
    /// The client gave up, or the sidecar did.
    Timeout,
}

impl End {
    pub const ALL: [Self; 15] = [
        Self::Ok,
        Self::Wrong,
        Self::Cut,
        Self::Dependency,
        Self::Draining,
        Self::Loading,
        Self::NoEndpoint,
        Self::NotReady,
        Self::Overloaded,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::Refused,
        Self::Reset,
        Self::Saturated,
        Self::Timeout,
    ];

    /// The word in reports. Those of the sidecar are the proxy's own.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Wrong => "wrong",
            Self::Cut => "cut",
            Self::Dependency => "dependency",
            Self::Draining => "draining",
            Self::Loading => "loading",
            Self::NoEndpoint => "no_endpoint",
            Self::NotReady => "not_ready",
            Self::Overloaded => "overloaded",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Saturated => "saturated",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
        }
    }

    /// What that means, for people.
    pub const fn says(self) -> &'static str {
        match self {
            Self::Ok => "ended well",
            Self::Wrong => "answered with garbage",
            Self::Cut => "a stream broke off",
            Self::Dependency => "a dependency that the request needs did not answer",
            Self::Draining => "refused: the pod is going",
            Self::Loading => "503: the server was loading",
            Self::NoEndpoint => "nobody was in rotation",
            Self::NotReady => "refused: the pod was not ready",
            Self::Overloaded => "503: the server's queue was full",
            Self::QueueFull => "refused: the sidecar's queue was full",
            Self::QueueTimeout => "waited too long in the sidecar's queue",
            Self::Refused => "nobody listened",
            Self::Reset => "the process died with the request in its hands",
            Self::Saturated => "refused: the server was saturated",
            Self::Timeout => "the client gave up waiting",
        }
    }
}
