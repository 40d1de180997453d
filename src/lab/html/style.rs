//! How the pages look: for a laptop and a phone, light and dark, with nothing fetched.

/// Colours by name, then the parts that every page shares.
pub(in crate::lab) const STYLE: &str = "
:root { color-scheme: light dark; --bg: #fff; --fg: #1b1f24; --dim: #5b6470; --line: #d8dde3; --card: #f6f8fa;
  --up: #2f9e63; --lie: #d9480f; --idle: #8fa3b8; --down: #d3d9df; --again: #7048e8;
  --edge: #d9480f; --no: #c92a2a; --ok: #8fd3ae; --wrong: #862e9c; --cut: #4263eb; --dependency: #845ef7;
  --draining: #868e96; --loading: #e0a800; --no_endpoint: #d6336c; --not_ready: #c2703d; --overloaded: #1971c2;
  --queue_full: #0b7285; --queue_timeout: #15aabf; --refused: #495057; --reset: #e64980;
  --saturated: #5c940d; --timeout: #f08c00; }
@media (prefers-color-scheme: dark) { :root { --bg: #12161b; --fg: #e6eaef; --dim: #98a3b0; --line: #2d353e;
  --card: #1a2027; --up: #43b97a; --lie: #ff7a3d; --idle: #5f7690; --down: #303943; --again: #9775fa;
  --edge: #ff922b; --no: #ff8787; --ok: #2b6b49; --wrong: #cc5de8; --cut: #748ffc;
  --dependency: #9775fa; --draining: #adb5bd; --loading: #ffd43b; --no_endpoint: #f06595; --not_ready: #e8a16b;
  --overloaded: #4dabf7; --queue_full: #22b8cf; --queue_timeout: #66d9e8; --refused: #ced4da; --reset: #faa2c1;
  --saturated: #94d82d; --timeout: #ffa94d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 74rem; padding: 1.5rem 1rem 4rem; background: var(--bg); color: var(--fg);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .75rem; text-wrap: balance; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .25rem; }
p { margin: .25rem 0 1rem; } .dim { color: var(--dim); }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; font-size: .92rem; text-align: right; white-space: nowrap; vertical-align: top;
  border-top: 1px solid var(--line); }
thead th { border-top: 0; font-weight: 600; color: var(--dim); } th:first-child, td:first-child { text-align: left; }
td small { color: var(--dim); display: block; font-size: .75rem; }
.card { background: var(--card); border-radius: 8px; padding: .75rem; }
svg { display: block; width: 100%; height: 1.4rem; border-radius: 3px; }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1rem; font-size: .85rem; color: var(--dim); margin: .5rem 0 0; }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin-right: .35rem;
  vertical-align: -.1em; }
";

/// What an experiment's page adds.
pub(super) const OWN: &str = "
.tag { font-size: .8rem; letter-spacing: .04em; color: var(--dim); margin: 0 0 .25rem; }
.asked { max-width: 52rem; } .predicted { max-width: 52rem; border-left: 3px solid var(--idle); padding-left: .75rem; }
.predicted b, .asked b { display: block; font-size: .78rem; color: var(--dim); font-weight: 600; }
table.designs td:first-child, table.designs th:first-child { position: sticky; left: 0; background: var(--bg);
  min-width: 7.5rem; max-width: 13rem; white-space: normal; overflow-wrap: break-word; }
table.designs a { color: inherit; font-weight: 600; text-decoration-color: var(--line); }
.no { color: var(--no); font-weight: 600; }
.bar { display: block; height: 4px; margin-top: .3rem; border-radius: 2px; background: var(--ok); min-width: 5rem;
  overflow: hidden; } .bar i { display: block; height: 100%; margin-left: auto; background: var(--no); }
.lane { display: grid; grid-template-columns: 4rem 1fr; align-items: center; gap: .5rem; font-size: .85rem;
  color: var(--dim); margin: .15rem 0; }
.line { position: relative; } .edge { position: absolute; top: -2px; bottom: -2px; width: 0; pointer-events: none;
  border-left: 1px dashed var(--edge); }
.marks { position: relative; height: 1.45rem; font-size: .8rem; font-weight: 600; color: var(--edge); }
.marks span { position: absolute; line-height: 1.1; } .marks i { position: absolute; bottom: 2px; height: 4px;
  border-radius: 2px; background: var(--edge); min-width: 4px; }
.axis { position: relative; height: 1.3rem; font-size: .78rem; font-variant-numeric: tabular-nums; }
.axis span { position: absolute; transform: translateX(-50%); } .axis span:first-child { transform: none; }
.axis span:last-child { transform: translateX(-100%); }
.events { margin: .25rem 0 .75rem; padding: 0; list-style: none; font-size: .88rem; }
.events b { color: var(--edge); display: inline-block; width: 1.2rem; }
.minutes .lane { grid-template-columns: 10rem 1fr; color: var(--fg); margin: .35rem 0; }
.minutes svg { height: 2.6rem; background: var(--bg); }
.lane > span { overflow-wrap: anywhere; line-height: 1.2; }
.why { margin: .75rem 0; padding-left: 1.2rem; max-width: 62rem; overflow-wrap: anywhere; }
.why li { margin: .2rem 0; }
.decided { margin: .75rem 0 0; display: grid; grid-template-columns: max-content max-content minmax(0, 1fr);
  gap: .2rem .75rem; font-size: .9rem; }
.decided > * { min-width: 0; overflow-wrap: anywhere; }
.decided .n { text-align: right; font-variant-numeric: tabular-nums; color: var(--dim); }
h3 { font-size: .95rem; margin: 1rem 0 .25rem; } h2 small { font-weight: 400; }
details { margin: .75rem 0; } summary { cursor: pointer; color: var(--dim); }
ol { margin: .5rem 0; padding: 0; list-style: none; font-size: .9rem; }
ol li { display: grid; grid-template-columns: 4.5rem 3.5rem minmax(0, 1fr); gap: .5rem; padding: .15rem 0;
  overflow-wrap: anywhere; }
ol li span:first-child { text-align: right; font-variant-numeric: tabular-nums; color: var(--dim); }
.expect { list-style: none; padding: 0; font-size: .92rem; } .expect li { padding: .1rem 0 .1rem 1.5rem;
  text-indent: -1.5rem; overflow-wrap: anywhere; } .expect b { display: inline-block; width: 1.5rem; text-indent: 0; }
.missed { color: var(--no); font-weight: 600; }
@media (max-width: 40rem) { th, td { padding: .4rem .4rem; font-size: .85rem; }
  table.designs td:first-child, table.designs th:first-child { min-width: 6.5rem; max-width: 8rem; }
  .minutes .lane { grid-template-columns: 1fr; gap: .1rem; } .decided { grid-template-columns: max-content 1fr; }
  .decided > :nth-child(3n) { grid-column: 1 / -1; margin-bottom: .35rem; }
  .lane { grid-template-columns: 3.2rem 1fr; } .axis span:nth-child(even) { display: none; } }
";
