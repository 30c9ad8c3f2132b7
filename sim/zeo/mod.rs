//! Clients that speak ZEO's protocol themselves, as Python's client does, over the simulated network.
//!
//! Stock clients behave otherwise than the Rust client: they ask one node after the other and may be held or relayed;
//! they resolve conflicts under the locks of their vote; they load and finish side by side. Here they are as simple as
//! they can be, and write down every frame that they are sent ([`stream`](crate::stream)).
//!
//! | | |
//! |---|---|
//! | `client`, `session`, `line` | a client; with a connection; the connection |
//! | `cache`, `plan`, `commit` | what it knows; a transaction to be done; how it is done |
//! | `act`, `acts/` | what clients do: a menu, one act a file |
//!
//! The seed draws, for each client, in which order it asks the nodes and how long it waits to be greeted, and whether
//! it reads what comes while it has nothing to do; for each connection, the encoding.

mod act;
mod acts;
mod cache;
mod client;
mod commit;
mod line;
mod pair_id;
mod plan;
mod session;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;
use zrs::env::Env;
use zrs::zeo::Encoding;

use crate::chance::Chance;
use crate::cluster::{CLIENTS, Cluster, EVERY_CLIENT, client_name};
use crate::faults;
use crate::history::History;
use crate::host::Host;
use crate::seen;
use act::Act;
use acts::{
    append, count, cut, download, flag, graft, grow, iterate, junk, live_and_die, look, look_back, meet, pack, page,
    pair, ping, take_oids, transfer, undo, upload, walk, watch,
};
use client::Client;
use line::{Line, Lost};
use session::Session;

/// All acts.
static MENU: [Act; 22] = [
    count::COUNT,
    transfer::TRANSFER,
    append::APPEND,
    flag::FLAG,
    pair::PAIR,
    watch::WATCH,
    live_and_die::LIVE_AND_DIE,
    grow::GROW,
    cut::CUT,
    graft::GRAFT,
    page::PAGE,
    undo::UNDO,
    upload::UPLOAD,
    download::DOWNLOAD,
    iterate::ITERATE,
    walk::WALK,
    pack::PACK,
    look::LOOK,
    look_back::LOOK_BACK,
    take_oids::TAKE_OIDS,
    ping::PING,
    meet::MEET,
];

/// In one run of so many records are written that no pack can read.
const JUNK: u64 = 8;
/// The client that only reads.
const READER: usize = EVERY_CLIENT - 1;
/// How long a client waits for the shared objects before it looks again.
const AGAIN: Duration = Duration::from_millis(15);

/// The names of all acts.
pub fn names() -> Vec<&'static str> {
    MENU.iter().chain([&junk::JUNK]).map(|act| act.name).collect()
}

/// Registers the clients; they go on until `enough` is set.
pub fn start(cluster: &mut Cluster, seed: u64, history: &History, enough: &Arc<AtomicBool>) {
    for number in CLIENTS..EVERY_CLIENT {
        let name = client_name(number);
        let env = Env::new(Host::new(seed, &name));
        let network = Arc::new(cluster.fabric.of(&name));
        let (history, read_only) = (history.clone(), number == READER);
        let client = Client { number, env: env.clone(), network, history, read_only };
        let enough = enough.clone();
        cluster.add_client(number, env.scope(run(client, seed, enough)));
    }
}

/// An act of one client.
struct Upcoming {
    act: &'static Act,
    chance: Chance,
    next: Instant,
}

/// How a client looks for a node.
struct Search {
    chance: Chance,
    /// The nodes, in the order in which they are asked.
    nodes: Vec<u64>,
    /// How long the client waits to be greeted.
    grace: Duration,
}

