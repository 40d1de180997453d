//! The probe paths on the traffic listener, for `expose_probes`.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;

use crate::answers::ProbeAnswers;
use crate::proxy::ProbeHook;

/// Lets the probe listener's answers be given elsewhere too.
pub(super) struct Exposed(pub(super) Arc<ProbeAnswers>);

impl ProbeHook for Exposed {
    fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap, from: SocketAddr) -> Option<Response<Bytes>> {
        // Only what is answered at once: `/metrics` here is the model server's own, and nobody waits for a
        // drain through the very plane that drains.
        if matches!(uri.path(), "/metrics" | "/wait-for-drain") {
            return None;
        }
        let mut request = Request::new(());
        request.method_mut().clone_from(method);
        request.uri_mut().clone_from(uri);
        request.headers_mut().clone_from(headers);
        let whole = async {
            let (head, body) = self.0.answer(&request, from.ip()).await.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            Response::from_parts(head, body)
        };
        match pin!(whole).poll(&mut Context::from_waker(Waker::noop())) {
            // A path that is none of ours is the model server's.
            Poll::Ready(response) if response.status() != StatusCode::NOT_FOUND => Some(response),
            Poll::Ready(_) | Poll::Pending => None,
        }
    }
}
