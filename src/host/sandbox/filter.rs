//! System calls that a guest's program has no business with: those that change the machine, its mounts or its namespaces, and
//! those that have been ways out of containers.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Refused whatever their arguments are, with `EPERM`.
const REFUSED: &[libc::c_long] = &[
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_chroot,
    // Files by handle, which no root holds.
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    // Keys belong to users, not to namespaces.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    // The machine's clock and name.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_personality,
];

/// Namespaces that clone(2) would make.
const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Kinds of sockets that are left: a namespace holds all of these, unlike vsock(7), and none has the kernel do work of its
/// own, unlike AF_ALG.
const SOCKETS: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Programs for the kernel, to be installed one after the other: all of them are asked, and the strictest answer holds.
pub(super) fn programs() -> Result<Vec<BpfProgram>> {
    // clone3(2) hides its flags from filters; without it libraries use clone(2).
    let hidden = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok(vec![
        program(refused()?, SeccompAction::Errno(libc::EPERM as u32))?,
        program(hidden, SeccompAction::Errno(libc::ENOSYS as u32))?,
    ])
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn program(rules: Rules, refusal: SeccompAction) -> Result<BpfProgram> {
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, std::env::consts::ARCH.try_into()?);
    Ok(filter.and_then(BpfProgram::try_from)?)
}

fn refused() -> Result<Rules> {
    let mut rules: Rules = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let rule = |conditions| SeccompRule::new(conditions).context("making a filter of system calls");
    let mut clone = Vec::new();
    for bit in (0..31).map(|bit| 1 << bit).filter(|bit| NAMESPACES & bit != 0) {
        let masked = SeccompCmpOp::MaskedEq(bit as u64);
        clone.push(rule(vec![SeccompCondition::new(0, SeccompCmpArgLen::Qword, masked, bit as u64)?])?);
    }
    rules.insert(libc::SYS_clone, clone);
    let other = |kind: &libc::c_int| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *kind as u64)
    };
    let others = SOCKETS.iter().map(other).collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_socket, vec![rule(others)?]);
    // Typing into the terminal of whoever started gridgate (tty_ioctl(4)).
    let ioctl = |request: u64| SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request);
    let requests = [libc::TIOCSTI, libc::TIOCLINUX];
    let requests = requests.iter().map(|request| rule(vec![ioctl(*request)?])).collect::<Result<Vec<_>>>()?;
    rules.insert(libc::SYS_ioctl, requests);
    Ok(rules)
}
