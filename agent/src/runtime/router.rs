//! Which runtime serves a pod, by the handler of its RuntimeClass.

use std::{collections::BTreeMap, sync::Arc};

use super::Cri;

/// The node's runtimes by the handlers that each serves.
#[derive(Clone)]
pub struct Runtimes {
    all: Vec<Arc<dyn Cri>>,
    by_handler: BTreeMap<String, usize>,
}

impl Runtimes {
    /// The runtimes with their handlers.
    pub fn new(runtimes: Vec<(Arc<dyn Cri>, Vec<String>)>) -> Self {
        let mut by_handler = BTreeMap::new();
        let mut all = vec![];
        for (at, (runtime, handlers)) in runtimes.into_iter().enumerate() {
            all.push(runtime);
            for handler in handlers {
                by_handler.entry(handler).or_insert(at);
            }
        }
        Self { all, by_handler }
    }

    /// The runtime of a handler; `""` is that of pods without a RuntimeClass.
    pub fn of(&self, handler: &str) -> Option<Arc<dyn Cri>> {
        self.by_handler.get(handler).and_then(|at| self.all.get(*at)).cloned()
    }

    /// All runtimes.
    pub fn all(&self) -> &[Arc<dyn Cri>] {
        &self.all
    }

    /// All handlers.
    pub fn handlers(&self) -> impl Iterator<Item = &str> {
        self.by_handler.keys().map(String::as_str)
    }
}
