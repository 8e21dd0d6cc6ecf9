//! Keeps the logs of containers small: a file that has grown is set aside, the runtime opens a new one, older ones are
//! packed, and the oldest go (the kubelet's `containerLogMaxSize` and `containerLogMaxFiles`).

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use k8s_cri::v1::{
    ContainerFilter, ContainerState, ContainerStateValue, ListContainersRequest, ReopenContainerLogRequest,
};

use super::config::{CONTAINER_NAME, POD_UID};
use crate::context::Context;

/// The size at which a log is set aside.
const MAX_BYTES: u64 = 10 * 1024 * 1024;
/// How many files a container has, the one that is written included.
const MAX_FILES: usize = 5;
/// How often sizes are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// The end of a packed file's name.
const PACKED: &str = ".gz";
/// The end of the name of a file that is being packed.
const PACKING: &str = ".tmp";

/// What is done to a file of a container's log folder.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// It is taken away.
    Remove(String),
    /// It is packed.
    Pack(String),
    /// The log that is written is set aside under the second name; the runtime then opens a new one.
    SetAside(String, String),
}

/// What is to be done with the files of the log named `current`; pure. `stamp` tells this time from others, and sorts
/// after them.
fn plan(files: &BTreeMap<String, u64>, current: &str, stamp: &str) -> Vec<Step> {
    let grown = files.get(current).is_some_and(|size| *size > MAX_BYTES);
    if !grown {
        return vec![];
    }
    let own = |name: &&String| name.strip_prefix(current).is_some_and(|rest| rest.starts_with('.'));
    let (half_packed, old): (Vec<_>, Vec<_>) = files.keys().filter(own).partition(|name| name.ends_with(PACKING));
    let mut steps: Vec<Step> = half_packed.into_iter().map(|name| Step::Remove(name.clone())).collect();
    // With the new log and the one that is set aside now there are to be no more than allowed; names sort by time.
    let too_many = (old.len() + 2).saturating_sub(MAX_FILES);
    steps.extend(old.iter().take(too_many).map(|name| Step::Remove((*name).clone())));
    let kept = old.iter().skip(too_many).filter(|name| !name.ends_with(PACKED));
    steps.extend(kept.map(|name| Step::Pack((*name).clone())));
    steps.push(Step::SetAside(current.to_owned(), format!("{current}.{stamp}")));
    steps
}

/// Looks at all logs from time to time, for ever.
pub(super) async fn run(ctx: Arc<Context>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let folder = ctx.data_dir.join("logs");
        let grown = tokio::task::spawn_blocking(move || grown(&folder)).await.unwrap_or_default();
        for log in grown {
            if let Err(e) = rotate(&ctx, &log).await {
                tracing::warn!(log = %log.display(), error = %e, "a log cannot be set aside");
            }
        }
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = fs::DirEntry> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}

/// The logs that are too large: `POD/CONTAINER/TRY.log`.
fn grown(folder: &Path) -> Vec<PathBuf> {
    let containers = entries(folder).flat_map(|pod| entries(&pod.path()));
    let logs = containers.flat_map(|container| entries(&container.path()));
    let large = logs.filter(|log| log.metadata().is_ok_and(|found| found.len() > MAX_BYTES));
    large.map(|log| log.path()).filter(|path| path.extension().is_some_and(|end| end == "log")).collect()
}

async fn rotate(ctx: &Context, log: &Path) -> io::Result<()> {
    let (Some(folder), Some(current)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let sizes =
        entries(folder).filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?.len())));
    let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    for step in plan(&sizes.collect(), current, &stamp) {
        match step {
            Step::Remove(name) => fs::remove_file(folder.join(name))?,
            Step::Pack(name) => {
                let path = folder.join(name);
                tokio::task::spawn_blocking(move || pack(&path)).await.map_err(io::Error::other)??;
            }
            Step::SetAside(from, to) => {
                fs::rename(folder.join(&from), folder.join(&to))?;
                if let Err(e) = reopen(ctx, log).await {
                    // The runtime writes on to the file that was set aside: it gets its name back.
                    fs::rename(folder.join(to), folder.join(from))?;
                    return Err(io::Error::other(e));
                }
            }
        }
    }
    Ok(())
}

