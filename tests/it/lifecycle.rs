//! A model server's life, as the three gates tell it.

use super::model::Model;
use super::postgres_server::Postgres;
use super::sidecar::Sidecar;
use super::until::until;
use super::wire;

fn config(model: &Model) -> String {
    format!(
        r#"
[upstream]
address = "{0}"
[startup]
require = ["serves"]
budget = "60s"
[ready]
require = ["serves"]
[checks.serves]
http = "http://{0}/ready"
interval = "400ms"
timeout = "300ms"
failure_threshold = 2
"#,
        model.address()
    )
}

/// What `/startup`, `/ready` and `/health` say.
fn gates(sidecar: &Sidecar) -> [u16; 3] {
    ["/startup", "/ready", "/health"].map(|path| sidecar.probe(path).status)
}

#[test]
fn a_server_that_loads_serves_crashes_and_returns_tells_its_story_by_the_gates() {
    let mut model = Model::absent();
    let sidecar = Sidecar::start(&config(&model));
    assert_eq!(gates(&sidecar), [503, 503, 200], "nobody there yet");

    model.launch(&["--load-time", "1s", "--load-mode", "503"]);
    model.until_listening();
    until("the loading is seen", || {
        sidecar.check("serves")["reason"].as_str().filter(|reason| reason.contains("503")).map(|_| ())
    });
    assert_eq!(gates(&sidecar), [503, 503, 200], "loading");
    sidecar.until("/ready", 200);
    assert_eq!(gates(&sidecar), [200, 200, 200], "serving");
    let predicted = wire::get(sidecar.traffic(), "/health");
    assert_eq!((predicted.status, predicted.header("x-probegate-reason")), (200, None));

    wire::post(model.address(), "/crash", "");
    sidecar.until("/ready", 503);
    assert_eq!(
        sidecar.probe("/health").status,
        200,
        "a crashed server is the kubelet's to restart, not ours to condemn"
    );
    let refused = wire::get(sidecar.traffic(), "/health");
    assert_eq!(refused.status, 503);
    assert!(refused.header("x-probegate-reason").is_some() && refused.header("retry-after").is_some(), "{refused:?}");

    model.launch(&["--load-time", "1s", "--load-mode", "503"]);
    sidecar.until("/startup", 503);
    assert_eq!(gates(&sidecar)[1..], [503, 200], "a new instance starts anew");
    sidecar.until("/ready", 200);
    assert_eq!(gates(&sidecar), [200, 200, 200]);
    let instances = sidecar.report()["instance"]["number"].as_u64().unwrap();
    assert!(instances >= 2, "{instances}");
}

#[test]
fn a_server_past_its_startup_budget_fails_health_and_says_so() {
    let model = Model::absent();
    let sidecar = Sidecar::start(&config(&model).replace("60s", "1s"));
    assert_eq!(gates(&sidecar), [503, 503, 200]);
    sidecar.until("/health", 503);
    let why = sidecar.report()["gates"]["health"]["why"][0]["cause"].clone();
    assert_eq!(why, "startup_budget");
}

#[test]
fn a_hung_server_is_not_ready_and_a_database_never_restarts_it() {
    let model = Model::start();
    let mut postgres = Postgres::start();
    let database = format!(
        "[checks.users]\npostgres = {{ url = \"{}\" }}\nfailure_threshold = 2\n\
         interval = \"400ms\"\ntimeout = \"300ms\"\n",
        postgres.url().replace(":sesame@", "@")
    );
    let config = config(&model).replace(
        r#"require = ["serves"]
[checks"#,
        r#"require = ["serves", "users"]
[checks"#,
    ) + &database;
    let config = config.replace("postgres = { ", "postgres = { password = \"${PG_PASSWORD}\", ");
    let sidecar = Sidecar::start_with(&config, |command| command.env("PG_PASSWORD", "sesame"));
    sidecar.until("/ready", 200);
    postgres.kill();
    sidecar.until("/ready", 503);
    let verbose = sidecar.probe("/ready?verbose").body;
    assert!(verbose.contains("[-]users failed: connection refused by"), "{verbose}");
    assert_eq!(sidecar.probe("/health").status, 200);
}
