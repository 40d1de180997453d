//! House rules that the compiler does not know: the direction of layers, who reads time, no dead file, no
//! leftover marker, lines and files of a size that can be read.
//!
//! Reads the sources as text. It understands `use` paths well enough to keep honest people honest; a way
//! around it can be found, and would be seen in review.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const LINE_CHARS_MAX: usize = 120;
const FILE_LINES_MAX: usize = 600;
/// What everything may use: no I/O of their own, no opinion.
const BASE: &[&str] = &["clock", "control", "limits", "publish", "secret", "telemetry"];
/// What the model server of the demo and the test kit stand on. Neither is part of the sidecar.
const TEST_ONLY: &str = "testkit";

/// The modules that a top-level module may use, beside itself.
fn allowed(module: &str) -> Vec<&'static str> {
    let above = |more: &[&'static str]| [BASE, &["engine", "config"], more].concat();
    match module {
        "limits" => vec![],
        "engine" => vec!["limits"],
        base if BASE.contains(&base) => [BASE, &["engine"]].concat(),
        "config" => [BASE, &["engine"]].concat(),
        "net" | "scrape" => above(&["net", "scrape"]),
        "checks" | "answers" => above(&["net", "scrape"]),
        "proxy" => above(&["net"]),
        "demo" => [BASE, &["engine", "net"]].concat(),
        "lab" => above(&[]),
        "run" => above(&["net", "scrape", "checks", "proxy", "answers"]),
        "cli" => above(&["net", "scrape", "checks", "proxy", "answers", "run", "demo", "lab"]),
        "main" => vec!["cli"],
        // The table of contents names them all.
        "lib" => MODULES.to_vec(),
        "testkit" => above(&["net", "scrape"]),
        other => panic!("src/{other} has no layer: give it one in tests/tidy.rs and in the architecture"),
    }
}

/// Every top-level module. A new one needs a line in [`allowed`].
const MODULES: &[&str] = &[
    "answers",
    "checks",
    "cli",
    "clock",
    "config",
    "control",
    "demo",
    "engine",
    "lab",
    "limits",
    "net",
    "proxy",
    "publish",
    "run",
    "scrape",
    "secret",
    "telemetry",
    "testkit",
];

#[test]
fn layers_point_one_way() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        let path = module_path(&file);
        let layer = path.first().map_or("lib", String::as_str);
        let allowed = allowed(layer);
        for used in modules_used(&code(&read(&file)), path.len()) {
            if used != layer && used != TEST_ONLY && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: `{layer}` may not use `{used}`", file.display()));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn the_test_kit_is_compiled_for_tests_only() {
    let lib = read(Path::new("src/lib.rs"));
    let lines: Vec<&str> = lib.lines().collect();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.ends_with("mod testkit;")) {
        assert!(index > 0 && lines[index - 1].contains("cfg(test)"), "src/lib.rs:{}: {line}", index + 1);
    }
}

