//! A cluster at a glance: one line for each node, and what is wrong.
//!
//! Each node that was asked knows itself best. Of the others it tells what it has heard: every node asks every other
//! one each second, so that one answer shows the whole cluster. What the primary has heard goes before what others
//! have.
//!
//! Pure: statuses in, lines out.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use zrs::zodb::Tid;

/// A node that has not answered for so many milliseconds is away. (Nodes ask each other every second, and wait for an
/// answer for one.)
const AWAY: u64 = 3_000;
/// Log entries, and seconds, that a node may be behind and still be up to date: it is never in step to the entry.
const ON_THEIR_WAY: u64 = 64;
const IN_STEP: f64 = 2.0;

/// A node's status, and the address at which it was asked.
pub struct View {
    pub address: String,
    pub status: Value,
}

/// The sight of a cluster.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// Lines for people, each with its end.
    pub text: String,
    /// Everything that is wrong, a line each.
    pub wrong: Vec<String>,
}

/// The cluster as `views` show it, at a moment of the wall clock.
pub fn glance(views: &[View], wall: Duration) -> Glance {
    let Some(best) = views.iter().min_by_key(|view| view.rank()) else { return Glance::default() };
    let mut wrong = Wrong::default();
    let newest = views.iter().filter_map(|view| view.status["committed"].as_u64()).max().unwrap_or(0);
    let mut rows = vec![["node", "address", "state", "applied"].map(str::to_owned).to_vec()];
    let mut away = 0;
    let members = best.status["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    for member in members {
        let own = views.iter().find(|view| view.status["node"] == member["node"]);
        let line = match own {
            Some(view) => of_itself(view, newest),
            None => of_another(best, member, newest, wall),
        };
        // (Nobody waits for an observer.)
        away += usize::from(line.is_away && member["part"] != "observer");
        wrong.say_all(line.wrong);
        let applied = own.map_or(&member["applied"], |view| &view.status["applied"]);
        rows.push(vec![shown(&member["node"]), shown(&member["address"]), line.state, shown(applied)]);
    }
    if away > 0 {
        let voters = members.iter().filter(|member| member["part"] != "observer").count();
        wrong.say(remaining(voters.saturating_sub(away), voters));
    }
    // (A node that belongs to no cluster yet, or to another one.)
    for view in views.iter().filter(|view| !members.iter().any(|member| member["node"] == view.status["node"])) {
        let line = of_itself(view, newest);
        wrong.say_all(line.wrong);
        rows.push(vec![shown(&view.status["node"]), view.address.clone(), line.state, shown(&view.status["applied"])]);
    }
    for view in views {
        complaints(view, &mut wrong);
    }
    clusters(views, &mut wrong);
    for change in best.status["changes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        wrong.say(change.into());
    }
    if !views.iter().any(|view| ["primary", "waiting", "fault"].iter().any(|key| !view.status[*key].is_null())) {
        wrong.say("there is no primary: an election goes on, or too few nodes are there for one".into());
    }
    Glance { text: format!("{}\n{}", headline(best), table(&rows)), wrong: wrong.lines }
}

impl View {
    /// Less is better: the primary has heard most, and a node that takes no part nothing.
    fn rank(&self) -> u8 {
        match self.status["role"].as_str() {
            Some("primary") => 0,
            Some("secondary") => 1,
            _ if self.status["members"].as_array().is_some_and(|members| !members.is_empty()) => 2,
            _ => 3,
        }
    }

    fn name(&self) -> String {
        format!("node {}", shown(&self.status["node"]))
    }
}

/// Lines of what is wrong, each once.
#[derive(Default)]
struct Wrong {
    lines: Vec<String>,
    said: BTreeSet<String>,
}

impl Wrong {
    fn say(&mut self, line: String) {
        if self.said.insert(line.clone()) {
            self.lines.push(line);
        }
    }

    fn say_all(&mut self, lines: Vec<String>) {
        lines.into_iter().for_each(|line| self.say(line));
    }
}

/// A node's line.
#[derive(Default)]
struct Line {
    state: String,
    is_away: bool,
    wrong: Vec<String>,
}

