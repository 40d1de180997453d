//! What the engine is told to judge: checks as lives, not as protocols, and how they compose into gates.
//!
//! A plan is made by `config` (or by the lab, or by a test) and cannot be wrong: every reference is an
//! index that exists, no cycle, every timeout below its interval. [`Plan::validate`] says so in tests and
//! at the one place where a plan is accepted.

use std::time::Duration;

use super::SaturationPlan;
use super::traffic::Answers;

/// Index of a check in [`Plan::checks`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CheckId(pub u32);

/// Index of a group in [`Plan::groups`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GroupId(pub u32);

/// Index of an upstream address in [`Plan::backends`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BackendId(pub u32);

impl CheckId {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl GroupId {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl BackendId {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Whatever may be named where a check may be named.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Member {
    Check(CheckId),
    Group(GroupId),
}

/// Everything the engine judges.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub checks: Vec<CheckPlan>,
    pub groups: Vec<GroupPlan>,
    pub backends: Vec<BackendPlan>,
    /// How real requests judge single addresses; none where they do not. Means nothing with one address.
    pub passive: Option<PassivePlan>,
    /// What the model server does with work that its clients have given up on.
    pub abandoned: Abandoned,
    pub startup: StartupPlan,
    pub ready: ReadyPlan,
    pub health: HealthPlan,
    pub drain: DrainPlan,
}

/// One check's life: when it runs, what counts, what it means.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckPlan {
    /// `[a-z0-9_-]+`, unique in the plan.
    pub name: String,
    /// The kind's name (`redis`, `http`), for labels and messages only.
    pub kind: &'static str,
    /// What it looks at, for messages (`127.0.0.1:6379`). No secrets.
    pub target: String,
    /// From the start of one attempt to the start of the next, while the state is settled and not down.
    pub interval: Duration,
    /// Instead of `interval` while results speak against the state (rising or falling).
    pub fast_interval: Duration,
    /// Instead of `interval` while pending: the way to the first verdict.
    pub pending_interval: Duration,
    /// Instead of `interval` while down.
    pub down_interval: Duration,
    /// From the start of an attempt to its deadline. Below `interval`.
    pub timeout: Duration,
    /// From the engine's start (or a new model server) to the first attempt.
    pub initial_delay: Duration,
    /// Each wait is stretched by a random share between nothing and this, in thousandths (100 = 10 %).
    /// Stretched only: a verdict never comes faster than the intervals say.
    pub jitter_permille: u32,
    /// Consecutive passes to be up. At least 1.
    pub success_threshold: u32,
    /// What makes it down.
    pub failure_rule: FailureRule,
    /// Evidence older than this is stale.
    pub max_age: Duration,
    pub on_stale: OnStale,
    /// What an attempt that ran into its deadline counts as.
    pub on_timeout: OnTimeout,
    /// Parents: while one of them is down, this check is skipped.
    pub depends_on: Vec<Member>,
    /// What decides its state instead of its attempts' outcomes; none for an ordinary check.
    pub rule: Option<TrafficRule>,
    /// How much of what it asks must be answered right; none for a check that asks no labelled examples.
    pub accuracy: Option<AccuracyPlan>,
    /// Attempts wait while real requests ended well within this span, but for those that a silence asks for.
    pub only_when_idle: Option<Duration>,
    pub subject: Subject,
    pub scope: Scope,
    /// Why a shared dependency may take the pod out of rotation: the operator's own words.
    pub accept_cascade: Option<String>,
    /// How long this check may keep `/ready` failing before it only degrades it.
    pub max_withdrawal: Option<Duration>,
    /// A link for the person who is paged.
    pub runbook: Option<String>,
}

/// A check that is judged by the traffic that passes.
#[derive(Clone, Debug, PartialEq)]
pub enum TrafficRule {
    Outcomes(OutcomesPlan),
    Progress(ProgressPlan),
    Saturation(SaturationPlan),
}

/// When pending work without progress is a hang.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgressPlan {
    /// Silence of so long. Not zero.
    pub stall_after: Duration,
    /// The server's own progress counter, which must be frozen too.
    pub counter: Option<CounterPlan>,
    /// Processes (for messages) whose CPU time must stand still too.
    pub cpu: Option<String>,
    /// A golden check that must go unanswered too.
    pub golden: Option<CheckId>,
}

/// What the model server does with work that its client has given up on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Abandoned {
    /// It goes on with it, as most do: it may be silent for what nobody waits for.
    #[default]
    WorkedOff,
    /// It stops as the client leaves: nothing is left over, and nothing excuses silence.
    Dropped,
}

