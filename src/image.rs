//! `skiff image import|list|remove`: images of this machine's node, without a registry.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use skiff_wasm::images::{ImageError, Store};

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
        Command::Import { file, name } => import(&store, &file, name.as_deref(), &data_dir)?,
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

/// Wasm goes into the Wasm runtime's store, an archive of containers into the node's containerd.
fn import(store: &Store, file: &Path, name: Option<&str>, data_dir: &Path) -> Result<()> {
    let context = || format!("importing {}", file.display());
    match store.import(file, name) {
        Ok(imported) => imported.images.iter().for_each(|image| println!("{} {}", image.reference, image.manifest)),
        Err(ImageError::NotWasm) => {
            let data_dir = std::path::absolute(data_dir)?;
            let names = crate::cluster::runtime()?.block_on(crate::oci::import(file, &data_dir));
            names.with_context(context)?.iter().for_each(|name| println!("{name}"));
        }
        Err(error) => return Err(error).with_context(context),
    }
    Ok(())
}
