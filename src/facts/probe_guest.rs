//! The smallest guests that prove something: a program that says a word, and a boot sector that says it in 64-bit mode.
//!
//! Both are machine code written out here, so that a probe needs no compiler, no image and no guest kernel.

/// What a probe guest says on its console.
pub(super) const TOKEN: &[u8] = b"gridgate-probe-ok\n";

/// A static x86-64 ELF program that writes [`TOKEN`] to its standard output and exits with 0. As a kernel's init its end
/// is a panic, which ends the machine; a reboot system call would be a danger to the host if ever run by mistake.
pub(super) fn program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let code: [u8; 33] = [
        0x48,
        0x8d,
        0x35,
        0x1a,
        0x00,
        0x00,
        0x00, // lea rsi, [rip + 26]: the token behind the code
        0xba,
        TOKEN.len() as u8,
        0x00,
        0x00,
        0x00, // mov edx, its length
        0xbf,
        0x01,
        0x00,
        0x00,
        0x00, // mov edi, 1
        0xb8,
        0x01,
        0x00,
        0x00,
        0x00, // mov eax, write
        0x0f,
        0x05, // syscall
        0x31,
        0xff, // xor edi, edi
        0xb8,
        0xe7,
        0x00,
        0x00,
        0x00, // mov eax, exit_group
        0x0f,
        0x05, // syscall
    ];
    let len = HEADERS + (code.len() + TOKEN.len()) as u64;
    let mut elf = Vec::new();
    // elf(5): 64 bits, little endian, executable, x86-64, one program header right behind this one.
    elf.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0, 1, 0, 0, 0]);
    elf.extend((BASE + HEADERS).to_le_bytes());
    elf.extend(64u64.to_le_bytes());
    elf.extend([0; 12]);
    elf.extend([64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // One segment, readable and executable: the whole file.
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for field in [0, BASE, BASE, len, len, 0x1000] {
        elf.extend(u64::to_le_bytes(field));
    }
    elf.extend(code);
    elf.extend(TOKEN);
    elf
}

/// An initial ram disk (cpio, "newc") with [`program`] as its `/init`.
pub(super) fn ramdisk() -> Vec<u8> {
    let mut cpio = Vec::new();
    for (name, mode, content) in [("init", 0o100_755, program()), ("TRAILER!!!", 0, Vec::new())] {
        let links = 1;
        let fields = [1, mode, 0, 0, links, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        cpio.extend(b"070701");
        cpio.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
        cpio.extend(name.as_bytes());
        cpio.push(0);
        pad(&mut cpio, 4);
        cpio.extend(&content);
        pad(&mut cpio, 4);
    }
    pad(&mut cpio, 512);
    cpio
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

/// The status with which QEMU ends when [`boot_sector`] has got to its end: its debug device makes `2 * 0x31 + 1` of it.
pub(super) const SECTOR_STATUS: i32 = 99;

/// A floppy's boot sector that sets up paging, goes to 64-bit mode, uses an SSE register, writes [`TOKEN`] to the first
/// serial port and ends QEMU through its debug device. 64-bit mode is the point: there are KVMs that run a BIOS and real
/// mode well and fail at the first instruction after the switch.
pub(super) fn boot_sector() -> Vec<u8> {
    let mut sector: Vec<u8> = vec![
        0xfa, // cli
        0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, // ds = es = ss = 0
        0xbc, 0x00, 0x7c, // sp = 0x7c00
        0xbf, 0x00, 0x10, 0xb9, 0x00, 0x18, 0xfc, 0xf3, 0xab, // zeros at 0x1000 to 0x4000
        0xc7, 0x06, 0x00, 0x10, 0x03, 0x20, // PML4 at 0x1000 -> 0x2000
        0xc7, 0x06, 0x00, 0x20, 0x03, 0x30, // PDPT at 0x2000 -> 0x3000
        0xc7, 0x06, 0x00, 0x30, 0x83, 0x00, // PD at 0x3000: the first 2 MiB
        0x66, 0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x22, 0xd8, // cr3 = 0x1000
        0x66, 0xb8, 0x20, 0x06, 0x00, 0x00, 0x0f, 0x22, 0xe0, // cr4 = PAE, OSFXSR, OSXMMEXCPT
        0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, // rdmsr EFER
        0x66, 0x0d, 0x01, 0x01, 0x00, 0x00, 0x0f, 0x30, // wrmsr EFER with LME and SCE
        0x0f, 0x01, 0x16, 0x8c, 0x7c, // lgdt [0x7c8c]
        0x66, 0xb8, 0x11, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0, // cr0 = PG, ET, PE
        0xea, 0x5c, 0x7c, 0x08, 0x00, // jmp 8:0x7c5c, 64-bit code from here
        0x0f, 0x57, 0xc0, // xorps xmm0, xmm0
        0x48, 0x8d, 0x35, 0x2c, 0x00, 0x00, 0x00, // lea rsi, [rip + 44]: the token
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8, // each byte to the port, up to the zero
        0xb0, 0x31, 0xe6, 0xf4, // out 0xf4, 0x31
        0xf4, 0xeb, 0xfd, // hlt, for ever
        0x0f, 0x1f, 0x00, // to a multiple of four
        0, 0, 0, 0, 0, 0, 0, 0, // the table's first entry
        0, 0, 0, 0, 0, 0x9a, 0x20, 0, // 64-bit code
        0x0f, 0x00, 0x7c, 0x7c, 0x00, 0x00, // the table's length and place
    ];
    sector.extend(TOKEN);
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    // A BIOS reads floppies by whole tracks.
    sector.resize(18 * 512, 0);
    sector
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_program_says_its_word_and_ends_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("probe");
        std::fs::write(&path, program()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let output = std::process::Command::new(&path).output().unwrap();
        assert_eq!(output.stdout, TOKEN);
        assert_eq!(output.status.code(), Some(0));
    }

    #[test]
    fn the_boot_sector_ends_with_its_mark_and_keeps_its_table_where_it_says() {
        let sector = boot_sector();
        assert_eq!(sector[510..512], [0x55, 0xaa]);
        assert_eq!(sector[0x7c..0x8c][13..15], [0x9a, 0x20]);
        assert_eq!(&sector[0x92..0x92 + TOKEN.len()], TOKEN);
    }
}
