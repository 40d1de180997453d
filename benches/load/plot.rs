//! Two plots as SVG text: grouped bars, and quantiles on a logarithmic line. Deterministic, no scripts, coloured by
//! the page's classes so that they follow its light or dark scheme.

use std::fmt::Write as _;

const WIDTH: f64 = 920.0;
const LEFT: f64 = 56.0;
const BAR_HEIGHT: f64 = 220.0;
const ROW_HEIGHT: f64 = 24.0;
/// Room for a row's words.
const WORDS: f64 = 330.0;
/// Of a horizontal line across a bar plot there are about so many.
const GRID_LINES: f64 = 5.0;

/// Bars that stand together: a label, and for each its class (a contender's name) and value.
pub(crate) struct Group {
    pub(crate) label: String,
    pub(crate) bars: Vec<(String, f64)>,
}

/// Grouped bars with their values on top. Nothing for no bars.
pub(crate) fn bars(unit: &str, groups: &[Group]) -> String {
    let highest = groups.iter().flat_map(|group| &group.bars).map(|(_, value)| *value).fold(0.0, f64::max);
    let count: usize = groups.iter().map(|group| group.bars.len()).sum();
    if highest <= 0.0 {
        return String::new();
    }
    let step = nice_step(highest / GRID_LINES);
    let top = (highest / step).ceil() * step;
    let (base, room) = (BAR_HEIGHT + 16.0, WIDTH - LEFT);
    let mut svg = open(BAR_HEIGHT + 44.0);
    let y = |value: f64| base - value / top * BAR_HEIGHT;
    let mut tick = 0.0;
    while tick <= top + step / 2.0 {
        put(&mut svg, &format!(r#"<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{0:.1}" y2="{0:.1}"/>"#, y(tick)));
        put(&mut svg, &label(LEFT - 6.0, y(tick) + 4.0, "end", &number(tick)));
        tick += step;
    }
    put(&mut svg, &label(0.0, 10.0, "start", unit));
    // A gap of one bar's width between groups.
    let width = (room / (count + groups.len()) as f64).min(48.0);
    let mut x = LEFT + width / 2.0;
    for group in groups {
        let middle = x + width * group.bars.len() as f64 / 2.0;
        put(&mut svg, &label(middle, base + 18.0, "middle", &group.label));
        for (class, value) in &group.bars {
            put(
                &mut svg,
                &format!(
                    r#"<rect class="{}" x="{x:.1}" y="{:.1}" width="{:.1}" height="{:.1}"><title>{} {}</title></rect>"#,
                    escape(class),
                    y(*value),
                    width - 3.0,
                    base - y(*value),
                    escape(class),
                    number(*value)
                ),
            );
            put(&mut svg, &label(x + width / 2.0 - 1.5, y(*value) - 4.0, "middle", &number(*value)));
            x += width;
        }
        x += width;
    }
    svg.push_str("</svg>");
    svg
}

/// One line of a quantile plot.
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) class: String,
    /// p50, p90, p99, p99.9, in milliseconds, rising.
    pub(crate) points: [f64; 4],
    /// Beside the line: what was missed.
    pub(crate) note: String,
}

/// Quantiles from p50 (full dot) to p99.9 (last dot) on a logarithmic axis of milliseconds.
pub(crate) fn quantiles(rows: &[Row]) -> String {
    let all = || rows.iter().flat_map(|row| row.points).filter(|point| *point > 0.0);
    let lowest = all().fold(f64::INFINITY, f64::min);
    let highest = all().fold(0.0, f64::max);
    if highest <= 0.0 {
        return String::new();
    }
    let (from, to) = (lowest.log10().floor(), highest.log10().ceil().max(lowest.log10().floor() + 1.0));
    let right = WIDTH - 90.0;
    let x = |value: f64| WORDS + (value.max(10f64.powf(from)).log10() - from) / (to - from) * (right - WORDS);
    let height = rows.len() as f64 * ROW_HEIGHT + 28.0;
    let mut svg = open(height);
    let mut decade = from;
    while decade <= to {
        let (at, value) = (x(10f64.powf(decade)), 10f64.powf(decade));
        put(&mut svg, &format!(r#"<line class="grid" x1="{at:.1}" x2="{at:.1}" y1="6" y2="{:.1}"/>"#, height - 22.0));
        put(&mut svg, &label(at, height - 6.0, "middle", &format!("{} ms", number(value))));
        decade += 1.0;
    }
    for (at, row) in rows.iter().enumerate() {
        let y = at as f64 * ROW_HEIGHT + 18.0;
        put(&mut svg, &label(WORDS - 10.0, y + 4.0, "end", &row.label));
        let class = escape(&row.class);
        let (first, last) = (x(row.points[0]), x(row.points[3]));
        put(&mut svg, &format!(r#"<line class="{class} range" x1="{first:.1}" x2="{last:.1}" y1="{y}" y2="{y}"/>"#));
        for (point, radius) in row.points.iter().zip([6.0, 4.0, 4.0, 4.0]) {
            put(
                &mut svg,
                &format!(
                    r#"<circle class="{class}" cx="{:.1}" cy="{y}" r="{radius}"><title>{} ms</title></circle>"#,
                    x(*point),
                    number(*point)
                ),
            );
        }
        put(&mut svg, &label(last + 10.0, y + 4.0, "start", &row.note));
    }
    svg.push_str("</svg>");
    svg
}

/// What HTML and SVG would read as markup.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn open(height: f64) -> String {
    format!(r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" xmlns="http://www.w3.org/2000/svg">"#)
}

fn put(svg: &mut String, element: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(svg, "{element}");
}

fn label(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#, escape(text))
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| least <= *step).unwrap_or(power * 10.0)
}

fn number(value: f64) -> String {
    let text = match value {
        small if small < 1.0 => format!("{small:.2}"),
        small if small < 100.0 => format!("{small:.1}"),
        large => format!("{large:.0}"),
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
