//! What does reading a metrics page cost?
//!
//! Expected: a page of 560 KB, as a busy model server with many label sets exports it, in a few milliseconds
//! as families and in less as samples: at one attempt a second, well below one per cent of a core.

use std::fmt::Write;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use probegate::scrape::text::{Exposition, Format, samples};

/// Histograms of many handlers, about so many bytes of them.
fn page(bytes: usize) -> String {
    let mut page = String::new();
    let mut family = 0;
    while page.len() < bytes {
        family += 1;
        let name = format!("server_request_duration_seconds_{family}");
        let _ = writeln!(page, "# HELP {name} Time from the first byte to the last.\n# TYPE {name} histogram");
        for handler in 0..10 {
            let labels = format!("model_name=\"recommender\",engine=\"0\",handler=\"/v2/models/{handler}/infer\"");
            for le in ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "+Inf"] {
                let _ = writeln!(page, "{name}_bucket{{{labels},le=\"{le}\"}} {}.0", family * handler);
            }
            let _ = writeln!(page, "{name}_sum{{{labels}}} 1.7560473e+07\n{name}_count{{{labels}}} 2693");
        }
    }
    page
}

fn parse(c: &mut Criterion) {
    let page = page(560_000);
    let lines = page.lines().count();
    let mut group = c.benchmark_group(format!("page of {} bytes, {lines} lines", page.len()));
    group.throughput(Throughput::Bytes(page.len() as u64));
    group.bench_function("families", |b| {
        b.iter(|| black_box(Exposition::parse(black_box(page.as_bytes()), Format::Text)).families.len());
    });
    group.bench_function("one number", |b| {
        let wanted = |name: &str| name == "server_request_duration_seconds_7_count";
        b.iter(|| samples(black_box(page.as_bytes())).filter(|s| wanted(&s.name)).map(|s| s.value).sum::<f64>());
    });
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
