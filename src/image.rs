//! `skiff image import|list|remove`: images of this machine's node, without a registry.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;
use skiff_wasm::images::Store;

/// The options of the command.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The cluster's folder, as given to `skiff dev` or `skiff server`.
    #[arg(long, short, global = true, env = "SKIFF_DATA_DIR")]
    data_dir: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Imports a component (.wasm) or an OCI archive (.tar).
    Import {
        /// The file.
        file: PathBuf,
        /// What the image is to be called; without, the file's name, or the names in the archive.
        #[arg(long)]
        name: Option<String>,
    },
    /// Lists what is there.
    #[command(alias = "ls")]
    List,
    /// Removes images by name or digest.
    #[command(alias = "rm")]
    Remove {
        /// Names or digests.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// Works on the files of the node's image store; a running node sees the change at once.
pub(crate) fn run(args: Args) -> Result<()> {
    let data_dir = args.data_dir.map_or_else(crate::cluster::found_data_dir, Ok)?;
    let root = crate::cluster::wasm_root(&data_dir);
    let store = Store::open(&root).with_context(|| format!("opening the image store of {}", data_dir.display()))?;
    match args.command {
        Command::Import { file, name } => {
            let imported =
                store.import(&file, name.as_deref()).with_context(|| format!("importing {}", file.display()))?;
            for image in imported.images {
                println!("{} {}", image.reference, image.manifest);
            }
        }
        Command::List => {
            println!("{:<56} {:<19} SIZE", "IMAGE", "DIGEST");
            for image in store.list()? {
                let digest = image.id.chars().take(19).collect::<String>();
                for name in &image.tags {
                    println!("{name:<56} {digest} {}", image.entry.size);
                }
            }
        }
        Command::Remove { names } => {
            for name in names {
                for image in store.remove(&name).with_context(|| format!("removing {name}"))? {
                    println!("removed {}", image.reference);
                }
            }
        }
    }
    Ok(())
}
