//! `skiff snapshot save|list|status|restore|prune|delete`: backup and restore.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};
use skiff_server::{
    admin::Admin,
    seal::Stretch,
    snapshot::{
        self, Header, Request, Saved, Source, folder,
        folder::Found,
        restore::{self, Restored},
        service,
    },
    token::{self, Token},
};

use crate::{
    cluster::{found_data_dir, lock, runtime, try_lock},
    datastore_flags::DatastoreFlags,
    node::host_name,
    output::{Format, age, size, table},
    token_flags::TokenFlags,
};

/// How long a running server may take for a snapshot.
const SAVE_PATIENCE: Duration = Duration::from_secs(30 * 60);

/// How many of each name are kept by default, as k3s keeps.
pub(crate) const RETENTION: usize = 5;

/// The options of the command.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The cluster's folder, as given to `skiff dev` or `skiff server`.
    #[arg(long, short, global = true, env = "SKIFF_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where snapshots are kept; by default server/snapshots in the cluster's folder.
    #[arg(long, global = true, value_name = "FOLDER", env = "SKIFF_SNAPSHOT_DIR")]
    snapshot_dir: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Saves the cluster as it is now; the server may run.
    Save {
        /// What the snapshot is for; part of its name.
        #[arg(long, default_value = folder::ON_DEMAND)]
        name: String,
        /// This host's name, where no server runs that knows it; by default the host's.
        #[arg(long, env = "SKIFF_NODE_NAME")]
        node_name: Option<String>,
        #[command(flatten)]
        at: At,
        /// How to print it.
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
    /// Lists the snapshots that are there, the newest first.
    #[command(alias = "ls")]
    List {
        /// How to print them.
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
    /// Says what a snapshot is, and whether it is whole.
    Status {
        /// Its file, or its name in the folder.
        snapshot: String,
        #[command(flatten)]
        token: TokenFlags,
        /// How to print it.
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
    /// Makes the cluster what it was; no server of it must run. What was there is moved aside.
    Restore {
        /// The snapshot's file, or its name in the folder.
        snapshot: String,
        #[command(flatten)]
        at: At,
    },
    /// Removes all but the newest of each name.
    Prune {
        /// Only those of this name, e.g. scheduled.
        #[arg(long)]
        name: Option<String>,
        /// How many are kept.
        #[arg(long, env = "SKIFF_SNAPSHOT_RETENTION", default_value_t = RETENTION)]
        snapshot_retention: usize,
    },
    /// Removes snapshots.
    #[command(alias = "rm")]
    Delete {
        /// Their files, or their names in the folder.
        #[arg(required = true)]
        snapshots: Vec<String>,
    },
}

/// The cluster's secret, and where its objects are.
#[derive(clap::Args)]
struct At {
    #[command(flatten)]
    token: TokenFlags,
    #[command(flatten)]
    datastore: DatastoreFlags,
}

/// Where things are.
struct Places {
    data_dir: PathBuf,
    server_dir: PathBuf,
    folder: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<()> {
    let data_dir = std::path::absolute(args.data_dir.map_or_else(found_data_dir, Ok)?)?;
    let server_dir = data_dir.join("server");
    let folder = args.snapshot_dir.unwrap_or_else(|| server_dir.join(snapshot::FOLDER));
    let places = Places { data_dir, server_dir, folder };
    match args.command {
        Command::Save { name, node_name, at, output } => {
            let node = node_name.map_or_else(host_name, Ok)?;
            runtime()?.block_on(save(&places, &name, node, &at, output))
        }
        Command::List { output } => list(&places, output),
        Command::Status { snapshot, token, output } => status(&places, &snapshot, &token, output),
        Command::Restore { snapshot, at } => runtime()?.block_on(restore_snapshot(&places, &snapshot, &at)),
        Command::Prune { name, snapshot_retention } => {
            let removed = folder::prune(&places.folder, name.as_deref(), None, snapshot_retention)?;
            removed.iter().for_each(|one| println!("removed {}", one.path.display()));
            Ok(())
        }
        Command::Delete { snapshots } => {
            for named in snapshots {
                let path = folder::find(&places.folder, &named);
                // So that nobody removes something else by mistake.
                snapshot::glance(&path)?;
                folder::remove(&path)?;
                println!("removed {}", path.display());
            }
            Ok(())
        }
    }
}

/// The token that is given, or the one that the server's folder keeps.
fn token_of(places: &Places, flags: &TokenFlags) -> Result<Option<Token>> {
    match flags.given()? {
        Some(given) => Ok(Some(Token::parse(&given)?)),
        None => Ok(Token::read(&token::path(&places.server_dir))?),
    }
}

async fn save(places: &Places, name: &str, node: String, at: &At, output: Format) -> Result<()> {
    folder::check_name(name)?;
    let (path, header) = match try_lock(&places.data_dir)? {
        // It is held until the snapshot is made: no server starts meanwhile.
        Some(_lock) => save_at_rest(places, name, node, at).await?,
        None => save_running(places, name).await?,
    };
    match output {
        Format::Json => println!("{:#}", json!({"path": path, "header": header})),
        Format::Table => {
            let counts = format!("{} objects at revision {}", header.objects, header.revision);
            println!("saved {} ({counts})", path.display());
        }
    }
    Ok(())
}

/// Asks the server that runs.
async fn save_running(places: &Places, name: &str) -> Result<(PathBuf, Header)> {
    let path = format!("{}?name={name}", service::PATH);
    let asked = async { Admin::of(&places.server_dir)?.post(&path, SAVE_PATIENCE).await };
    let answer = asked.await.context("asking the running server for a snapshot")?;
    let told: Value = serde_json::from_slice(&answer).context("reading the server's answer")?;
    let header = serde_json::from_value(told["header"].clone()).context("reading the server's answer")?;
    Ok((told["path"].as_str().unwrap_or_default().into(), header))
}

/// Reads the datastore of a server that does not run.
async fn save_at_rest(places: &Places, name: &str, node: String, at: &At) -> Result<(PathBuf, Header)> {
    restore::finish_interrupted(&places.server_dir)?;
    let no_token = || format!("{} has no server token: give --token", places.server_dir.display());
    let token = token_of(places, &at.token)?.with_context(no_token)?;
    let source = Source::at_rest(&at.datastore.datastore()?, &places.server_dir).await?;
    let request = Request {
        folder: places.folder.clone(),
        name: name.to_owned(),
        node,
        created: Timestamp::now(),
        secret: token.secret().to_owned(),
        stretch: Stretch::new(token::random()?),
    };
    let saved = snapshot::save(&source, &request).await;
    source.store.close().await.context("closing the datastore")?;
    let Saved { path, header } = saved?;
    Ok((path, header))
}

fn list(places: &Places, output: Format) -> Result<()> {
    let found = folder::list(&places.folder)?;
    if output == Format::Json {
        let all: Vec<Value> = found.iter().map(as_json).collect();
        println!("{:#}", Value::from(all));
        return Ok(());
    }
    let mut rows = vec![["NAME", "SIZE", "AGE", "REVISION", "OBJECTS", "NODE", "STATE"].map(str::to_owned)];
    for one in &found {
        let (name, bytes) = (one.file_name(), size(one.size_bytes));
        rows.push(match &one.header {
            Ok((header, whole)) => {
                let state = if *whole { "" } else { "truncated or altered" };
                let (revision, objects) = (header.revision.to_string(), header.objects.to_string());
                [name, bytes, age(header.created), revision, objects, header.node.clone(), state.to_owned()]
            }
            Err(problem) => [name, bytes, String::new(), String::new(), String::new(), String::new(), problem.clone()],
        });
    }
    print!("{}", table(&rows));
    Ok(())
}

fn as_json(found: &Found) -> Value {
    let mut value = json!({"path": found.path, "sizeBytes": found.size_bytes});
    match &found.header {
        Ok((header, whole)) => {
            value["header"] = json!(header);
            value["whole"] = json!(whole);
        }
        Err(problem) => value["error"] = json!(problem),
    }
    value
}

fn status(places: &Places, named: &str, flags: &TokenFlags, output: Format) -> Result<()> {
    let path = folder::find(&places.folder, named);
    let header = snapshot::glance(&path)?;
    let (verified, outcome) = match token_of(places, flags)? {
        Some(token) => ("whole, verified with the server token", snapshot::verify(&path, token.secret())),
        None => ("whole; not verified, for want of the server token", snapshot::status(&path)),
    };
    let state = outcome.as_ref().map_or_else(|error| snapshot::explain(error), |_| verified.to_owned());
    match output {
        Format::Json => println!("{:#}", json!({"path": path, "header": header, "state": state})),
        Format::Table => print!("{}", describe(&path, &header, &state)),
    }
    match outcome {
        Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn describe(path: &Path, header: &Header, state: &str) -> String {
    let lines = [
        ["File:".to_owned(), path.display().to_string()],
        ["State:".to_owned(), state.to_owned()],
        ["Name:".to_owned(), header.name.clone()],
        ["Node:".to_owned(), header.node.clone()],
        ["Created:".to_owned(), format!("{} ({} ago)", header.created, age(header.created))],
        ["Revision:".to_owned(), header.revision.to_string()],
        ["Objects:".to_owned(), header.objects.to_string()],
        ["Files:".to_owned(), format!("{} (certificates and keys)", header.files)],
        ["Datastore:".to_owned(), header.datastore.clone()],
        ["Made by:".to_owned(), format!("skiff {}, Kubernetes {}", header.skiff, header.kubernetes)],
        ["Cluster:".to_owned(), format!("K10{}", header.authority)],
        ["SHA-256:".to_owned(), header.body_sha256.clone()],
    ];
    table(&lines)
}

async fn restore_snapshot(places: &Places, named: &str, at: &At) -> Result<()> {
    let path = folder::find(&places.folder, named);
    let Some(token) = token_of(places, &at.token)? else {
        bail!(
            "there is no server token in {}: give the one that the snapshot was made with, --token or --token-file",
            places.server_dir.display()
        );
    };
    snapshot::glance(&path)?;
    std::fs::create_dir_all(&places.data_dir)
        .with_context(|| format!("making the folder {}", places.data_dir.display()))?;
    let _lock = lock(&places.data_dir)?;
    let request = restore::Request {
        snapshot: path.clone(),
        token,
        server_dir: places.server_dir.clone(),
        datastore: at.datastore.datastore()?,
        now: Timestamp::now(),
    };
    let Restored { header, revision, before } = restore::restore(request).await?;
    println!("restored {} objects of {} from {}", header.objects, header.created, path.display());
    println!("revisions go on at {revision}, after {} of the snapshot: clients list again", header.revision);
    if let Some(before) = before {
        println!("what was there before is kept in {}; remove it when all is well", before.display());
    }
    println!("start the server again on {}", places.data_dir.display());
    Ok(())
}