/// How far a database is that is being fetched.
fn fetched(fetching: &Value) -> Option<String> {
    let (done, total) = (fetching["done"].as_u64()?, fetching["total"].as_u64()?);
    let percent = (u128::from(done) * 100).checked_div(u128::from(total)).unwrap_or(0);
    let full = (percent / 10).min(10) as usize;
    let rate = match fetching["rate"].as_u64() {
        Some(rate) if rate > 0 => {
            let left = Duration::from_secs(total.saturating_sub(done) / rate);
            format!(", {:.1} MiB/s, {} left", rate as f64 / f64::from(1 << 20), span(left))
        }
        _ => String::new(),
    };
    Some(format!(
        "fetches the database [{}{}] {percent} % of {} MiB{rate}",
        "#".repeat(full),
        ".".repeat(10 - full),
        total >> 20
    ))
}

/// A node as it tells of itself.
fn of_itself(view: &View, newest: u64) -> Line {
    let status = &view.status;
    let role = shown(&status["role"]);
    let name = view.name();
    if let Some(fault) = status["fault"].as_str() {
        let state = if role == "excluded" { "takes no part" } else { "stopped by a fault" };
        return Line { state: state.into(), wrong: vec![format!("{name} {state}: {fault}")], ..Line::default() };
    }
    if let (Some(waiting), Some(what)) = (status["waiting"].as_str(), fetched(&status["fetching"])) {
        let wrong = vec![format!("{name} is about to join: it {what}, {waiting}")];
        return Line { state: format!("joins: {what}"), wrong, ..Line::default() };
    }
    if let Some(waiting) = status["waiting"].as_str() {
        let wrong = vec![format!("{name} is in no cluster yet: {waiting}")];
        return Line { state: "waits for a cluster".into(), wrong, ..Line::default() };
    }
    if role == "candidate" {
        let wrong = vec![format!("{name} knows no primary")];
        return Line { state: "knows no primary".into(), wrong, ..Line::default() };
    }
    if role == "primary" {
        return Line { state: role, ..Line::default() };
    }
    follower(&name, status, newest)
}

/// A node as the node of `view` has heard of it.
fn of_another(view: &View, member: &Value, newest: u64, wall: Duration) -> Line {
    let name = format!("node {} at {}", shown(&member["node"]), shown(&member["address"]));
    // (A node that takes no part has asked nobody.)
    if view.rank() > 1 && !matches!(view.status["role"].as_str(), Some("candidate")) {
        return Line { state: "not known".into(), ..Line::default() };
    }
    if let Some(what) = fetched(&member["fetching"]) {
        return Line { state: what.clone(), wrong: vec![format!("{name} {what}")], ..Line::default() };
    }
    if let Some(silence) = member["silence_ms"].as_u64().filter(|silence| *silence > AWAY) {
        let since = moment(wall.saturating_sub(Duration::from_millis(silence)), wall);
        let ago = span(Duration::from_millis(silence));
        let wrong = vec![format!("{name} has not answered since {since} ({ago})")];
        return Line { state: format!("no answer since {since}"), is_away: true, wrong };
    }
    if view.status["primary"] == member["node"] {
        return Line { state: "primary".into(), ..Line::default() };
    }
    if !view.status["primary"].is_u64() {
        return Line { state: "is there".into(), ..Line::default() };
    }
    follower(&name, member, newest)
}

/// A node that follows the primary, as `said` by itself or by another one.
fn follower(name: &str, said: &Value, newest: u64) -> Line {
    if let Some(what) = fetched(&said["fetching"]) {
        let wrong = vec![format!("{name} {what}, as it was away for longer than the log goes back")];
        return Line { state: what, wrong, ..Line::default() };
    }
    let (applied, lag) = (said["applied"].as_u64(), said["lag_seconds"].as_f64());
    let Some(applied) = applied else { return Line { state: "not heard of yet".into(), ..Line::default() } };
    let behind = newest.saturating_sub(applied);
    if behind <= ON_THEIR_WAY || lag.is_some_and(|lag| lag <= IN_STEP) {
        return Line { state: format!("{}, up to date", part(said)), ..Line::default() };
    }
    let seconds = lag.map_or(String::new(), |lag| format!(" ({})", span(Duration::from_secs_f64(lag.clamp(0.0, 1e9)))));
    let what = format!("{behind} entries{seconds} behind");
    Line { state: format!("{}, {what}", part(said)), wrong: vec![format!("{name} is {what}")], ..Line::default() }
}

