//! What starts a machine from its disk, by BIOS and by UEFI; pure.
//!
//! The image brings GRUB in both forms, ready to be put on a disk (`images/gateway.toml` says what and where), so that nothing
//! here looks for devices, and the GRUB that starts a machine is always the one of its own system.

use anyhow::{Result, ensure};

use crate::config::host_machine::HostMachine;
use crate::host::disk::SECTOR;

/// In the image: GRUB's first sector, and the rest of it.
pub const BIOS_FILES: [&str; 2] = ["/boot/gridgate/bios/boot.img", "/boot/gridgate/bios/core.img"];
/// In the image: what becomes `EFI` of the EFI system partition.
pub const EFI_DIR: &str = "/boot/gridgate/efi";
/// In the image: kernel and initial ram disk, as Debian links them.
pub const LINUX: [&str; 2] = ["/vmlinuz", "/initrd.img"];
/// Where the signed GRUB of Debian looks for its menu first (its built-in prefix), and where one that was made to look beside
/// itself does.
pub const EFI_MENUS: [&str; 2] = ["EFI/debian/grub.cfg", "EFI/BOOT/grub.cfg"];
/// The menu, in the root filesystem.
pub const MENU: &str = "/boot/grub/grub.cfg";

/// Bytes of the first sector that are code; behind them is the table of partitions of a disk without GPT.
pub const CODE: usize = 440;

/// GRUB's first sector, made to load what begins at `core_at` (`GRUB_BOOT_MACHINE_*` of GRUB's include/grub/i386/pc/boot.h,
/// and `setup()` of its util/setup.c). Gives the part that is code.
pub fn first_sector(image: &[u8], core_at: u64) -> Result<Vec<u8>> {
    const KERNEL_SECTOR: usize = 0x5c;
    const BOOT_DRIVE: usize = 0x64;
    const DRIVE_CHECK: usize = 0x66;
    ensure!(
        image.len() == SECTOR as usize && image.ends_with(&[0x55, 0xaa]),
        "'{}' of the image is no boot sector",
        BIOS_FILES[0]
    );
    let mut code = image[..CODE].to_vec();
    code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&(core_at / SECTOR).to_le_bytes());
    // The drive that the BIOS says it was started from, which some BIOSes get wrong: the check is for disks without a number
    // of a hard disk, and is left out, as GRUB itself does it for hard disks.
    code[BOOT_DRIVE] = 0xff;
    code[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    Ok(code)
}

/// The rest of GRUB, made to be loaded in one piece from `at`: its first sector ends with a list of where the others are
/// (`struct grub_pc_bios_boot_blocklist`: first sector, how many, where to load), of which grub-mkimage leaves the place open.
pub fn core(image: &[u8], at: u64, room: u64) -> Result<Vec<u8>> {
    const LIST: usize = SECTOR as usize - 12;
    let sectors = (image.len() as u64).div_ceil(SECTOR);
    let count =
        image.get(LIST + 8..LIST + 10).map(|bytes| u64::from(u16::from_le_bytes([bytes[0], bytes[1]])));
    ensure!(
        sectors > 1
            && sectors * SECTOR <= room
            && count.is_some_and(|count| count + 1 >= sectors && count <= sectors),
        "'{}' of the image is no core image of GRUB",
        BIOS_FILES[1]
    );
    let mut core = image.to_vec();
    core[LIST..LIST + 8].copy_from_slice(&(at / SECTOR + 1).to_le_bytes());
    core.resize((sectors * SECTOR) as usize, 0);
    Ok(core)
}

/// What GRUB on the EFI system partition reads: where the menu is.
pub fn efi_menu(root_uuid: &str) -> String {
    format!("search.fs_uuid {root_uuid} root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n")
}