fn pack(path: &Path) -> io::Result<()> {
    let name = path.display().to_string();
    let packing = format!("{name}{PACKED}{PACKING}");
    let mut encoder = GzEncoder::new(File::create(&packing)?, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&packing, format!("{name}{PACKED}"))?;
    fs::remove_file(path)
}

/// Tells the runtime of the running container that writes this log to open it anew.
async fn reopen(ctx: &Context, log: &Path) -> Result<(), String> {
    let Some((uid, container, attempt)) = owner(log) else { return Err("its path names no container".to_owned()) };
    let filter = ContainerFilter {
        state: Some(ContainerStateValue { state: ContainerState::ContainerRunning.into() }),
        label_selector: [(POD_UID.to_owned(), uid), (CONTAINER_NAME.to_owned(), container)].into(),
        ..ContainerFilter::default()
    };
    for runtime in ctx.runtimes.all() {
        let request = ListContainersRequest { filter: Some(filter.clone()) };
        let listed = runtime.cri.list_containers(request).await.map_err(|e| e.to_string())?.containers;
        let this = listed.into_iter().find(|item| item.metadata.as_ref().is_some_and(|m| m.attempt == attempt));
        if let Some(container) = this {
            let request = ReopenContainerLogRequest { container_id: container.id };
            return runtime.cri.reopen_container_log(request).await.map(drop).map_err(|e| e.to_string());
        }
    }
    // The log of a container that has ended is written no more.
    Err("its container does not run".to_owned())
}

/// Pod UID, container and try of a log's path: `NAMESPACE_NAME_UID/CONTAINER/TRY.log`.
fn owner(log: &Path) -> Option<(String, String, u32)> {
    let attempt = log.file_stem()?.to_str()?.parse().ok()?;
    let container = log.parent()?.file_name()?.to_str()?.to_owned();
    let uid = log.parent()?.parent()?.file_name()?.to_str()?.rsplit('_').next()?.to_owned();
    Some((uid, container, attempt))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn files(all: &[(&str, u64)]) -> BTreeMap<String, u64> {
        all.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect()
    }

    #[test]
    fn a_grown_log_is_set_aside_and_old_ones_go() {
        assert_eq!(plan(&files(&[("0.log", MAX_BYTES)]), "0.log", "9"), []);
        let grown = MAX_BYTES + 1;
        let aside = Step::SetAside("0.log".into(), "0.log.9".into());
        assert_eq!(plan(&files(&[("0.log", grown), ("1.log.1", 5)]), "0.log", "9"), std::slice::from_ref(&aside));
        let many = [
            ("0.log", grown),
            ("0.log.1.gz", 1),
            ("0.log.2.gz", 1),
            ("0.log.3.gz", 1),
            ("0.log.4", 1),
            ("0.log.0.gz.tmp", 1),
        ];
        let steps = plan(&files(&many), "0.log", "9");
        let wanted = [
            Step::Remove("0.log.0.gz.tmp".into()),
            Step::Remove("0.log.1.gz".into()),
            Step::Pack("0.log.4".into()),
            aside,
        ];
        assert_eq!(steps, wanted);
    }

    #[test]
    fn a_packed_file_holds_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log.1");
        fs::write(&path, "text".repeat(1000)).unwrap();
        pack(&path).unwrap();
        assert!(!path.exists());
        let mut text = String::new();
        let packed = File::open(dir.path().join("0.log.1.gz")).unwrap();
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(packed), &mut text).unwrap();
        assert_eq!(text, "text".repeat(1000));
    }

    #[test]
    fn paths_name_containers() {
        let path = Path::new("/x/logs/n_p_u-1/main/3.log");
        assert_eq!(owner(path), Some(("u-1".into(), "main".into(), 3)));
        assert_eq!(owner(Path::new("/x/logs/n_p_u/main/x.log")), None);
    }
}
