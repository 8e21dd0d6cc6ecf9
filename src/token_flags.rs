//! The flags that give the server token, shared by the commands that need one.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Names are k3s's.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct TokenFlags {
    /// The server token: what seals snapshots and what further servers join with. By default the one in server/token,
    /// which the first start makes.
    #[arg(long, short, env = "SKIFF_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// A file that holds the server token.
    #[arg(long, value_name = "FILE", env = "SKIFF_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

impl TokenFlags {
    /// The token that the operator gives, if any.
    pub(crate) fn given(&self) -> Result<Option<String>> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file);
                text.map(Some).with_context(|| format!("reading the server token from {}", file.display()))
            }
            (None, None) => Ok(None),
        }
    }
}