async fn run(client: Client, seed: u64, enough: Arc<AtomicBool>) -> turmoil::Result {
    let name = client_name(client.number);
    let mut search = Search::of(faults::hosts(seed), Chance::of(seed, &format!("connections of {name}")));
    // Some read only while they wait for an answer.
    let listens = !search.chance.once_in(4);
    let junk = Chance::of(seed, "junk").once_in(JUNK).then_some(&junk::JUNK);
    let acts = MENU.iter().chain(junk).filter(|act| act.reads_only || !client.read_only);
    let mut upcoming: Vec<Upcoming> = acts.map(|act| of(act, &client, seed)).collect();
    let (client, cache) = (Rc::new(client), Rc::default());
    while !enough.load(Relaxed) {
        let Some(line) = search.connect(&client, &cache).await else { continue };
        let mut session = Session { client: client.clone(), line, oids: Vec::new(), begun: 0 };
        if let Err(Lost(why)) = work(&mut session, &mut upcoming, listens, &enough).await {
            tracing::info!("client {} has lost its connection: {why}", client.number);
        }
    }
    client.history.look().gone.insert(client.number);
    Ok(())
}

/// Does one act after the other, the one whose pause is over first, until the connection is lost or it is `enough`.
async fn work(
    session: &mut Session,
    upcoming: &mut [Upcoming],
    listens: bool,
    enough: &AtomicBool,
) -> Result<(), Lost> {
    let env = session.client.env.clone();
    while session.things().is_empty() && !enough.load(Relaxed) {
        session.line.listen(env.now() + AGAIN).await?;
    }
    // (An appointment goes first: the others can wait.)
    let first = |upcoming: &&mut Upcoming| {
        let is_appointment = upcoming.act.name == meet::MEET.name && upcoming.next <= env.now();
        (!is_appointment, upcoming.next)
    };
    while let Some(first) = upcoming.iter_mut().min_by_key(first) {
        if listens {
            session.line.listen(first.next).await?;
        } else {
            env.sleep_until(first.next).await;
        }
        if enough.load(Relaxed) {
            break;
        }
        let done = (first.act.turn)(session, &mut first.chance).await;
        first.next = env.now() + first.chance.millis(first.act.pause.clone());
        let done = done?;
        seen::workload(first.act.name, done);
        if session.client.read_only && done > 0 {
            session.client.history.moved(session.client.number);
        }
    }
    // In the end the client is told of everything, and looks at all of it.
    if !session.things().is_empty() {
        session.ping().await?;
        let (all, snapshot) = (session.things().all(), session.line.told());
        session.read_all(&all, snapshot).await?;
    }
    Ok(())
}

impl Search {
    fn of(hosts: &[u64], mut chance: Chance) -> Search {
        let mut nodes = hosts.to_vec();
        for n in (1..nodes.len()).rev() {
            nodes.swap(n, chance.below(n as u64 + 1) as usize);
        }
        // Those that wait for long are held, and may be relayed.
        let grace = Duration::from_millis(chance.one_of(&[150, 400, 2_500]));
        Search { chance, nodes, grace }
    }

    /// Asks the next node; `None`: it does not serve, and a pause is over.
    async fn connect(&mut self, client: &Client, cache: &Rc<std::cell::RefCell<cache::Cache>>) -> Option<Line> {
        let node = self.nodes[0];
        let encoding = self.chance.one_of(&[Encoding::Pickle, Encoding::Msgpack]);
        match Line::connect(client, node, self.grace, encoding, cache).await {
            Ok(line) => Some(line),
            Err(Lost(why)) => {
                tracing::debug!("client {} was not served by node {node}: {why}", client.number);
                self.nodes.rotate_left(1);
                client.env.sleep(self.chance.millis(10..150)).await;
                None
            }
        }
    }
}

/// The client's part of an act.
fn of(act: &'static Act, client: &Client, seed: u64) -> Upcoming {
    let mut chance = Chance::of(seed, &format!("act {} of {}", act.name, client_name(client.number)));
    let next = client.env.now() + chance.millis(act.pause.clone());
    Upcoming { act, chance, next }
}