/// What a node is that follows the primary.
fn part(said: &Value) -> &'static str {
    // (A node tells its own part among those of all members.)
    let members = said["members"].as_array().into_iter().flatten();
    let own = members.filter(|member| member["node"] == said["node"]).map(|member| &member["part"]).next();
    if *own.unwrap_or(&said["part"]) == "observer" { "observer" } else { "secondary" }
}

/// A node's complaints, about itself and others.
fn complaints(view: &View, wrong: &mut Wrong) {
    let name = view.name();
    let alarms = view.status["alarms"].as_array().into_iter().flatten().filter_map(Value::as_str);
    alarms.for_each(|alarm| wrong.say(format!("{name}: {alarm}")));
    for member in view.status["members"].as_array().into_iter().flatten() {
        let other = format!("node {}", shown(&member["node"]));
        if let Some(why) = member["unfit"].as_str() {
            wrong.say(format!("{other}: {why}"));
        }
        if let Some(why) = member["refusal"].as_str() {
            wrong.say(format!("{name} and {other} do not work together: {why}"));
        }
    }
}

/// Nodes of more than one cluster are no cluster.
fn clusters(views: &[View], wrong: &mut Wrong) {
    let mut known = views.iter().filter(|view| view.status["cluster"].is_string());
    let Some(first) = known.next() else { return };
    for view in known.filter(|view| view.status["cluster"] != first.status["cluster"]) {
        let (one, other) = (&first.address, &view.address);
        wrong.say(format!("the nodes at {one} and {other} do not belong to the same cluster"));
    }
}

fn headline(view: &View) -> String {
    let primary = match view.status["primary"].as_u64() {
        Some(primary) => format!("node {primary} is primary"),
        None => "no primary".into(),
    };
    let tid = view.status["last_tid"].as_str().and_then(|tid| u64::from_str_radix(tid, 16).ok()).map(Tid);
    match tid {
        Some(Tid::ZERO) | None => format!("{primary}; no transactions yet"),
        Some(tid) => {
            let made = Duration::from_secs_f64(tid.unix_seconds().clamp(0.0, 1e12));
            format!("{primary}; last transaction {tid} of {}", moment(made, Duration::MAX))
        }
    }
}

/// The meaning of a loss of members.
fn remaining(there: usize, all: usize) -> String {
    let losses = (there + 1).checked_sub(all / 2 + 2);
    match losses {
        None => format!("{there} of {all} nodes are there, too few to write"),
        Some(0) => format!("{there} of {all} nodes are there: one more loss stops all writing"),
        Some(1) => format!("{there} of {all} nodes are there: one more loss does no harm"),
        Some(more) => format!("{there} of {all} nodes are there: {more} more losses do no harm"),
    }
}