/// A counter that moves when work is done.
#[derive(Clone, Debug, PartialEq)]
pub struct CounterPlan {
    /// As typed, for messages.
    pub name: String,
    /// How much older than its fetch the page's numbers may be.
    pub lag: Duration,
}

/// How many labelled examples must be answered right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AccuracyPlan {
    /// At least such a share, 0 to 1.
    pub min: f64,
    /// Of those that were asked within this span, the latest attempt's always among them. Zero: of those alone.
    pub window: Duration,
}

/// When too few requests end well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OutcomesPlan {
    /// At least such a share, in thousandths.
    pub min_success_permille: u32,
    /// Of the requests that ended within this span. Not zero.
    pub window: Duration,
    /// With fewer of them nothing is said. At least 1.
    pub min_requests: u32,
    /// So many failures in a row say as much as the share, and sooner; 0: a row never does.
    pub consecutive_failures: u32,
}

impl ProgressPlan {
    /// Whether something besides the traffic and our own request can agree.
    pub(super) const fn has_witness(&self) -> bool {
        self.counter.is_some() || self.cpu.is_some()
    }
}

impl Plan {
    /// Whether a counter tells of work that is done.
    pub(super) fn counts_work(&self) -> bool {
        self.checks.iter().filter_map(CheckPlan::progress).any(|progress| progress.counter.is_some())
    }
}

impl AccuracyPlan {
    /// Whether these are right often enough. Exact for a share that was typed as a decimal.
    pub fn is_met(&self, answers: Answers) -> bool {
        self.min <= answers.share()
    }

    /// What is expected, for a person.
    pub fn expectation(&self) -> String {
        format!("at least {} % must be", (self.min * 1000.0).round() / 10.0)
    }
}

impl Default for AccuracyPlan {
    fn default() -> Self {
        Self { min: 1.0, window: Duration::ZERO }
    }
}

impl Default for ProgressPlan {
    fn default() -> Self {
        Self { stall_after: crate::limits::STALL_AFTER, counter: None, cpu: None, golden: None }
    }
}

impl Default for PassivePlan {
    fn default() -> Self {
        use crate::limits as l;
        Self {
            consecutive_failures: l::PASSIVE_CONSECUTIVE_FAILURES,
            min_success_permille: l::PASSIVE_MIN_SUCCESS_PERMILLE,
            window: l::PASSIVE_WINDOW,
            min_requests: l::PASSIVE_MIN_REQUESTS,
            base_ejection: l::PASSIVE_BASE_EJECTION,
            max_ejection: l::PASSIVE_MAX_EJECTION,
            max_ejected_permille: l::PASSIVE_MAX_EJECTED_PERMILLE,
            probation: l::PASSIVE_PROBATION,
        }
    }
}

impl Default for OutcomesPlan {
    fn default() -> Self {
        use crate::limits as l;
        Self {
            min_success_permille: l::OUTCOMES_MIN_SUCCESS_PERMILLE,
            window: l::OUTCOMES_WINDOW,
            min_requests: l::OUTCOMES_MIN_REQUESTS,
            consecutive_failures: l::OUTCOMES_CONSECUTIVE_FAILURES,
        }
    }
}

/// What makes a check down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FailureRule {
    /// So many failures in a row. At least 1.
    Consecutive(u32),
    /// `fail` of the last `of` results. `1 <= fail <= of <= 64`.
    Window { fail: u32, of: u32 },
}

/// What stale evidence means to a gate that requires the check.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnStale {
    /// Not up: `/ready` fails. `/health` still passes, for only fresh evidence fails it.
    #[default]
    Fail,
    /// As the last fresh state said, for `/ready`.
    Hold,
    /// `/ready` passes with a warning.
    Degrade,
}

/// What an attempt that ran into its deadline counts as.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnTimeout {
    #[default]
    Fail,
    /// No evidence either way: a busy server is slow, and slow is not dead.
    Unknown,
    /// The same while the model server moves: it answers real requests, or has work pending and has not been
    /// silent for long. Otherwise a failure.
    UnknownWhileMoving,
}

/// Whom a check is about; decides what a new model server and self-doubt do to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Subject {
    /// The model server itself, at this upstream address: forgotten when a new one appears.
    Backend(BackendId),
    /// The model server as a whole, wherever it listens (its process, its metrics).
    Server,
    /// Something on this machine or in this pod that is not the model server.
    Local,
    /// Something reached over the network: unknown while the sidecar doubts itself.
    Remote,
}

