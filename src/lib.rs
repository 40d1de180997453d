//! Probegate judges a model server on evidence and answers the kubelet for it.
//!
//! The story runs one way: **evidence → judgement → answer**. Collectors ([`checks`], [`proxy`]) gather
//! evidence, one pure [`engine`] judges it, listeners ([`answers`], [`proxy`]) publish the judgement.
//! Nothing else decides. [`run`] puts the parts on their threads, [`cli`] is what a person types.
//!
//! Modules in reading order.

pub mod engine;

pub mod clock;
pub mod control;
pub mod limits;
pub mod publish;
pub mod secret;
pub mod telemetry;

pub mod config;

pub mod net;
pub mod scrape;

#[cfg(feature = "lab")]
pub mod lab;

pub mod checks;

pub mod proxy;

pub mod answers;

#[cfg(feature = "demo")]
pub mod demo;

pub mod run;

pub mod cli;

#[cfg(test)]
mod testkit;
