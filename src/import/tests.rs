use std::{fs, path::PathBuf};

use super::*;
use crate::config::{Config, Sources};

/// A directory of its own, deleted at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("ringmq-import-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// What becomes of that file; the result is a configuration without mistakes.
    fn import(&self, text: &str) -> Imported {
        let imported = run(&self.write("mosquitto.conf", text)).unwrap();
        let file = self.write("ringmq.toml", &imported.toml);
        let sources = Sources { file: Some(file), ..Sources::default() };
        if let Err(errors) = Config::load(&sources) {
            panic!("{errors}\n{}", imported.toml);
        }
        imported
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The lines that say something, without the first.
fn said(imported: &Imported) -> String {
    let lines = imported.toml.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn lines_become_keys() {
    let directory = Directory::new("lines");
    directory.write("users", "");
    for (conf, expected) in [
        ("", "ephemeral = true"),
        ("persistence true", ""),
        (
            "persistence true\nport 1884",
            "allow_anonymous = false\n[[listener]]\nurl = \"mqtt://0.0.0.0:1884\"\n[[listener]]\nurl = \"mqtt://[::]:1884\"",
        ),
        (
            "persistence true\nlistener 1883 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 20",
            "allow_anonymous = true\n[limits]\nqueue_messages_max = 4294967295\ninflight_max = 20\n[[listener]]\nurl = \"mqtt://127.0.0.1:1883\"",
        ),
        (
            "persistence true\nlistener 9001 ::1\nprotocol websockets\nwebsockets_origin https://a.example\nallow_anonymous true",
            "allow_anonymous = true\n[[listener]]\nurl = \"ws://[::1]:9001\"\norigins = [\"https://a.example\"]",
        ),
        (
            "persistence true\nlistener 8883\nsocket_domain ipv4\ncafile ca.pem\ncertfile s.pem\nkeyfile s.key\nrequire_certificate true\nuse_identity_as_username true\ncrlfile c.crl\ntls_version tlsv1.3\nallow_anonymous false",
            "allow_anonymous = false\n[[listener]]\nurl = \"mqtts://0.0.0.0:8883\"\ncertificates = [\"s.pem => s.key\"]\nclient_certificates = \"required\"\nclient_ca = \"ca.pem\"\nuser_from = \"cn\"\ncrl = \"c.crl\"\ntls_min = \"1.3\"",
        ),
        (
            "persistence true\nlistener 0 /run/mqtt\nallow_anonymous true\npersistent_client_expiration 2w\nmax_keepalive 60",
            "allow_anonymous = true\n[limits]\nsession_expiry_secs_max = 1209600\nkeep_alive_secs_max = 60\n[[listener]]\nurl = \"unix:/run/mqtt\"",
        ),
        (
            "persistence true\nlog_type all\nlog_type error\nuser root\nset_tcp_nodelay true",
            "log_level = \"debug\"",
        ),
    ] {
        let imported = directory.import(conf);
        assert_eq!(said(&imported), expected, "{conf}");
        assert_eq!(imported.left, Vec::<String>::new(), "{conf}");
    }
}

#[test]
fn what_has_no_counterpart_is_told_with_its_place() {
    let directory = Directory::new("left");
    directory.write(
        "bridge.conf",
        "# away\nconnection b\naddress b.example\ntopic # both\nremote_username me\n",
    );
    directory.write("other.txt", "nonsense");
    let conf = format!(
        "persistence true\nsys_interval 10\nnew_in_version_9 x\"\\\u{1}\nmax_keepalive often\ninclude_dir {}\nuser root\n",
        directory.0.display()
    );
    // Its own name ends in .conf as well, and includes go one level deep.
    let imported = run(&directory.write("mosquitto.cfg", &conf)).unwrap();
    let at = |line: &String| line.rsplit('/').next().unwrap_or_default().to_owned();
    let left: Vec<_> = imported.left.iter().map(at).collect();
    assert_eq!(
        left,
        [
            "mosquitto.cfg:2: sys_interval 10: there are no $SYS topics yet",
            "mosquitto.cfg:3: new_in_version_9 x\"\\\u{1}: there is nothing like it",
            "mosquitto.cfg:4: max_keepalive often: it is no number",
            "bridge.conf:2: connection b: there are no bridges yet",
            "bridge.conf:3: address b.example: there are no bridges yet",
            "bridge.conf:4: topic # both: there are no bridges yet",
            "bridge.conf:5: remote_username me: there are no bridges yet",
        ]
    );
    directory.import(&conf.replace("include_dir", "#"));
    let missing = run(&directory.0.join("missing")).unwrap_err().to_string();
    assert!(missing.contains("missing: No such file"), "{missing}");
}
