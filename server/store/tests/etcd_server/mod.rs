//! Real etcd for tests: one member, or three of which some are killed or frozen.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part of this")]

mod one;

use std::time::{Duration, Instant};

pub use one::{Etcd, Member, TlsFiles};
use one::{LOOK, PATIENCE, own_address};

/// Several members.
pub struct Etcds {
    pub members: Vec<Member>,
    _folder: tempfile::TempDir,
}

impl Etcds {
    /// Three, which sync what they write.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let addresses: Vec<_> = (0..3).map(|_| own_address()).collect();
        let peers: Vec<_> =
            addresses.iter().enumerate().map(|(i, (address, _))| format!("m{i}=http://{address}:2380")).collect();
        let more = [
            format!("--initial-cluster={}", peers.join(",")),
            "--heartbeat-interval=50".to_owned(),
            "--election-timeout=500".to_owned(),
        ];
        let member = |(i, claimed)| Member::new(&format!("m{i}"), folder.path(), "http", claimed, &more);
        let mut members: Vec<_> = addresses.into_iter().enumerate().map(member).collect();
        // None serves before the others are there.
        members.iter_mut().for_each(Member::spawn);
        members.iter_mut().for_each(|member| member.wait(0));
        Self { members, _folder: folder }
    }

    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(|member| member.url.clone()).collect()
    }

    /// Which member leads, asked of one that runs.
    pub async fn leader(&self) -> usize {
        let end = Instant::now() + PATIENCE;
        loop {
            for (at, member) in self.members.iter().enumerate() {
                if member.runs() && leads(&member.url).await {
                    return at;
                }
            }
            assert!(Instant::now() < end, "etcd has no leader");
            tokio::time::sleep(LOOK).await;
        }
    }
}

async fn leads(url: &str) -> bool {
    let asked = async {
        let mut client = etcd_client::Client::connect([url], None).await.ok()?;
        let status = client.status().await.ok()?;
        Some(status.leader() == status.header()?.member_id())
    };
    tokio::time::timeout(Duration::from_secs(2), asked).await.ok().flatten().unwrap_or_default()
}