/// Rows as columns of equal width.
pub fn table(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A moment in UTC, without its day if that was less than a day ago.
fn moment(wall: Duration, now: Duration) -> String {
    let signed = jiff::SignedDuration::try_from(wall).unwrap_or_default();
    let moment = jiff::Timestamp::from_duration(signed).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let today = now.saturating_sub(wall) < Duration::from_secs(86_400);
    let format = if today { "%H:%M:%S UTC" } else { "%Y-%m-%d %H:%M:%S UTC" };
    moment.strftime(format).to_string()
}

/// A span of time, in its largest unit.
fn span(span: Duration) -> String {
    match span.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOON: Duration = Duration::from_secs(86_400 * 20_000 + 12 * 3_600);

    fn view(node: u64, role: &str) -> View {
        let member = |n: u64| {
            let silence = (n != node).then_some(700);
            json!({
                "node": n, "address": format!("db{n}:8100"), "applied": 5000 + n, "lag_seconds": 0.1,
                "silence_ms": silence, "refusal": null, "unfit": null,
            })
        };
        let status = json!({
            "node": node, "role": role, "primary": 1, "cluster": "c0ffee", "committed": 5003, "applied": 5000 + node,
            "last_tid": "040d31ff84f1076e", "lag_seconds": 0.05, "waiting": null, "fault": null, "alarms": [],
            "members": [member(1), member(2), member(3)],
        });
        View { address: format!("db{node}:8180"), status }
    }

    #[test]
    fn one_node_shows_a_healthy_cluster() {
        let expected = "node 1 is primary; last transaction 040d31ff84f1076e of 2026-11-22 21:51:31 UTC\n\
                        node  address   state                  applied\n\
                        1     db1:8100  primary                5001\n\
                        2     db2:8100  secondary, up to date  5002\n\
                        3     db3:8100  secondary, up to date  5003\n";
        for (node, role) in [(1, "primary"), (2, "secondary")] {
            assert_eq!(glance(&[view(node, role)], NOON), Glance { text: expected.into(), wrong: vec![] });
        }
        let all = [view(3, "secondary"), view(1, "primary"), view(2, "secondary")];
        assert_eq!(glance(&all, NOON), Glance { text: expected.into(), wrong: vec![] });
        assert_eq!(glance(&[], NOON), Glance::default());
    }

    #[test]
    fn a_dead_node_is_told_with_the_time_and_what_it_means() {
        let mut seen = view(2, "secondary");
        seen.status["members"][2]["silence_ms"] = 240_000.into();
        let told = glance(&[seen], NOON);
        assert!(told.text.contains("3     db3:8100  no answer since 11:56:00 UTC  5003\n"), "{}", told.text);
        let wrong = [
            "node 3 at db3:8100 has not answered since 11:56:00 UTC (4 min)",
            "2 of 3 nodes are there: one more loss stops all writing",
        ];
        assert_eq!(told.wrong, wrong);
    }

    #[test]
    fn a_node_that_fetches_a_database_is_told_with_how_far_it_is() {
        let fetching = json!({ "done": 30 << 20, "total": 120 << 20, "rate": 3 << 19 });
        // (As the primary tells, or the node itself.)
        let mut seen = [view(1, "primary"), view(2, "secondary")];
        seen[0].status["members"][1]["fetching"] = fetching.clone();
        seen[1].status["fetching"] = fetching;
        for seen in [&seen[..1], &seen[..]] {
            let told = glance(seen, NOON);
            assert!(
                told.text.contains("fetches the database [##........] 25 % of 120 MiB, 1.5 MiB/s, 60 s left"),
                "{}",
                told.text
            );
            assert!(told.wrong[0].contains("fetches the database [##"), "{:?}", told.wrong);
        }
        let mut seen = view(1, "primary");
        seen.status["members"][1]["fetching"] = json!({ "done": 0, "total": 0 });
        assert!(glance(&[seen], NOON).text.contains("fetches the database [..........] 0 % of 0 MiB"));
    }

    #[test]
    fn a_node_that_lags_is_told_with_how_much() {
        let mut seen = view(1, "primary");
        seen.status["members"][1]["applied"] = 1000.into();
        // (In step to the second it is only a busy cluster.)
        assert!(glance(&[seen], NOON).wrong.is_empty());
        let mut seen = view(1, "primary");
        seen.status["members"][1]["applied"] = 1000.into();
        seen.status["members"][1]["lag_seconds"] = 37.5.into();
        seen.status["members"][2]["applied"] = 1.into();
        seen.status["members"][2]["lag_seconds"] = Value::Null;
        let told = glance(&[seen], NOON);
        assert!(told.text.contains("secondary, 4003 entries (37 s) behind"), "{}", told.text);
        assert_eq!(
            told.wrong,
            ["node 2 at db2:8100 is 4003 entries (37 s) behind", "node 3 at db3:8100 is 5002 entries behind"]
        );
        let mut early = view(1, "primary");
        early.status["members"][2]["applied"] = Value::Null;
        let told = glance(&[early], NOON);
        assert!(told.text.contains("not heard of yet") && told.wrong.is_empty(), "{told:?}");
        let mut itself = view(2, "secondary");
        itself.status["applied"] = 4000.into();
        itself.status["lag_seconds"] = 5.0.into();
        assert_eq!(glance(&[view(1, "primary"), itself], NOON).wrong, ["node 2 is 1003 entries (5 s) behind"]);
    }

    #[test]
    fn what_nodes_complain_of_is_told_once() {
        let (mut one, mut two) = (view(1, "primary"), view(2, "secondary"));
        one.status["members"][1]["unfit"] = "its disk is nearly full".into();
        two.status["alarms"] = json!(["its disk is nearly full", "this node's clock is 40 s ahead of node 1's"]);
        two.status["members"][2]["refusal"] = "refused: another secret".into();
        let told = glance(&[one, two], NOON);
        assert_eq!(
            told.wrong,
            [
                "node 2: its disk is nearly full",
                "node 2: this node's clock is 40 s ahead of node 1's",
                "node 2 and node 3 do not work together: refused: another secret",
            ]
        );
    }

    #[test]
    fn a_cluster_without_a_primary_and_nodes_that_take_no_part() {
        let mut seen = view(2, "candidate");
        seen.status["primary"] = Value::Null;
        seen.status["members"][0]["silence_ms"] = 9_000.into();
        seen.status["members"][2]["silence_ms"] = 200_000_000.into();
        let told = glance(&[seen], NOON);
        assert!(told.text.starts_with("no primary; last transaction"), "{}", told.text);
        assert!(told.text.contains("2     db2:8100  knows no primary"), "{}", told.text);
        assert_eq!(told.wrong[1], "node 2 knows no primary");
        assert_eq!(told.wrong[2], "node 3 at db3:8100 has not answered since 2024-10-02 04:26:40 UTC (2 days)");
        assert_eq!(told.wrong[3], "1 of 3 nodes are there, too few to write");
        assert!(told.wrong[4].starts_with("there is no primary"), "{:?}", told.wrong);

        let forming =
            json!({"node": 2, "role": "candidate", "primary": null, "waiting": "waiting for node 3", "members": []});
        let told = glance(&[View { address: "db2:8180".into(), status: forming }], NOON);
        assert!(told.text.contains("2     db2:8180  waits for a cluster"), "{}", told.text);
        assert_eq!(told.wrong, ["node 2 is in no cluster yet: waiting for node 3"]);

        let mut excluded = view(3, "excluded");
        excluded.status["primary"] = Value::Null;
        excluded.status["fault"] = "its folder is a copy".into();
        let told = glance(&[excluded, view(1, "primary")], NOON);
        assert_eq!(told.wrong, ["node 3 takes no part: its folder is a copy"]);

        let mut other = view(1, "primary");
        other.status["cluster"] = "beef".into();
        let told = glance(&[view(1, "primary"), other], NOON);
        assert_eq!(told.wrong, ["the nodes at db1:8180 and db1:8180 do not belong to the same cluster"]);
    }

    #[test]
    fn what_a_loss_means() {
        assert_eq!(remaining(1, 3), "1 of 3 nodes are there, too few to write");
        assert_eq!(remaining(2, 3), "2 of 3 nodes are there: one more loss stops all writing");
        assert_eq!(remaining(4, 5), "4 of 5 nodes are there: one more loss does no harm");
        assert_eq!(remaining(7, 9), "7 of 9 nodes are there: 2 more losses do no harm");
        assert_eq!(remaining(1, 2), "1 of 2 nodes are there, too few to write");
    }

    #[test]
    fn nobody_waits_for_an_observer() {
        let mut seen = view(1, "primary");
        let members = seen.status["members"].as_array_mut().unwrap();
        let mut fourth = members[2].clone();
        fourth["node"] = 4.into();
        fourth["part"] = "observer".into();
        members.push(fourth);
        let told = glance(&[seen], NOON);
        assert!(told.text.contains("observer, up to date"), "{}", told.text);
        assert_eq!(told.wrong, Vec::<String>::new());
        let mut seen = view(1, "primary");
        seen.status["changes"] = json!(["node 4 is to join"]);
        seen.status["members"][2]["fetching"] = json!({"done": 5 << 20, "total": 10 << 20});
        let told = glance(&[seen], NOON);
        assert!(told.text.contains("fetches the database [#####.....] 50 % of 10 MiB"), "{}", told.text);
        assert_eq!(told.wrong.len(), 2, "{:?}", told.wrong);
    }
}