#[test]
fn only_the_clock_reads_time() {
    let banned = [concat!("Instant::", "now"), concat!("SystemTime::", "now"), concat!("thread::", "sleep")];
    let mut wrong = Vec::new();
    for file in sources("src").into_iter().filter(|file| !file.ends_with("clock.rs") && !is_test(file)) {
        let text = read(&file);
        for (number, line) in without_tests(&text).lines().enumerate() {
            // The runtime's instants carry deadlines to its timers, and stand still when a test pauses time.
            let line =
                line.split("//").next().unwrap_or_default().replace(concat!("tokio::time::Instant::", "now"), "");
            for call in banned.iter().filter(|call| line.contains(**call)) {
                wrong.push(format!("{}:{}: {call}", file.display(), number + 1));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_file_is_reached_by_a_mod_line() {
    let mut reached = BTreeSet::new();
    for root in ["src/lib.rs", "src/main.rs"].map(PathBuf::from).into_iter().chain(test_roots()) {
        reach(&root, true, &mut reached);
    }
    let dead: Vec<String> = ["src", "tests", "examples", "benches"]
        .into_iter()
        .flat_map(sources)
        .filter(|file| !reached.contains(file))
        .map(|file| format!("{}: no `mod` line reaches it", file.display()))
        .collect();
    assert_none(&dead);
}

#[test]
fn every_module_says_what_it_owns() {
    let all = ["src", "tests", "examples", "benches"].into_iter().flat_map(sources);
    // The tests of one module belong to what it says.
    let silent: Vec<String> = all
        .filter(|file| !file.ends_with("tests.rs"))
        .filter(|file| !read(file).trim_start().starts_with("//!"))
        .map(|file| format!("{}: opens without a //! comment", file.display()))
        .collect();
    assert_none(&silent);
}

#[test]
fn nothing_is_left_over() {
    let markers = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("dbg", "!("),
        concat!("to", "do!("),
        concat!("unimplemen", "ted!("),
        concat!("To ", "come."),
    ];
    assert_none(&mentions(&markers, |file| has_extension(file, &["rs", "toml", "sh", "py"]) || is_script(file)));
}

#[test]
fn nothing_speaks_of_one_machine_or_of_a_registry() {
    let words = [
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("index.crates", ".io"),
        concat!("static.crates", ".io"),
        concat!("py", "pi.org"),
        concat!("python", "hosted"),
        concat!("npm", "js.org"),
    ];
    // The lock file names where packages come from by its nature.
    assert_none(&mentions(&words, |file| file.file_name().is_none_or(|name| name != "Cargo.lock")));
}

#[test]
fn lines_and_files_can_be_read() {
    let mut wrong = Vec::new();
    for file in ["src", "tests", "examples", "benches"].into_iter().flat_map(sources) {
        let text = read(&file);
        // A line of a test may be one long literal: a request on the wire. Benches are full of peers' configurations.
        let literal = |line: &str| file.starts_with("benches") || line.contains('"') && is_test(&file);
        let long = text.lines().enumerate().filter(|(_, line)| line.chars().count() > LINE_CHARS_MAX && !literal(line));
        wrong.extend(long.map(|(number, _)| format!("{}:{}: a long line", file.display(), number + 1)));
        let count = text.lines().count();
        if count > FILE_LINES_MAX {
            wrong.push(format!("{}: {count} lines, at most {FILE_LINES_MAX}", file.display()));
        }
    }
    assert_none(&wrong);
}

#[test]
fn the_rules_see_what_they_look_for() {
    let text =
        "use crate::{clock::Clock, net};\nlet x = crate::engine::Time::ZERO; // crate::run\nuse super::super::cli;";
    let used = modules_used(&code(text), 2);
    assert_eq!(used.into_iter().collect::<Vec<_>>(), ["cli", "clock", "engine", "net"]);
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {\nb"), "a\n");
    assert_eq!(module_path(Path::new("src/a/b/mod.rs")), ["a", "b"]);
    assert_eq!(module_path(Path::new("src/a/b.rs")), ["a", "b"]);
    assert!(module_path(Path::new("src/lib.rs")).is_empty());
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Top-level modules named by `crate::` paths, and by `super::` paths that climb to the root from `depth`.
fn modules_used(code: &str, depth: usize) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` and the tail of another word (`pub(crate)` has no `::`) are not ours to resolve.
        used.extend(first_segments(&code[at + "crate::".len()..]));
    }
    // A path that starts with as many `super::` as the file is deep names a sibling of the top-level module.
    let climb = "super::".repeat(depth.max(1));
    for (at, _) in code.match_indices(&climb) {
        used.extend(first_segments(&code[at + climb.len()..]));
    }
    used.retain(|name| MODULES.contains(&name.as_str()));
    used
}

/// `a::b` gives `a`; `{a::{b, c}, d}` gives `a` and `d`.
fn first_segments(path: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let (mut depth, mut start, mut out) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                out.push(word(group[start..at].trim_start()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    out
}

/// The text without comments, so that a doc link is not a dependency.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| match line.find("//") {
        // A `//` within a string (a URL) cuts too much, and only ever hides the rest of that line.
        Some(at) => &line[..at],
        None => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What lies before the test module: by habit the last thing in a file.
fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod ").map_or(text, |at| &text[..at])
}

fn is_test(file: &Path) -> bool {
    let mut parts = file.iter().map(|part| part.to_string_lossy());
    parts.any(|part| part == TEST_ONLY || part == "tests" || part.ends_with("tests.rs") || part == "testkit.rs")
}

fn module_path(file: &Path) -> Vec<String> {
    let inside = file.strip_prefix("src").unwrap_or(file).with_extension("");
    let mut path: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if path.last().is_some_and(|last| last == "mod") || path == ["lib"] {
        path.pop();
    }
    path
}

/// Cargo finds these by itself.
fn test_roots() -> Vec<PathBuf> {
    let mut roots = Vec::new();
    for folder in ["tests", "examples", "benches"] {
        let direct = sources(folder).into_iter().filter(|file| {
            file.parent() == Some(Path::new(folder)) || (file.ends_with("main.rs") && file.components().count() == 3)
        });
        roots.extend(direct);
    }
    roots
}

/// Follows `mod name;` lines from a file. A root's children lie beside it, another file's in a folder of its name.
fn reach(file: &Path, is_root: bool, reached: &mut BTreeSet<PathBuf>) {
    if !file.exists() || !reached.insert(file.to_owned()) {
        return;
    }
    let beside = is_root || file.ends_with("mod.rs");
    let folder = if beside { file.parent().unwrap_or(file).to_owned() } else { file.with_extension("") };
    for line in read(file).lines() {
        let line = line.trim();
        let name = line.strip_suffix(';').and_then(|line| line.split_once("mod ")).map(|(_, name)| name);
        let Some(name) = name.filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_')) else { continue };
        reach(&folder.join(format!("{name}.rs")), false, reached);
        reach(&folder.join(name).join("mod.rs"), false, reached);
    }
}

/// Where any of the words stands, over every text file of the repository that is chosen.
fn mentions(words: &[&str], chosen: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in files(Path::new(".")).into_iter().filter(|file| chosen(file)) {
        // What is not text has no words.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}:{}: {word}", file.display(), number + 1));
            }
        }
    }
    found
}

fn has_extension(file: &Path, extensions: &[&str]) -> bool {
    file.extension().is_some_and(|found| extensions.iter().any(|extension| found == *extension))
}

fn is_script(file: &Path) -> bool {
    file.iter().any(|part| part == "scripts" || part == ".ci")
}

fn sources(folder: &str) -> Vec<PathBuf> {
    files(Path::new(folder)).into_iter().filter(|file| has_extension(file, &["rs"])).collect()
}

/// Every file below a folder, build output and version control left out, in a fixed order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let skipped = |path: &Path| path.file_name().is_some_and(|name| name == "target" || name == ".git");
    let kept = paths.into_iter().filter(|path| !skipped(path));
    kept.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