/// The menu: the newest kernel, and the one before it.
pub fn menu(host: &HostMachine, root_uuid: &str) -> String {
    let mut words = format!("root=UUID={root_uuid} ro console=tty0");
    let mut serial = String::new();
    if !host.console.is_empty() {
        words.push_str(&format!(" console={}", host.console));
    }
    // A UEFI firmware mirrors its console to the serial line itself.
    if let Some((unit, speed)) = serial_line(&host.console) {
        serial = format!(
            "if [ \"$grub_platform\" = pc ]; then\n  serial --unit={unit} --speed={speed}\n  terminal_input console serial\n  \
             terminal_output console serial\nfi\n"
        );
    }
    if !host.kernel_args.is_empty() {
        words.push_str(&format!(" {}", host.kernel_args));
    }
    let entry = |title: &str, suffix: &str| {
        format!(
            "menuentry '{title}' {{\n  linux /vmlinuz{suffix} {words}\n  initrd /initrd.img{suffix}\n}}\n"
        )
    };
    format!(
        "# Written by gridgate when it made this machine. The links in / lead to the newest kernel and the one before.\n\
         set timeout=3\n{serial}search --no-floppy --fs-uuid --set=root {root_uuid}\n{}if [ -e /vmlinuz.old ]; then\n{}fi\n",
        entry("gateway", ""),
        entry("gateway, previous kernel", ".old"),
    )
}

/// `ttyS1,9600n8` is unit 1 at 9600 baud.
fn serial_line(console: &str) -> Option<(u32, u32)> {
    let (name, speed) = console.split_once(',').unwrap_or((console, "115200"));
    let digits = speed.len() - speed.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    Some((name.strip_prefix("ttyS")?.parse().ok()?, speed[..digits].parse().ok()?))
}

/// fstab(5). The EFI system partition is only looked at when its boot loader is replaced.
pub fn fstab(root_uuid: &str, data: (&str, &str), esp_id: &str) -> String {
    let (data_uuid, data_kind) = data;
    format!(
        "# Written by gridgate when it made this machine.\n\
         UUID={root_uuid} / ext4 errors=remount-ro 0 1\n\
         UUID={data_uuid} /var/lib/gridgate {data_kind} defaults 0 2\n\
         UUID={esp_id} /boot/efi vfat noauto,umask=0077 0 0\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_first_sector_knows_where_the_rest_is_and_keeps_off_the_old_table() {
        let mut image = vec![1; 512];
        image[510..].copy_from_slice(&[0x55, 0xaa]);
        let code = first_sector(&image, 1 << 20).unwrap();
        assert_eq!(code.len(), 440);
        assert_eq!(u64::from_le_bytes(code[0x5c..0x64].try_into().unwrap()), 2048);
        assert!(first_sector(&image[..511], 0).is_err());
    }

    #[test]
    fn the_rest_is_told_that_it_lies_in_one_piece() {
        let mut image = vec![1; 1500];
        image[508..510].copy_from_slice(&2u16.to_le_bytes());
        let core = core(&image, 1 << 20, 1 << 20).unwrap();
        assert_eq!(core.len(), 1536);
        assert_eq!(u64::from_le_bytes(core[500..508].try_into().unwrap()), 2049);
        assert!(super::core(&image, 0, 1024).is_err());
    }

    #[test]
    fn the_menu_names_root_and_console() {
        let mut host = HostMachine::undescribed("gw".parse().unwrap(), "");
        host.kernel_args = "quiet".to_owned();
        let text = menu(&host, "U");
        assert!(
            text.contains("linux /vmlinuz root=UUID=U ro console=tty0 console=ttyS0,115200 quiet\n"),
            "{text}"
        );
        assert!(text.contains("serial --unit=0 --speed=115200\n"), "{text}");
        host.console = String::new();
        assert!(!menu(&host, "U").contains("serial"));
    }

    proptest! {
        #[test]
        fn any_image_is_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2048), at in any::<u64>()) {
            let _ = first_sector(&bytes, at);
            let _ = core(&bytes, at / 2, 1 << 20);
        }

        #[test]
        fn any_console_is_read(text in "\\PC{0,20}") {
            serial_line(&text);
        }
    }
}
