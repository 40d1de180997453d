//! Behaviour of the whole: text in, configuration or problems out.
