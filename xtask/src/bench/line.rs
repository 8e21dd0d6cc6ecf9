//! A measured value beside what was promised.

/// One row of what is printed.
pub(super) struct Line {
    what: String,
    measured: f64,
    /// What was promised, where anything was.
    target: Option<Target>,
    unit: &'static str,
}

enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Line {
    /// More is better.
    pub(super) fn at_least(target: f64, what: impl Into<String>, measured: f64, unit: &'static str) -> Self {
        Self { target: Some(Target::AtLeast(target)), ..Self::told(what, measured, unit) }
    }

    /// Less is better.
    pub(super) fn at_most(target: f64, what: impl Into<String>, measured: f64, unit: &'static str) -> Self {
        Self { target: Some(Target::AtMost(target)), ..Self::told(what, measured, unit) }
    }

    /// Nothing was promised.
    pub(super) fn told(what: impl Into<String>, measured: f64, unit: &'static str) -> Self {
        Self { what: what.into(), measured, target: None, unit }
    }

    /// The head of the table.
    pub(super) fn print_head() {
        println!("{:<58} {:>11} {:>9}", "", "measured", "target");
    }

    pub(super) fn print(&self) {
        let Self { what, measured, target, unit } = self;
        let (target, verdict) = match target {
            None => (String::new(), ""),
            Some(Target::AtLeast(target)) => (target.to_string(), verdict(measured >= target)),
            Some(Target::AtMost(target)) => (target.to_string(), verdict(measured <= target)),
        };
        println!("{what:<58} {measured:>11.2} {target:>9} {unit:<6} {verdict}");
    }
}

fn verdict(kept: bool) -> &'static str {
    if kept { "ok" } else { "falls short" }
}
