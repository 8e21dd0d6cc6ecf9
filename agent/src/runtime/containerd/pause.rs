//! The program that holds a sandbox's namespaces: it does nothing, and lets the kernel reap what is left to it.
//!
//! It must run in an empty root file system on any node, before any registry was reached, so it is made here, byte by
//! byte, instead of being a file that comes from somewhere: an ELF header, one segment, and a dozen instructions.
//!
//! What it does: `rt_sigaction(SIGCHLD, {SIG_IGN}, NULL, 8)`, so that orphans of a shared process namespace leave no
//! zombies (sigaction(2)), then `pause()` for ever. As first process of its namespace it is immune to signals it does
//! not handle, except SIGKILL from outside, which is how containerd ends it; where it is not the first process
//! (`hostPID`), any signal ends it.

/// Where the segment is mapped.
const BASE: u64 = 0x40_0000;
/// The sizes of an ELF64 header and of one program header.
const HEADERS: u64 = 64 + 56;

/// A kind of machine with its code.
struct Machine {
    /// ELF's number for it (`e_machine`).
    elf: u16,
    /// The code, padded to eight bytes; the `sigaction` follows it.
    code: &'static [u8],
}

/// `EM_X86_64`. The `sigaction` is at BASE + 120 + 40 = 0x4000a0.
#[rustfmt::skip]
const AMD64: Machine = Machine { elf: 62, code: &[
    0xb8, 13, 0, 0, 0,              // mov eax, 13 (rt_sigaction)
    0xbf, 17, 0, 0, 0,              // mov edi, 17 (SIGCHLD)
    0xbe, 0xa0, 0x00, 0x40, 0x00,   // mov esi, 0x4000a0
    0x31, 0xd2,                     // xor edx, edx
    0x41, 0xba, 8, 0, 0, 0,         // mov r10d, 8
    0x0f, 0x05,                     // syscall
    0xb8, 34, 0, 0, 0,              // mov eax, 34 (pause)
    0x0f, 0x05,                     // syscall
    0xeb, 0xf7,                     // jmp back to the pause
    0, 0, 0, 0, 0, 0,
] };

/// `EM_AARCH64`, which has no `pause`: `ppoll` of nothing, without end, is the same.
#[rustfmt::skip]
const ARM64: Machine = Machine { elf: 183, code: &[
    0xc8, 0x10, 0x80, 0xd2,         // mov x8, 134 (rt_sigaction)
    0x20, 0x02, 0x80, 0xd2,         // mov x0, 17 (SIGCHLD)
    0x81, 0x01, 0x00, 0x10,         // adr x1, 48 bytes on: the sigaction
    0x02, 0x00, 0x80, 0xd2,         // mov x2, 0
    0x03, 0x01, 0x80, 0xd2,         // mov x3, 8
    0x01, 0x00, 0x00, 0xd4,         // svc 0
    0x28, 0x09, 0x80, 0xd2,         // mov x8, 73 (ppoll)
    0x00, 0x00, 0x80, 0xd2,         // mov x0, 0
    0x01, 0x00, 0x80, 0xd2,         // mov x1, 0
    0x02, 0x00, 0x80, 0xd2,         // mov x2, 0
    0x03, 0x00, 0x80, 0xd2,         // mov x3, 0
    0x01, 0x00, 0x00, 0xd4,         // svc 0
    0xfa, 0xff, 0xff, 0x17,         // b back to the ppoll
    0, 0, 0, 0,
] };

/// The kernel's `struct sigaction`: handler `SIG_IGN` (1), no flags, no restorer, an empty mask.
const IGNORE: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
};

/// The program for a machine (`amd64`, `arm64`); `None` where skiff has no code for it.
pub fn program(architecture: &str) -> Option<Vec<u8>> {
    let machine = match architecture {
        "amd64" => AMD64,
        "arm64" => ARM64,
        _ => return None,
    };
    let size = HEADERS + machine.code.len() as u64 + IGNORE.len() as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend(2_u16.to_le_bytes()); // e_type: ET_EXEC
    elf.extend(machine.elf.to_le_bytes());
    elf.extend(1_u32.to_le_bytes()); // e_version
    elf.extend((BASE + HEADERS).to_le_bytes()); // e_entry
    elf.extend(64_u64.to_le_bytes()); // e_phoff
    elf.extend(0_u64.to_le_bytes()); // e_shoff
    elf.extend(0_u32.to_le_bytes()); // e_flags
    elf.extend([64_u16, 56, 1, 0, 0, 0].into_iter().flat_map(u16::to_le_bytes)); // sizes and counts of headers
    elf.extend(1_u32.to_le_bytes()); // p_type: PT_LOAD
    elf.extend(5_u32.to_le_bytes()); // p_flags: read, execute
    elf.extend([0, BASE, BASE, size, size, 0x1_0000].into_iter().flat_map(u64::to_le_bytes)); // offset ... align
    elf.extend(machine.code);
    elf.extend(IGNORE);
    Some(elf)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::{os::unix::fs::PermissionsExt, process::Command, thread, time::Duration};

    #[test]
    fn the_parts_have_the_lengths_that_the_code_counts_on() {
        assert_eq!((AMD64.code.len(), ARM64.code.len()), (40, 56));
        assert!(program("riscv64").is_none());
        assert_eq!(program("arm64").unwrap().len(), 120 + 56 + 32);
    }

    /// Runs here: it waits, ignores SIGCHLD, and ends by SIGKILL alone.
    #[test]
    fn it_waits() {
        let architecture = crate::node::architecture();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pause");
        std::fs::write(&path, program(architecture).unwrap()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new(&path).spawn().unwrap();
        let ignores = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:").map(str::trim));
            // Bit 16 is SIGCHLD.
            ignored.and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_some_and(|mask| mask & (1 << 16) != 0)
        };
        let seen = (0..3000).any(|_| {
            ignores() || {
                thread::sleep(Duration::from_millis(10));
                false
            }
        });
        assert!(seen && child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
