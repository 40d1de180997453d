//! The presets: each is whole, none condemns on silence alone, and their page in the docs tells the truth.

use super::*;
use crate::config::presets::toml;
use crate::engine::Abandoned;

#[test]
fn every_preset_is_whole_for_no_one_and_many_models_and_addresses() {
    for preset in &PRESETS {
        assert!(!preset.description().is_empty(), "{}", preset.name);
        for models in ["[]", "[\"a\"]", "[\"a\", \"b/c\", \"B/C\"]"] {
            for addresses in ["[\"127.0.0.1:1\"]", "[\"127.0.0.1:1\", \"127.0.0.1:2\"]"] {
                let text =
                    format!("[upstream]\naddresses = {addresses}\npreset = \"{}\"\nmodels = {models}", preset.name);
                match parse(&text) {
                    Ok(config) => assert!(!config.engine.ready.require.is_empty()),
                    Err(problems) => {
                        let needs_models = ["kserve-v1", "tensorflow-serving", "torchserve"].contains(&preset.name);
                        assert!(needs_models && models == "[]", "{problems}");
                        assert!(problems.to_string().contains("upstream.models"), "{problems}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_preset_goes_by_its_aliases_and_no_two_share_a_name() {
    let mut names: Vec<&str> = PRESETS.iter().flat_map(|preset| [&[preset.name], preset.aliases].concat()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    let by_name: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
    assert!(by_name.is_sorted(), "{by_name:?}");
    assert_eq!(Preset::find("tf-serving").map(|preset| preset.name), Some("tensorflow-serving"));
    let config = parse("[upstream]\naddress = \"a:1\"\npreset = \"llama.cpp\"").expect("whole");
    assert_eq!(life(&config, "engine").target, "http://a:1/health");
}

/// What a client leaves excuses silence unless its server has been seen to abort it; and where it is said to drop it, a
/// counter is the second witness.
#[test]
fn only_vllm_is_said_to_drop_what_clients_leave() {
    let drops = |preset: &&Preset| {
        let text = format!("[upstream]\naddress = \"a:1\"\npreset = \"{}\"\nmodels = [\"m\"]", preset.name);
        let config = parse(&text).expect("whole");
        let progress = life(&config, "progress").progress().expect("a rule");
        config.engine.abandoned == Abandoned::Dropped && progress.counter.is_some()
    };
    assert_eq!(PRESETS.iter().filter(drops).map(|preset| preset.name).collect::<Vec<_>>(), ["vllm"]);
}

#[test]
fn silence_alone_condemns_under_no_preset() {
    for preset in &PRESETS {
        let text = format!("[upstream]\naddress = \"a:1\"\npreset = \"{}\"\nmodels = [\"m\"]", preset.name);
        let config = parse(&text).expect("whole");
        let progress = life(&config, "progress").progress().expect("a rule");
        let required = names(&config, &config.engine.health.require).iter().any(|name| name == "progress");
        let witnessed = progress.counter.is_some() || progress.cpu.is_some();
        assert!(witnessed || !required, "{}", preset.name);
        let moves = config.engine.groups.iter().find(|group| group.name == "moves");
        assert!(moves.is_none_or(|moves| moves.min == 1 && moves.of.len() == 2), "{}", preset.name);
    }
}

#[test]
fn a_models_name_is_a_segment_of_a_path_and_itself_in_a_body() {
    let text = "[upstream]\naddress = \"a:1\"\npreset = \"vllm\"\nmodels = [\"org/llama\"]";
    let config = parse(text).expect("whole");
    let spec = config.checks.iter().find(|check| check.name == "model").expect("there");
    let Kind::Http(http) = &spec.kind else { panic!("{spec:?}") };
    assert_eq!(http.json[0].test, JsonTest::Any("org/llama".into()));
    let triton = parse(&text.replace("vllm", "triton")).expect("whole");
    assert_eq!(life(&triton, "model").target, "http://a:1/v2/models/org%2Fllama/ready");
}

#[test]
fn several_models_become_a_check_each_and_a_group() {
    let config = parse("[upstream]\naddress = \"a:1\"\npreset = \"oip-v2\"\nmodels = [\"x\", \"y z\"]").expect("whole");
    assert_eq!(life(&config, "model-x").target, "http://a:1/v2/models/x/ready");
    assert_eq!(life(&config, "model-y-z").target, "http://a:1/v2/models/y%20z/ready");
    assert_eq!(names(&config, &config.engine.ready.require), ["model"]);
    assert_eq!((config.engine.groups[0].name.as_str(), config.engine.groups[0].min), ("model", 2));
}

#[test]
fn a_file_replaces_a_presets_kind_and_keeps_its_other_keys() {
    let text = "[upstream]\naddress = \"a:1\"\npreset = \"fastapi\"\n[checks.app]\ntcp = \"a:1\"";
    let config = parse(text).expect("whole");
    assert_eq!((life(&config, "app").kind, life(&config, "app").timeout), ("tcp", Duration::from_secs(3)));
}

#[test]
fn the_preset_of_tensorflow_serving_offers_its_process_and_requires_it_nowhere() {
    let text = "[upstream]\naddress = \"a:1\"\npreset = \"tensorflow-serving\"\nmodels = [\"m\"]\n";
    let config = parse(text).expect("whole");
    assert_eq!(life(&config, "process").target, "tensorflow_model_server");
    assert_eq!(names(&config, &config.engine.health.require), ["alive", "progress"]);
    assert!(parse(&format!("{text}[health]\nrequire = [\"process\"]")).is_ok());
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_preset_is_unready_by_the_hang_that_it_condemns() {
    let mut condemn = 0;
    for preset in &PRESETS {
        let text = format!("[upstream]\naddress = \"a:1\"\npreset = \"{}\"\nmodels = [\"m\"]", preset.name);
        let config = parse(&text).expect("whole");
        let ready = names(&config, &config.engine.ready.require);
        for hang in names(&config, &config.engine.health.require).iter().filter(|name| *name != "alive") {
            assert!(ready.contains(hang), "{}: {hang} is not among {ready:?}", preset.name);
            condemn += 1;
        }
    }
    assert_eq!(condemn, PRESETS.len() - 3, "all but those that condemn no hang");
}

#[test]
fn every_preset_has_an_example_that_is_whole() {
    for preset in &PRESETS {
        let file = folder().join(format!("config/servers/{}.toml", preset.name));
        let config = load(&file, &Overrides::default()).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(config.upstream.preset.as_deref().unwrap_or("generic"), preset.name);
    }
}

#[test]
fn what_a_comment_of_a_preset_offers_is_whole_too() {
    let mut offers = 0;
    for preset in &PRESETS {
        // Three spaces behind the hash begin an offer, and it goes on for as long as they do.
        for offer in preset.text.split("\n#   [").skip(1) {
            let lines: Vec<&str> = offer
                .lines()
                .enumerate()
                .map_while(|(index, line)| if index == 0 { Some(line) } else { line.strip_prefix("#   ") })
                .collect();
            let text = format!(
                "[upstream]\naddress = \"a:1\"\npreset = \"{}\"\nmodels = [\"m\"]\n[{}\n",
                preset.name,
                lines.join("\n")
            );
            if let Err(problems) = parse(&text) {
                panic!("{text}\n{problems}");
            }
            offers += 1;
        }
    }
    assert!(offers >= 8, "{offers}");
}

#[test]
fn the_docs_list_every_preset_as_it_is() {
    let page = std::fs::read_to_string(folder().join("docs/presets.md")).expect("the page");
    let mut table = String::from(
        "| preset | also called | ready needs | health needs | hung after | counter of work done | start |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for preset in &PRESETS {
        let text = format!("[upstream]\naddress = \"a:1\"\npreset = \"{}\"\nmodels = [\"m\"]", preset.name);
        let config = parse(&text).expect("whole");
        let progress = life(&config, "progress").progress().expect("a rule");
        let list = |items: &[String]| items.iter().map(|item| format!("`{item}`")).collect::<Vec<_>>().join(", ");
        let aliases: Vec<String> = preset.aliases.iter().map(|alias| (*alias).to_owned()).collect();
        let counter = progress
            .counter
            .as_ref()
            .map_or_else(|| "none".to_owned(), |counter| format!("`{}`", counter.name.replace('|', "\\|")));
        table += &format!(
            "| `{}` | {} | {} | {} | {} | {counter} | {} |\n",
            preset.name,
            list(&aliases),
            list(&names(&config, &config.engine.ready.require)),
            list(&names(&config, &config.engine.health.require)),
            humantime::format_duration(progress.stall_after),
            humantime::format_duration(config.engine.startup.budget),
        );
    }
    assert!(page.contains(&table), "docs/presets.md should hold:\n\n{table}");
    for preset in &PRESETS {
        let description = toml(preset.text).expect("TOML")["description"].as_str().expect("a text").to_owned();
        assert!(page.contains(&format!("**`{}`**: {description}.", preset.name)), "{}: {description}", preset.name);
    }
}
