//! What a guest's serial line carries beside bytes: a break, and the system request after it.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::json;

use super::spec::{Engine, Spec};
use super::{mconsole, qmp, uml};
use crate::console::attach::{Break, Line};

/// The line of a running guest.
#[derive(Debug)]
pub struct SerialLine {
    /// What the guest was started with, if that is still known.
    pub spec: Option<Spec>,
    /// Where its sockets are.
    pub run_dir: PathBuf,
}

impl Line for SerialLine {
    fn send_break(&self) -> Result<Break> {
        match self.spec.as_ref().map(|spec| &spec.engine) {
            Some(Engine::Qemu { .. }) => {
                let socket = self.run_dir.join(super::OWN).join("qmp.sock");
                // The chardev that `qemu.rs` names so.
                qmp::call_with(&socket, "chardev-send-break", &json!({ "id": "console" }))?;
                Ok(Break::Sent)
            }
            // Its line discipline knows no break; its management console takes the request itself.
            Some(Engine::Uml { .. }) => Ok(Break::NextKey),
            Some(Engine::Nspawn) => {
                bail!("a container's terminal knows no break, and its kernel is the host's")
            }
            None => bail!("what the guest was started with is not known any more"),
        }
    }

    fn request(&self, key: char) -> Result<()> {
        let Some(spec) = self.spec.as_ref().filter(|spec| matches!(spec.engine, Engine::Uml { .. })) else {
            bail!("this guest's system requests come over its console")
        };
        if !key.is_ascii_alphanumeric() {
            bail!("a system request is a letter or a digit, h lists them");
        }
        mconsole::call(&uml::socket(spec, &self.run_dir), &format!("sysrq {key}")).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    fn line(engine: Engine, run_dir: PathBuf) -> SerialLine {
        SerialLine { spec: Some(crate::backend::spec::tests::spec(engine)), run_dir }
    }

    #[test]
    fn qemu_is_told_to_send_a_break_on_its_console() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(crate::backend::OWN)).unwrap();
        let listener = UnixListener::bind(dir.path().join(crate::backend::OWN).join("qmp.sock")).unwrap();
        let qemu = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"{\"QMP\":{}}\n").unwrap();
            let mut asked = Vec::new();
            for request in BufReader::new(stream.try_clone().unwrap()).lines().take(2) {
                asked.push(serde_json::from_str::<serde_json::Value>(&request.unwrap()).unwrap());
                stream.write_all(b"{\"return\":{}}\n").unwrap();
            }
            asked
        });
        let line = line(
            Engine::Qemu { kvm: false, kernel: "/k".into(), initrd: "/i".into() },
            dir.path().to_owned(),
        );
        assert_eq!(line.send_break().unwrap(), Break::Sent);
        let asked = qemu.join().unwrap();
        assert_eq!(asked[1], json!({"execute": "chardev-send-break", "arguments": {"id": "console"}}));
    }

    #[test]
    fn a_container_has_no_break_and_says_so() {
        let line = line(Engine::Nspawn, PathBuf::from("/nowhere"));
        assert!(line.send_break().unwrap_err().to_string().contains("knows no break"));
    }
}
