//! Which runtime serves a pod, by the handler of its RuntimeClass.

use std::{collections::BTreeMap, sync::Arc};

use super::Cri;
use crate::PodNetwork;

/// A runtime of the node.
#[derive(Clone)]
pub struct Runtime {
    /// Its calls.
    pub cri: Arc<dyn Cri>,
    /// Its name, the scheme of container IDs.
    pub name: String,
    /// The handlers that it serves; `""` is that of pods without a RuntimeClass.
    pub handlers: Vec<String>,
    /// How its pods get their addresses.
    pub network: PodNetwork,
}

/// The node's runtimes by the handlers that each serves.
#[derive(Clone)]
pub struct Runtimes {
    all: Vec<Runtime>,
    by_handler: BTreeMap<String, usize>,
}

impl Runtimes {
    /// The runtimes; of two that serve one handler the first gets it.
    pub fn new(all: Vec<Runtime>) -> Self {
        let mut by_handler = BTreeMap::new();
        for (at, runtime) in all.iter().enumerate() {
            for handler in &runtime.handlers {
                by_handler.entry(handler.clone()).or_insert(at);
            }
        }
        Self { all, by_handler }
    }

    /// The runtime of a handler; `""` is that of pods without a RuntimeClass.
    pub fn of(&self, handler: &str) -> Option<&Runtime> {
        self.by_handler.get(handler).and_then(|at| self.all.get(*at))
    }

    /// All runtimes.
    pub fn all(&self) -> &[Runtime] {
        &self.all
    }

    /// All handlers.
    pub fn handlers(&self) -> impl Iterator<Item = &str> {
        self.by_handler.keys().map(String::as_str)
    }
}
