use std::path::PathBuf;

use super::super::proc::Proc;
use super::super::trial::Trial;
use super::*;
use crate::engine::Verdict;
use crate::secret::{SecretSource, Template};

fn sh(script: &str) -> ExecCheck {
    ExecCheck { command: vec!["/bin/sh".into(), "-c".into(), script.into()], env: Vec::new(), cwd: None }
}

async fn ask(spec: &ExecCheck) -> Outcome {
    Trial::new().attempt(async |scene| attempt(spec, scene).await).await
}

/// Waits until `true`, for ten seconds at most.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within ten seconds: {what}");
}

#[tokio::test]
async fn the_exit_code_and_the_last_line_are_the_evidence() {
    let pass = ask(&sh("echo fine; echo 3 models")).await;
    assert_eq!((pass.verdict, pass.reason.as_str()), (Verdict::Pass, "3 models"));
    let fail = ask(&sh("echo loading; echo 'model not loaded' >&2; exit 3")).await;
    assert_eq!((fail.verdict, fail.reason.as_str()), (Verdict::Fail(Fault::Answer), "exit code 3: model not loaded"));
    assert_eq!(ask(&sh("exit 1")).await.reason, "exit code 1");
    assert_eq!(ask(&sh("kill -SEGV $$")).await.reason, "killed by SIGSEGV");
}

#[tokio::test]
async fn there_is_no_shell_and_no_input() {
    let spec = ExecCheck { command: vec!["/bin/echo".into(), "$HOME;".into()], env: Vec::new(), cwd: None };
    assert_eq!(ask(&spec).await.reason, "$HOME;");
    assert_eq!(ask(&sh("cat; echo end of input")).await.reason, "end of input");
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let run = |command: &str, cwd: Option<&str>| {
        let spec = ExecCheck { command: vec![command.into()], env: Vec::new(), cwd: cwd.map(PathBuf::from) };
        async move { ask(&spec).await }
    };
    let missing = run("/no/such/program", None).await;
    assert_eq!(missing.verdict, Verdict::Fail(Fault::Local));
    assert_eq!(missing.reason, "cannot run /no/such/program: no such file");
    assert_eq!(run("/etc/passwd", None).await.reason, "cannot run /etc/passwd: permission denied");
    let reason = run("/bin/true", Some("/no/such/folder")).await.reason;
    assert_eq!(reason, "cannot run /bin/true: no such working directory /no/such/folder");

    let folder = tempfile::tempdir().expect("a temporary directory");
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").expect("a file");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    let shown = script.display().to_string();
    assert_eq!(run(&shown, None).await.reason, format!("cannot run {shown}: its interpreter is missing"));
}

#[tokio::test]
async fn more_output_than_is_kept_does_not_block_it() {
    let outcome = ask(&sh("yes out | head -c 3000000; yes err | head -c 3000000 >&2; echo done >&2; exit 4")).await;
    assert_eq!(outcome.reason, "exit code 4: done");
}

#[tokio::test]
async fn a_secret_that_the_program_prints_goes_no_further() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("token");
    std::fs::write(&file, "hunter2-and-more\n").expect("a file");
    let mut spec = sh("echo \"token is $TOKEN\"; exit 1");
    spec.env = vec![("TOKEN".into(), SecretSource::File(file))];
    assert_eq!(ask(&spec).await.reason, "exit code 1: token is [secret]");
    spec.env = vec![("TOKEN".into(), SecretSource::Template(Template::new("${PROBEGATE_TEST_IS_NOT_SET}")))];
    assert_eq!(ask(&spec).await.reason, "variable TOKEN: environment variable PROBEGATE_TEST_IS_NOT_SET is not set");
}

/// A script that starts a grandchild, writes the pids of all, and waits for ever.
fn family(pids: &Path, rest: &str) -> ExecCheck {
    sh(&format!(
        "sleep 4000 & sh -c 'echo $$ >> {0}; sleep 4001 & echo $! >> {0}; wait' & \
                 echo $$ >> {0}; echo $! >> {0}; {rest}",
        pids.display()
    ))
}

fn read_pids(path: &Path) -> Vec<u32> {
    std::fs::read_to_string(path).unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect()
}

fn is_dead(pid: u32) -> bool {
    Proc::here().stat(pid).is_none()
}

#[tokio::test]
async fn at_the_deadline_the_whole_group_dies_grandchildren_included_and_is_reaped() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let pids = folder.path().join("pids");
    let spec = family(&pids, "wait");
    let trial = Trial::new();
    let outcome = trial.within(Duration::from_secs(3), async |scene| attempt(&spec, scene).await).await;
    assert_eq!(outcome.reason, "timeout after 3s, waiting for /bin/sh to exit");
    let family = read_pids(&pids);
    assert_eq!(family.len(), 4, "{family:?}");
    // Grandchildren are adopted by PID 1, which reaps them or not: dead is enough for them.
    let own_pid_is_1 = std::process::id() == 1;
    eventually("the family is dead", || {
        family.iter().all(|&pid| match Proc::here().stat(pid) {
            None => true,
            Some(stat) => !own_pid_is_1 && stat.state == 'Z' && stat.parent != std::process::id(),
        })
    })
    .await;
    let leader = family.iter().find(|pid| Proc::here().stat(**pid).is_some_and(|s| s.parent == std::process::id()));
    assert_eq!(leader, None, "a zombie of ours is left");
}

#[tokio::test]
async fn what_the_program_leaves_behind_dies_at_its_exit_and_does_not_delay_the_answer() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let pids = folder.path().join("pids");
    // It waits until the grandchild has written its two lines.
    let spec = family(&pids, &format!("while [ $(wc -l < {}) -lt 4 ]; do :; done; echo bye; exit 0", pids.display()));
    let outcome = ask(&spec).await;
    assert_eq!((outcome.verdict, outcome.reason.as_str()), (Verdict::Pass, "bye"));
    let family = read_pids(&pids);
    eventually("the family is dead", || {
        family.iter().all(|&pid| is_dead(pid) || Proc::here().stat(pid).is_some_and(|stat| stat.state == 'Z'))
    })
    .await;
}

#[tokio::test]
async fn many_at_once_all_answer_and_leave_nobody() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let all: Vec<_> = (0..24)
                .map(|_| tokio::task::spawn_local(async { ask(&sh("sleep 4002 & sleep 4002 & exit 5")).await }))
                .collect();
            for one in all {
                assert_eq!(one.await.expect("no panic").reason, "exit code 5");
            }
        })
        .await;
    let proc = Proc::here();
    eventually("no sleeper is left", || {
        proc.pids().expect("a /proc").iter().all(|&pid| proc.arguments(pid) != ["sleep", "4002"])
    })
    .await;
}
