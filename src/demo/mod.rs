//! What `probegate demo` brings along: a model server to stand in front of. Not part of the production image.

pub mod model_server;
