//! Tells the members how far this node is with the database that it fetches. Any of them may lead when it is here, and
//! its log has to go on from there: so each keeps its log meanwhile.

use std::io;

use futures_util::future::{pending, select_all};

use super::fetch::follow;
use super::hello::Purpose;
use super::link::{Caller, Connection, Target};
use super::stamp::ClusterId;
use super::types::Incarnation;
use super::wire::Fetched;
use crate::config::limits;
use crate::env::Env;

/// Who is told what.
pub struct Telling<'a, F, L> {
    pub env: &'a Env,
    pub caller: &'a Caller,
    pub cluster: ClusterId,
    /// How far this node is.
    pub fetched: F,
    /// Whose log has to go on from there.
    pub leader: L,
}

impl<F: Fn() -> Fetched, L: Fn() -> Option<Incarnation>> Telling<'_, F, L> {
    /// Tells all `members`, once a second, until the log of the leader does not go back to what is fetched: then that
    /// is of no use. `begun`: the member that was told already, and the connection to it.
    pub async fn tell(&self, members: &[Target], mut begun: Option<(Target, Connection)>) -> io::Error {
        let each = members.iter().map(|member| {
            let connection = begun.take_if(|(told, _)| told == member).map(|(_, connection)| connection);
            Box::pin(self.tell_one(member, connection))
        });
        let each: Vec<_> = each.collect();
        if each.is_empty() { pending().await } else { select_all(each).await.0 }
    }

    async fn tell_one(&self, member: &Target, mut connection: Option<Connection>) -> io::Error {
        loop {
            match self.tell_on(member, connection.take()).await {
                Ok(in_vain) => return in_vain,
                Err(why) => tracing::debug!("node {} is not told what is fetched: {why}", member.node),
            }
            self.env.sleep(limits::CATCH_UP_AGAIN).await;
        }
    }

    /// Tells one member on one connection for as long as that holds. `Ok`: why it is all in vain.
    async fn tell_on(&self, member: &Target, connection: Option<Connection>) -> io::Result<io::Error> {
        let Telling { env, caller, cluster, fetched, leader } = self;
        let mut connection = match connection {
            Some(connection) => connection,
            None => caller.reach(member, Some(*cluster), Purpose::Fetch).await?,
        };
        loop {
            let kept = follow(env, &mut connection, fetched()).await?;
            if !kept && leader() == member.incarnation {
                let why = format!("the log of node {} does not go back any more to what was fetched", member.node);
                return Ok(io::Error::new(io::ErrorKind::NotFound, why));
            }
            env.sleep(limits::CATCH_UP_AGAIN).await;
        }
    }
}
