//! The tools that skiff brings to a component's container, for `kubectl exec`, `kubectl cp`, probes and hooks: small
//! ones in the manner of the programs they are named after, all in one component that goes by its first argument.

mod archive;
mod files;
mod net;

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What a tool answers: its exit code, or what went wrong.
type Outcome = Result<u8, String>;

/// The exit code of a command that is used wrongly or not there.
const MISUSED: u8 = 2;
const NOT_FOUND: u8 = 127;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().collect();
    let name = args.first().and_then(|name| name.rsplit('/').next()).unwrap_or_default();
    let rest = args.get(1..).unwrap_or_default();
    let outcome = match name {
        "cat" => files::cat(rest),
        "date" => date(),
        "echo" => echo(rest),
        "env" | "printenv" => environment(rest),
        "false" => Ok(1),
        "head" => files::head(rest),
        "hostname" => hostname(),
        "ls" => files::ls(rest),
        "mkdir" => files::mkdir(rest),
        "nc" => net::nc(rest),
        "nslookup" => net::nslookup(rest),
        "pwd" => print(&env::var("PWD").unwrap_or_else(|_| "/".into())),
        "rm" => files::rm(rest),
        "sleep" => sleep(rest),
        "tar" => archive::tar(rest),
        "test" => files::test(rest),
        "true" => Ok(0),
        "wc" => files::wc(rest),
        "wget" => net::wget(rest),
        _ => Ok(NOT_FOUND),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("{name}: {why}");
            ExitCode::from(1)
        }
    }
}

/// Prints a line. That nobody reads it is an error, not a panic.
fn print(line: &str) -> Outcome {
    writeln!(io::stdout(), "{line}").map_err(|error| error.to_string())?;
    Ok(0)
}

fn echo(args: &[String]) -> Outcome {
    match args.split_first() {
        Some((first, rest)) if first == "-n" => {
            write!(io::stdout(), "{}", rest.join(" ")).map_err(|error| error.to_string())?;
            Ok(0)
        }
        _ => print(&args.join(" ")),
    }
}

fn environment(names: &[String]) -> Outcome {
    if names.is_empty() {
        for (name, value) in env::vars() {
            print(&format!("{name}={value}"))?;
        }
        return Ok(0);
    }
    let mut code = 0;
    for name in names {
        match env::var(name) {
            Ok(value) => drop(print(&value)?),
            Err(_) => code = 1,
        }
    }
    Ok(code)
}

fn hostname() -> Outcome {
    print(&env::var("HOSTNAME").map_err(|_| "HOSTNAME is not set".to_owned())?)
}

fn sleep(args: &[String]) -> Outcome {
    let seconds: f64 = args.first().and_then(|text| text.trim_end_matches('s').parse().ok()).ok_or("how long?")?;
    thread::sleep(Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?);
    Ok(0)
}

/// The time in UTC, as RFC 3339 writes it.
fn date() -> Outcome {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (since / 86400, since % 86400);
    // Days from a March on, in which the leap day comes last (a calendar of 400 years).
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    print(&format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}
