//! `process`, `memory` and `metric`: what is measured, and within which bounds.

use std::path::PathBuf;

use super::super::super::fault::{Fault, show_text};
use super::super::super::plan::*;
use super::super::super::raw::*;
use super::super::super::units;
use super::super::{server, text};
use super::{Ground, Parts};
use crate::engine::Subject;

impl Ground<'_> {
    fn select(
        &mut self,
        matching: Option<&String>,
        pid_file: Option<&String>,
        cgroup: Option<&String>,
    ) -> Option<(ProcessSelect, String)> {
        match (matching, pid_file, cgroup) {
            (Some(name), None, None) if !name.trim().is_empty() => {
                Some((ProcessSelect::Match(name.clone()), name.clone()))
            }
            (None, Some(file), None) if !file.is_empty() => {
                Some((ProcessSelect::PidFile(PathBuf::from(file)), file.clone()))
            }
            (None, None, Some(directory)) if !directory.is_empty() => {
                Some((ProcessSelect::Cgroup(PathBuf::from(directory)), directory.clone()))
            }
            _ => {
                if !self.faults.below(&self.here) {
                    let fault = Fault::key(self.here.clone(), "which process?");
                    self.fault(fault.expected("exactly one of `match`, `pid_file` and `cgroup`"));
                }
                None
            }
        }
    }

    pub(super) fn process(&mut self, raw: &TextOr<RawProcess>) -> Option<Parts> {
        let default = RawProcess::default();
        let (table, matching) = match raw {
            TextOr::Text(name) => (&default, Some(name)),
            TextOr::Other(table) => (table, table.matching.as_ref()),
        };
        let (select, target) = self.select(matching, table.pid_file.as_ref(), table.cgroup.as_ref())?;
        let min_count = self.count(table.min_count, "min_count", 1) as usize;
        let max_threads = table.max_threads.map(|threads| self.count(Some(threads), "max_threads", 1));
        let max_rss = table.max_rss.as_ref().map(|size| size.0);
        let check = ProcessCheck { select, min_count, max_rss, max_threads, cpu_moves: table.cpu_moves };
        Some((Kind::Process(check), target, Subject::Server))
    }

    pub(super) fn memory(&mut self, raw: &TextOr<RawMemory>) -> Option<Parts> {
        let mut default = RawMemory::default();
        let table = match raw {
            TextOr::Text(text) => {
                match units::amount(text) {
                    Some(amount) => default.max = Some(Limit(amount)),
                    None => {
                        let fault = Fault::value(self.here.clone(), format!("found {}", show_text(text)));
                        self.fault(fault.expected(units::AMOUNT));
                        return None;
                    }
                }
                &default
            }
            TextOr::Other(table) => table,
        };
        let of = table.of.unwrap_or_default();
        self.refuse_foreign_keys(table, of);
        let (of, target, subject) = match of {
            RawMemoryOf::Cgroup => {
                let path = server::file(table.path.as_deref(), self.at("path"), self.faults);
                let target = path.as_ref().map_or_else(|| "cgroup".to_owned(), |path| path.display().to_string());
                (MemoryOf::Cgroup { path }, target, Subject::Local)
            }
            RawMemoryOf::Process => {
                let (select, target) =
                    self.select(table.matching.as_ref(), table.pid_file.as_ref(), table.cgroup.as_ref())?;
                let count = match table.count {
                    Some(RawProcessMemory::Pss) => ProcessMemory::Pss,
                    Some(RawProcessMemory::Rss) | None => ProcessMemory::Rss,
                };
                (MemoryOf::Process { select, count }, target, Subject::Local)
            }
            RawMemoryOf::Redis => {
                let Some(redis) = &table.redis else {
                    self.needed(None, "redis", r#"a URL such as "redis://cache:6379""#)?;
                    return None;
                };
                self.here.push("redis".to_owned());
                let lowered = self.redis(redis);
                self.here.pop();
                let (check, target, subject) = lowered?;
                (MemoryOf::Redis(Box::new(check)), target, subject)
            }
            RawMemoryOf::Metric => {
                let name = self.needed(table.metric.as_deref(), "metric", r#"a gauge such as "cache_bytes""#)?;
                let selector = self.selector(name, "metric")?;
                let (page, subject) = self.page(table.page.as_deref())?;
                (MemoryOf::Metric { page, selector }, name.to_owned(), subject)
            }
        };
        let Some(max) = &table.max else {
            self.needed(None, "max", units::AMOUNT)?;
            return None;
        };
        Some((Kind::Memory(MemoryCheck { of, max: max.0 }), target, subject))
    }

    /// Keys that mean nothing to this reading are a misunderstanding.
    fn refuse_foreign_keys(&mut self, table: &RawMemory, of: RawMemoryOf) {
        let typed = [
            ("path", table.path.is_some(), RawMemoryOf::Cgroup),
            ("match", table.matching.is_some(), RawMemoryOf::Process),
            ("pid_file", table.pid_file.is_some(), RawMemoryOf::Process),
            ("cgroup", table.cgroup.is_some(), RawMemoryOf::Process),
            ("count", table.count.is_some(), RawMemoryOf::Process),
            ("redis", table.redis.is_some(), RawMemoryOf::Redis),
            ("metric", table.metric.is_some(), RawMemoryOf::Metric),
            ("page", table.page.is_some(), RawMemoryOf::Metric),
        ];
        for (key, typed, owner) in typed {
            if typed && owner != of {
                let word = |of: RawMemoryOf| format!("{of:?}").to_ascii_lowercase();
                let message = format!("means nothing with of = {:?}", word(of));
                self.fault(Fault::key(self.at(key), message).expected(format!("of = {:?}", word(owner))));
            }
        }
    }

    pub(super) fn metric(&mut self, raw: &TextOr<RawMetric>) -> Option<Parts> {
        let default = RawMetric::default();
        let (name, key, table) = match raw {
            TextOr::Text(name) => (Some(name.as_str()), "metric", &default),
            TextOr::Other(table) => (table.name.as_deref(), "name", table),
        };
        let name = self.needed(name, key, r#"a metric such as "queue_size{model=\"m\"}""#)?;
        let selector = self.selector(name, key)?;
        let (page, subject) = self.page(table.page.as_deref())?;
        let bounded = table.min.is_some() || table.max.is_some() || table.equals.is_some();
        if let (Some(min), Some(max)) = (table.min, table.max)
            && min > max
        {
            self.fault(Fault::value(self.at("min"), format!("min {min} is above max {max}")));
        }
        if table.rate && !bounded {
            self.fault(Fault::key(self.at("rate"), "a rate without a bound").expected("`min`, `max` or `equals`"));
        }
        let absent = match table.absent {
            Some(RawAbsent::Fail) => Absent::Fail,
            Some(RawAbsent::Pass) => Absent::Pass,
            Some(RawAbsent::Required) => Absent::Required,
            Some(RawAbsent::Unknown) => Absent::Unknown,
            None if bounded => Absent::Unknown,
            None => Absent::Fail,
        };
        let check = MetricCheck {
            page,
            selector,
            combine: combine(table.combine),
            rate: table.rate,
            min: table.min,
            max: table.max,
            equals: table.equals,
            absent,
        };
        Some((Kind::Metric(check), name.to_owned(), subject))
    }

    pub(super) fn selector(&mut self, text: &str, key: &str) -> Option<MetricSelector> {
        match MetricSelector::parse(text) {
            Ok(selector) => Some(selector),
            Err(why) => {
                let place = if self.here.last().is_some_and(|last| last == key)
                    && key == "metric"
                    && !self.faults.below(&self.at(key))
                {
                    self.here.clone()
                } else {
                    self.at(key)
                };
                let fault = Fault::value(place, format!("found {}: {why}", show_text(text)));
                self.fault(fault.expected(r#"a metric such as requests_total{endpoint="/predict"}"#));
                None
            }
        }
    }

    /// The page a metric is on. The upstream's own is the model server's word.
    pub(super) fn page(&mut self, typed: Option<&str>) -> Option<(MetricsPage, Subject)> {
        match typed {
            Some(text) => {
                let first = self.scene.addresses.first().map(String::as_str);
                let page = server::page(text, first, &self.at("page"), self.faults)?;
                let host = page.uri.host().unwrap_or_default().to_owned();
                let subject = match text::subject(Some(&(host, page.uri.port_u16().unwrap_or(80))), self.scene) {
                    Subject::Backend(_) => Subject::Server,
                    other => other,
                };
                Some((page, subject))
            }
            None => match &self.scene.metrics {
                Some(page) => Some((page.clone(), Subject::Server)),
                None => {
                    if !self.scene.addresses.is_empty() {
                        let fault = Fault::key(self.here.clone(), "no metrics page: `upstream.metrics` is false");
                        self.fault(fault.expected("a `page` of its own"));
                    }
                    None
                }
            },
        }
    }
}

pub(super) const fn combine(raw: Option<RawCombine>) -> Combine {
    match raw {
        Some(RawCombine::Max) => Combine::Max,
        Some(RawCombine::Min) => Combine::Min,
        Some(RawCombine::Sum) | None => Combine::Sum,
    }
}