/// Who else shares the thing that is checked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Scope {
    #[default]
    Pod,
    /// Other pods depend on it too: all of them would leave at once.
    Shared,
}

/// A composition under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupPlan {
    pub name: String,
    /// How many members must be up for the group to be up: all of them (`all`), 1 (`any`), or between (`quorum`).
    pub min: u32,
    /// At least one; no cycle through groups.
    pub of: Vec<Member>,
}

/// One upstream address.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendPlan {
    /// As configured, for labels.
    pub address: String,
    /// The check that lets traffic in; that of a single upstream is usually `upstream`. See `BackendView::enabled`.
    pub check: CheckId,
}

/// When real requests put an upstream address out of rotation, and for how long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PassivePlan {
    /// So many failures in a row eject; 0: a row never does.
    pub consecutive_failures: u32,
    /// A smaller share of good ends ejects, in thousandths; 0: no share does.
    pub min_success_permille: u32,
    /// Of the requests that ended within this span. Not zero.
    pub window: Duration,
    /// With fewer of them the share says nothing. At least 1.
    pub min_requests: u32,
    /// The first ejection; the second in a row is twice as long, and so on. Not zero.
    pub base_ejection: Duration,
    /// No ejection is longer, and after so long without one they are counted anew.
    pub max_ejection: Duration,
    /// At most such a share of the addresses is out at once, in thousandths, and one at least.
    pub max_ejected_permille: u32,
    /// On probation without a request for so long, its check decides.
    pub probation: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StartupPlan {
    pub require: Vec<Member>,
    /// From the appearance of a model server to the moment when it is given up.
    pub budget: Duration,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadyPlan {
    pub require: Vec<Member>,
    pub degrade: Vec<Member>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthPlan {
    pub require: Vec<Member>,
    pub restart_budget: RestartBudget,
}

/// At most `count` condemnations in any `window`; more are held back and reported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RestartBudget {
    pub count: u32,
    pub window: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DrainPlan {
    /// From the start of a drain to the moment when new requests are refused: time for endpoints to propagate.
    pub propagation: Duration,
    /// From the start of a drain to its end, finished or not.
    pub max: Duration,
}

impl Default for StartupPlan {
    fn default() -> Self {
        Self { require: Vec::new(), budget: crate::limits::STARTUP_BUDGET }
    }
}

impl Default for RestartBudget {
    fn default() -> Self {
        Self { count: crate::limits::RESTART_BUDGET_COUNT, window: crate::limits::RESTART_BUDGET_WINDOW }
    }
}

impl Default for DrainPlan {
    fn default() -> Self {
        Self { propagation: crate::limits::DRAIN_PROPAGATION, max: crate::limits::DRAIN_MAX }
    }
}

impl CheckPlan {
    /// A check with the product's defaults; the caller changes what differs.
    pub fn new(name: impl Into<String>, kind: &'static str) -> Self {
        use crate::limits as l;
        Self {
            name: name.into(),
            kind,
            target: String::new(),
            interval: l::CHECK_INTERVAL,
            fast_interval: l::CHECK_INTERVAL,
            pending_interval: l::CHECK_PENDING_INTERVAL_MAX,
            down_interval: l::CHECK_INTERVAL,
            timeout: l::CHECK_TIMEOUT,
            initial_delay: Duration::ZERO,
            jitter_permille: l::CHECK_JITTER_PERMILLE,
            success_threshold: l::CHECK_SUCCESS_THRESHOLD,
            failure_rule: FailureRule::Consecutive(l::CHECK_FAILURE_THRESHOLD),
            max_age: l::CHECK_INTERVAL * 2 + l::CHECK_TIMEOUT,
            on_stale: OnStale::Fail,
            on_timeout: OnTimeout::Fail,
            depends_on: Vec::new(),
            rule: None,
            accuracy: None,
            only_when_idle: None,
            subject: Subject::Local,
            scope: Scope::Pod,
            accept_cascade: None,
            max_withdrawal: None,
            runbook: None,
        }
    }
}

impl Plan {
    /// Tells plans apart, for equal versions of this program: a recording names the plan it was made with by it.
    pub fn fingerprint(&self) -> u64 {
        // FNV-1a: equal on every machine, which the standard library's hashers do not promise.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        format!("{self:?}").bytes().fold(0xcbf2_9ce4_8422_2325, mix)
    }

    /// Says what is wrong with a plan, if anything is: the engine relies on all of it.
    pub fn validate(&self) -> Result<(), String> {
        let check_exists = |id: CheckId| id.index() < self.checks.len();
        let exists = |member: &Member| match member {
            Member::Check(check) => check_exists(*check),
            Member::Group(group) => group.index() < self.groups.len(),
        };
        let gates = [&self.startup.require, &self.ready.require, &self.ready.degrade, &self.health.require];
        let named = gates
            .into_iter()
            .chain(self.checks.iter().map(|check| &check.depends_on))
            .chain(self.groups.iter().map(|group| &group.of));
        if named.flatten().any(|member| !exists(member)) || self.backends.iter().any(|b| !check_exists(b.check)) {
            return Err("a reference points nowhere".to_owned());
        }
        for check in &self.checks {
            check.validate().map_err(|problem| format!("{}: {problem}", check.name))?;
            let golden = check.progress().and_then(|progress| progress.golden);
            if golden.is_some_and(|golden| !check_exists(golden)) {
                return Err(format!("{}: its golden check does not exist", check.name));
            }
        }
        if self.passive.is_some_and(|passive| !passive.is_sound()) {
            return Err("the passive rule is out of range".to_owned());
        }
        if let Some(group) = self.groups.iter().find(|g| g.min == 0 || g.min as usize > g.of.len()) {
            return Err(format!("{}: needs {} of {}", group.name, group.min, group.of.len()));
        }
        self.find_cycle().map_or(Ok(()), |name| Err(format!("{name}: depends on itself")))
    }

    /// Walks groups and dependencies; names a node of a cycle.
    fn find_cycle(&self) -> Option<&str> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let offset = self.checks.len();
        let node = |member: &Member| match member {
            Member::Check(check) => check.index(),
            Member::Group(group) => offset + group.index(),
        };
        let next = |node: usize| {
            if node < offset { &self.checks[node].depends_on } else { &self.groups[node - offset].of }
        };
        let mut marks = vec![Mark::New; offset + self.groups.len()];
        for root in 0..marks.len() {
            if marks[root] == Mark::Done {
                continue;
            }
            marks[root] = Mark::Open;
            let mut path = vec![(root, 0)];
            while let Some((at, edge)) = path.last_mut() {
                let (at, index) = (*at, *edge);
                *edge += 1;
                match next(at).get(index).map(node) {
                    Some(to) if marks[to] == Mark::Open => {
                        return Some(if to < offset { &self.checks[to].name } else { &self.groups[to - offset].name });
                    }
                    Some(to) if marks[to] == Mark::New => {
                        marks[to] = Mark::Open;
                        path.push((to, 0));
                    }
                    Some(_) => {}
                    None => {
                        marks[at] = Mark::Done;
                        path.pop();
                    }
                }
            }
        }
        None
    }
}

impl PassivePlan {
    const fn is_sound(&self) -> bool {
        let spans = !self.window.is_zero() && !self.base_ejection.is_zero() && !self.probation.is_zero();
        spans && self.min_requests >= 1 && self.min_success_permille <= 1000 && self.max_ejected_permille <= 1000
    }
}

impl CheckPlan {
    /// Its rule, if it is a `progress` check.
    pub const fn progress(&self) -> Option<&ProgressPlan> {
        match &self.rule {
            Some(TrafficRule::Progress(plan)) => Some(plan),
            _ => None,
        }
    }

    fn validate(&self) -> Result<(), String> {
        let positive = [self.interval, self.fast_interval, self.pending_interval, self.down_interval, self.timeout];
        if positive.iter().any(Duration::is_zero) || self.max_age.is_zero() {
            return Err("a duration is zero".to_owned());
        }
        if self.timeout >= self.interval {
            return Err(format!("timeout {:?} is not below interval {:?}", self.timeout, self.interval));
        }
        let traffic = match &self.rule {
            None => true,
            Some(TrafficRule::Progress(plan)) => !plan.stall_after.is_zero(),
            Some(TrafficRule::Saturation(plan)) => plan.is_sound(),
            Some(TrafficRule::Outcomes(plan)) => {
                !plan.window.is_zero() && plan.min_requests >= 1 && plan.min_success_permille <= 1000
            }
        };
        if !traffic {
            return Err("its rule is out of range".to_owned());
        }
        let rule = match self.failure_rule {
            FailureRule::Consecutive(threshold) => threshold >= 1,
            FailureRule::Window { fail, of } => fail >= 1 && fail <= of && of <= crate::limits::CHECK_WINDOW_MAX,
        };
        if !rule || self.success_threshold == 0 {
            return Err("a threshold is out of range".to_owned());
        }
        Ok(())
    }
}
