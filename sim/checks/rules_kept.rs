//! **The application's rules hold at every tid**, as each transaction keeps them: the sum of all accounts stays, the
//! two objects of the pair are equal, and of the two of the watch one at least is on. (The last is what snapshots alone
//! don't keep: each transaction writes one object and checks the other.)

use zrs::zodb::{Oid, Tid};

use crate::history::Record;
use crate::model::Model;
use crate::seen;
use crate::things::{DEPOSIT, Things};

pub const RULES: &str = "rules_kept: states";

pub fn check(record: &Record, model: &Model) -> Result<(), String> {
    let Things { accounts, pair, watch, .. } = &record.things;
    if record.things.is_empty() {
        return Ok(());
    }
    for tid in model.transactions.keys() {
        let number = |oid: &Oid| model.at(*oid, *tid).map(|(value, _)| value.number());
        // Before their creation there is nothing that could break a rule.
        if number(&accounts[0]).is_none() {
            continue;
        }
        seen::check(RULES, 1);
        let sum = accounts.iter().map(|account| number(account).unwrap_or(0)).fold(0, u64::wrapping_add);
        if sum != DEPOSIT * accounts.len() as u64 {
            return Err(broken(*tid, &format!("the accounts have {sum}")));
        }
        if number(&pair[0]) != number(&pair[1]) {
            return Err(broken(*tid, &format!("the pair is {:?} and {:?}", number(&pair[0]), number(&pair[1]))));
        }
        if watch.iter().all(|one| number(one) == Some(0)) {
            return Err(broken(*tid, "nobody is on watch"));
        }
    }
    Ok(())
}

fn broken(tid: Tid, why: &str) -> String {
    format!("rules_kept: as of {tid} {why}")
}
