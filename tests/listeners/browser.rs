//! MQTT.js in a real browser, Debian's Chromium without a window, over WebSocket with and without TLS.

use std::process::{Child, Command, Stdio};

use crate::common::free_port;
use crate::files::{Files, SERVER};
use crate::packages::packages;

/// A browser that is killed with the test.
struct Browser(Child);

impl Browser {
    fn open(files: &Files, page: &str) -> Self {
        let child = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            // Its CA is not the test's, and a file may not load another without being asked.
            .args(["--ignore-certificate-errors", "--allow-file-access-from-files"])
            .arg(format!("--user-data-dir={}", files.path("profile")))
            .arg(format!("file://{}", files.path(page)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's chromium is installed");
        Self(child)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Subscribes, publishes what is long and what is short at each QoS, and tells at the end.
const PAGE: &str = r#"<!doctype html><script src="mqtt.js"></script><script>
const client = mqtt.connect("URL", { clientId: "browser", protocolVersion: 5 });
const sizes = [0, 1, 125, 126, 65535, 65536, 300000];
let expected = [];
client.on("connect", () => client.subscribe("b/#", { qos: 2 }, () => {
  for (const qos of [0, 1, 2]) for (const size of sizes) {
    expected.push(`b/${qos}/${size}`);
    client.publish(`b/${qos}/${size}`, new Uint8Array(size).fill(size % 251), { qos });
  }
}));
client.on("message", (topic, payload) => {
  const size = Number(topic.split("/")[2]);
  if (payload.length !== size || payload.some((byte) => byte !== size % 251)) return;
  expected = expected.filter((one) => one !== topic);
  if (expected.length === 0) client.publish("browser/done", "all", { qos: 1, retain: true });
});
</script>"#;

#[test]
fn mqtt_js_talks_in_a_browser_over_websocket_with_and_without_tls() {
    for shards in [1, 4] {
        for (scheme, settings) in [("ws", ""), ("wss", SERVER)] {
            let files = Files::new();
            let port = free_port();
            let url = format!("{scheme}://127.0.0.1:{port}");
            let broker =
                files.broker_with(shards, &format!("[[listener]]\nurl = \"{url}\"\n{settings}"));
            let library = packages().join("node_modules/mqtt/dist/mqtt.min.js");
            files
                .write("mqtt.js", &std::fs::read_to_string(library).expect("MQTT.js is installed"));
            files.write("page.html", &PAGE.replace("URL", &format!("{url}/mqtt")));
            let _browser = Browser::open(&files, "page.html");
            let output = Command::new("mosquitto_sub")
                .args(["-p", &broker.port.to_string(), "-t", "browser/done", "-C", "1", "-W", "60"])
                .output()
                .expect("mosquitto-clients is installed");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "all\n", "{scheme} {shards}");
        }
    }
}
