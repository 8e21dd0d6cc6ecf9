//! `/version`.

use serde_json::{Value, json};

/// What `kubectl version` shows of the server.
#[derive(Clone, Debug)]
pub struct Version {
    /// The version of skiff, which follows the one of Kubernetes: `v1.36.2+skiff1`.
    pub git_version: String,
    /// The commit that it was built from.
    pub git_commit: String,
    /// When it was built, RFC 3339.
    pub build_date: String,
}

/// The Kubernetes release whose API is served.
pub const KUBERNETES: &str = "v1.36.2";

impl Default for Version {
    fn default() -> Self {
        Self {
            git_version: format!("{KUBERNETES}+skiff1"),
            git_commit: String::new(),
            build_date: "1970-01-01T00:00:00Z".to_owned(),
        }
    }
}

impl Version {
    /// The document.
    pub fn to_json(&self) -> Value {
        let mut numbers = self.git_version.trim_start_matches('v').split('.');
        let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        json!({
            "major": major,
            "minor": minor,
            "emulationMajor": major,
            "emulationMinor": minor,
            "minCompatibilityMajor": major,
            "minCompatibilityMinor": minor.parse::<u32>().map(|n| n.saturating_sub(1).to_string()).unwrap_or_default(),
            "gitVersion": self.git_version,
            "gitCommit": self.git_commit,
            "gitTreeState": "clean",
            "buildDate": self.build_date,
            "goVersion": "none (Rust)",
            "compiler": "rustc",
            "platform": platform(),
        })
    }
}

/// The platform in Go's words.
fn platform() -> String {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{machine}", std::env::consts::OS)
}
