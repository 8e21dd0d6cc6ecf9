//! How a session tells its end, on its error stream.

use serde_json::json;

use crate::{
    error::{Failure, chain},
    run::Exit,
};

/// The form that a protocol's version has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A `Status`, from version 4 on; also where all went well.
    Json,
    /// Only what went wrong, as a text.
    Text,
}

impl Form {
    /// All went well.
    pub(super) fn success(self) -> String {
        match self {
            Self::Json => json!({"metadata": {}, "status": "Success"}).to_string(),
            Self::Text => String::new(),
        }
    }

    /// A command ended so.
    pub(super) fn exit(self, exit: &Exit) -> String {
        if exit.code == 0 {
            return self.success();
        }
        let message = format!("command terminated with non-zero exit code: exit status {}", exit.code);
        match self {
            Self::Json => json!({
                "metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": exit.code.to_string()}]},
            })
            .to_string(),
            Self::Text => message,
        }
    }

    /// It did not come to that.
    pub(super) fn failure(self, failure: &Failure) -> String {
        let message = format!("Internal error occurred: {}", chain(failure));
        match self {
            Self::Json => json!({
                "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError",
                "details": {"causes": [{"message": chain(failure)}]}, "code": 500,
            })
            .to_string(),
            Self::Text => message,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;
    use serde_json::Value;

    #[test]
    fn ends_are_told_as_clients_read_them() {
        assert_eq!(Form::Text.exit(&Exit::code(0)), "");
        assert!(Form::Text.exit(&Exit::code(3)).ends_with("exit status 3"));
        let status: Value = serde_json::from_str(&Form::Json.exit(&Exit::code(0))).unwrap();
        assert_eq!(status["status"], "Success");
        let status: Value = serde_json::from_str(&Form::Json.exit(&Exit::code(3))).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        let failure = Form::Json.failure(&Failure::Failed("no such thing".into()));
        let status: Value = serde_json::from_str(&failure).unwrap();
        assert_eq!(status["message"], "Internal error occurred: no such thing");
    }
}
