//! `skiff token create|list|delete|rotate`: what nodes join with. Asks the server that runs on this machine.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};
use skiff_server::{
    admin::Admin,
    join_tokens::{self, Known, NewToken},
    rotate,
    token::authority_hash,
};

use crate::{
    cluster::{found_data_dir, runtime},
    output::{Format, table},
};

/// How long the server may take to change its token.
const ROTATE_PATIENCE: Duration = Duration::from_secs(60);

/// The options of the command. Names are k3s's and kubeadm's.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The cluster's folder, as given to `skiff server`.
    #[arg(long, short, global = true, env = "SKIFF_DATA_DIR")]
    data_dir: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a token that lets nodes join for a while, and prints it.
    Create {
        /// The token, such as abcdef.0123456789abcdef; without, a random one.
        token: Option<String>,
        /// How long it is good, e.g. 1h30m; 0 for ever.
        #[arg(long, default_value = "24h", value_parser = duration)]
        ttl: Duration,
        /// What it is for.
        #[arg(long, default_value = "")]
        description: String,
        /// Prints the command that is typed on the machine that is to join.
        #[arg(long)]
        print_join_command: bool,
    },
    /// Lists the tokens that are there; never their secrets.
    #[command(alias = "ls")]
    List {
        /// How to print them.
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
    /// Deletes tokens: nobody joins with them any more. Nodes that have joined stay.
    #[command(alias = "rm")]
    Delete {
        /// The tokens, or their ids.
        #[arg(required = true)]
        tokens: Vec<String>,
    },
    /// Puts a new server token in the place of the one in server/token, and prints it.
    Rotate,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<()> {
    let data_dir = std::path::absolute(args.data_dir.map_or_else(found_data_dir, Ok)?)?;
    let admin = Admin::of(&data_dir.join("server"))?;
    runtime()?.block_on(async {
        match args.command {
            Command::Create { token, ttl, description, print_join_command } => {
                let token =
                    token.map_or_else(|| NewToken::random().map_err(Into::into), |text| NewToken::parse(&text))?;
                create(&admin, &token, ttl, &description, print_join_command).await
            }
            Command::List { output } => {
                print!("{}", shown(&join_tokens::list(&admin.client()).await?, output, Timestamp::now()));
                Ok(())
            }
            Command::Delete { tokens } => {
                for named in tokens {
                    println!("deleted {}", join_tokens::delete(&admin.client(), &named).await?);
                }
                Ok(())
            }
            Command::Rotate => rotate(&admin).await,
        }
    })
}

async fn create(admin: &Admin, token: &NewToken, ttl: Duration, description: &str, join: bool) -> Result<()> {
    let client = admin.client();
    let ttl = Some(ttl).filter(|ttl| !ttl.is_zero());
    token.create(&client, description, ttl, Timestamp::now()).await?;
    let full = token.full(&authority_hash(&admin.server_ca));
    if !join {
        println!("{full}");
        return Ok(());
    }
    let url = join_tokens::server_url(&client).await?.context("the cluster does not say where its servers are")?;
    println!("skiff agent --server {url} --token {full}");
    Ok(())
}

async fn rotate(admin: &Admin) -> Result<()> {
    let answer = admin.post(rotate::PATH, ROTATE_PATIENCE).await.context("asking the running server")?;
    let told: Value = serde_json::from_slice(&answer).context("reading the server's answer")?;
    println!("{}", told["token"].as_str().context("reading the server's answer")?);
    eprintln!(
        "skiff: keep it: snapshots from now on open only with it, and earlier ones only with the one before. Start \
         other servers, and this one where it is given --token, with the new one"
    );
    Ok(())
}

fn shown(tokens: &[Known], output: Format, now: Timestamp) -> String {
    if output == Format::Json {
        let one = |token: &Known| {
            json!({"id": token.id, "expires": token.expires.map(|end| end.to_string()), "usages": token.usages,
                "description": token.description})
        };
        return format!("{:#}\n", Value::from(tokens.iter().map(one).collect::<Vec<_>>()));
    }
    let mut rows = vec![["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION"].map(str::to_owned)];
    rows.extend(tokens.iter().map(|token| {
        let left = token.expires.map_or_else(|| "<forever>".to_owned(), |end| left(end, now));
        let expires = token.expires.map_or_else(|| "<never>".to_owned(), |end| end.to_string());
        [token.id.clone(), left, expires, token.usages.join(","), token.description.clone()]
    }));
    table(&rows)
}

/// How long until a time, as kubeadm says it.
fn left(end: Timestamp, now: Timestamp) -> String {
    match end.duration_since(now).as_secs() {
        ..=0 => "<expired>".to_owned(),
        seconds @ ..60 => format!("{seconds}s"),
        seconds @ ..3_600 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3_600),
    }
}

/// A duration as Go writes it: `24h`, `1h30m`, `90s`, `0`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "it must be a duration such as 24h, 1h30m or 90s, or 0".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0_u64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = match rest.as_bytes()[digits] {
            b'h' => 3_600,
            b'm' => 60,
            b's' => 1,
            _ => return Err(wrong()),
        };
        seconds = number.checked_mul(unit).and_then(|more| seconds.checked_add(more)).ok_or_else(wrong)?;
        rest = &rest[digits + 1..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_secs(seconds)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, seconds) in [("24h", 86_400), ("1h30m", 5_400), ("90s", 90), ("0", 0), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "h", "1", "1d", "-1h", "1h 2m", "99999999999999999999h", "é"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let token = Known {
            id: "abcdef".to_owned(),
            expires: Some("2026-06-01T13:00:00Z".parse().unwrap()),
            usages: vec!["authentication".to_owned()],
            description: String::new(),
        };
        let text = shown(&[token], Format::Table, "2026-06-01T12:30:00Z".parse().unwrap());
        assert!(text.contains("abcdef   30m   2026-06-01T13:00:00Z   authentication"), "{text}");
    }
}
