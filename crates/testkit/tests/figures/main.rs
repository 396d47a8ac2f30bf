//! The figures are SPIRE's: every one of her names is in a table here (`*.txt`), as one that is shown or as one that is
//! not, with the reason; and what a server and an agent show after they were used is what the tables say.

#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

mod agent;
mod server;
mod shown;
mod table;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use shown::Shown;
use table::Table;

/// What was done shows in the figures at the latest after this.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_server_shows_what_the_table_says() {
    let table = Table::parse(include_str!("server.txt"));
    let sources = table::sources(&["server", "store"]);
    assert_eq!(table.unknown_rarities(&sources), Vec::<String>::new());
    let mut shown = Shown::default();
    server::use_all(&mut shown, &table).await;
    assert_eq!(table.differences(&shown), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_shows_what_the_table_says() {
    let table = Table::parse(include_str!("agent.txt"));
    let sources = table::sources(&["agent"]);
    assert_eq!(table.unknown_rarities(&sources), Vec::<String>::new());
    let mut shown = Shown::default();
    agent::use_all(&mut shown, &table).await;
    assert_eq!(table.differences(&shown), Vec::<String>::new());
}

/// Looks until everything of the table was shown, or time is up.
async fn settle(shown: &mut Shown, address: SocketAddr, prefix: &str, table: &Table) {
    let end = Instant::now() + PATIENCE;
    loop {
        shown.take(address, prefix).await;
        if table.differences(shown).is_empty() || Instant::now() > end {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}
