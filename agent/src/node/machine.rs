//! What the machine is and has, read once at the start.

use std::{fs, path::Path};

use nix::sys::statvfs::statvfs;

/// What the machine is and has.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// CPUs.
    pub cpus: usize,
    /// Memory in KiB.
    pub memory_kib: u64,
    /// The size of the file system that holds the agent's folder, in bytes.
    pub disk_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The distribution's name.
    pub os_image: String,
    /// `/etc/machine-id`
    pub machine_id: String,
    /// The firmware's UUID, or the machine id.
    pub system_uuid: String,
    /// The kernel's id of this boot.
    pub boot_id: String,
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

impl Machine {
    /// Reads what the machine is; what cannot be read is left empty.
    pub fn read(folder: &Path) -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_kib: total.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0),
            disk_bytes: statvfs(folder).map_or(0, |stat| stat.blocks() * stat.fragment_size()),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: pretty.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned()),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
        }
    }
}
