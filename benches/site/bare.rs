//! The bare commands that gridgate is compared with: the same kernels with the same words, in a network namespace with the
//! same cables. A console is a file here: nothing is cheaper, and nobody can read along or type.

use gridgate::backend::spec::{Engine, Spec};

/// Starts the guests of the file `guests` in its first argument, a directory that is given to nobody else.
pub const START: &str = r#"
set -eu
cd "$1"
ip link set lo up
ip link add br0 type bridge
ip link set br0 up
mkfifo never
exec 3<>never
while read -r name kernel memory disk mac; do
    mkdir -p "uml-$name"
    ip tuntap add "tap-$name" mode tap
    ip link set "tap-$name" master br0 up
    HOME=$PWD TMPDIR=/dev/shm "$kernel" "mem=${memory}M" "ubd0s=$disk" root=/dev/ubda rw con0=fd:0,fd:1 con=null ssl=null \
        seccomp=auto "umid=$name" "uml_dir=$PWD/uml-$name/" "vec0:transport=tap,ifname=tap-$name,mac=$mac" \
        <&3 >"$name.log" 2>&1 &
    echo $! >"$name.pid"
done <guests
"#;

/// Ends when all of them have said "login:".
pub const PROMPTS: &str = r#"
for log in *.log; do
    until grep -q ' login: $' "$log"; do sleep 0.01; done
done
"#;

/// A guest's line in the file.
pub fn line(spec: &Spec) -> String {
    let (kernel, disk) = (kernel(spec).display(), spec.disk.display());
    format!("{} {kernel} {} {disk} {}\n", spec.guest, spec.memory_bytes.mib(), spec.mac)
}

/// What runs the guest.
pub fn kernel(spec: &Spec) -> &std::path::Path {
    let Engine::Uml { kernel } = &spec.engine else { panic!("{} is no user-mode Linux", spec.guest) };
    kernel
}
