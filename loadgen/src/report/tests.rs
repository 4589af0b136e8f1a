//! From files to files.

use crate::result::{RunResult, Second};

use super::{
    samples::{self, Sample},
    *,
};

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("loadgen-report-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn result(&self, name: &str, runs: Vec<RunResult>) -> PathBuf {
        self.file(name, &serde_json::to_string(&samples::file(runs)).unwrap())
    }

    /// The page of these runs.
    fn page(&self, runs: Vec<RunResult>) -> String {
        let file = self.result("runs.json", runs);
        let html = self.0.join("page.html");
        write(&[file], Some(&html), None).unwrap();
        fs::read_to_string(html).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn results_become_a_page_and_drawings() {
    let folder = Folder::new("whole");
    let files = [
        folder.result("comparison.json", samples::comparison()),
        folder.result("steps.json", samples::steps()),
    ];
    let (html, svgs) = (folder.0.join("report.html"), folder.0.join("made/svg"));
    let written = write(&files, Some(&html), Some(&svgs)).unwrap();
    assert!(written.iter().all(|path| path.is_file()));
    let names: Vec<_> =
        written.iter().map(|path| path.file_name().unwrap().to_string_lossy()).collect();
    assert_eq!(names[0], "report.html");
    for name in [
        "p2p-q1-throughput.svg",
        "p2p-q1-latency.svg",
        "p2p-q2-latency-pubcomp.svg",
        "p2p-q1-rates-p99.svg",
    ] {
        assert!(names.contains(&name.into()), "{name}: {names:?}");
    }
    let page = fs::read_to_string(html).unwrap();
    assert!(page.contains("Highest rate up to which each step was kept"));
    for outside in ["<script", "http://", "https://", "@import", "url(", "<link", "src="] {
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains(outside), "{outside}");
    }
    assert_balanced(&page);
}

#[test]
fn a_page_can_be_made_of_anything_that_parses() {
    let folder = Folder::new("odd");
    let plain = Sample::default().run();
    let mut bare = plain.clone();
    (bare.broker, bare.seconds, bare.measured_secs) = (None, Vec::new(), 0.0);
    bare.latency_us.clear();
    let mut huge = plain.clone();
    (huge.delivered_per_sec, huge.sent_per_sec, huge.measured_secs) = (f64::MAX, -1e300, 1e-300);
    huge.settings.rate_per_sec = Some(f64::MAX);
    (huge.settings.warm_secs, huge.whole_run.lost) = (1e308, u64::MAX);
    huge.seconds = vec![Second { at_secs: f64::MIN, delivered: u64::MAX, ..Second::default() }; 9];
    for latency in huge.latency_us.values_mut() {
        (latency.p50, latency.max, latency.count) = (u64::MAX, 0, u64::MAX);
    }
    for runs in [Vec::new(), vec![bare.clone()], vec![huge.clone()], vec![plain, bare, huge]] {
        let page = folder.page(runs);
        assert_balanced(&page);
        assert!(!page.contains("NaN"));
    }
}

#[test]
fn text_of_a_file_stays_text() {
    let folder = Folder::new("escaped");
    let mut run = Sample { label: "<script>alert(1)</script>", ..Sample::default() }.run();
    let evil = "\"'><img src=x onerror=alert(2)>\u{0}";
    run.settings.scenario = format!("../../{evil}");
    (run.settings.topic, run.settings.pace) = (evil.to_owned(), evil.to_owned());
    (run.ended, run.violations) = (evil.to_owned(), vec![evil.to_owned()]);
    let mut file = samples::file(vec![run]);
    (file.machine.cpu, file.machine.kernel) = (evil.to_owned(), evil.to_owned());
    (file.loadgen, file.command) = (evil.to_owned(), vec![evil.to_owned()]);
    let path = folder.file("evil.json", &serde_json::to_string(&file).unwrap());
    let written =
        write(&[path], Some(&folder.0.join("a.html")), Some(&folder.0.join("svg"))).unwrap();
    for path in written {
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            !text.contains("<script") && !text.contains("<img") && !text.contains('\0'),
            "{path:?}"
        );
        assert!(text.contains("&lt;script&gt;"), "{path:?}");
        assert!(path.parent() == Some(&folder.0) || path.parent() == Some(&folder.0.join("svg")));
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let folder = Folder::new("wrong");
    let good = serde_json::to_string(&samples::file(Vec::new())).unwrap();
    for (text, error) in [
        ("", "is not JSON: EOF"),
        ("MQTT", "is not JSON: expected value at line 1"),
        ("[1]", "is not a result of loadgen"),
        ("{\"runs\":[]}", "is not a result of loadgen"),
        ("{\"format\":7}", "is not a result of loadgen"),
        (
            "{\"format\":\"ringmq-loadgen-9\"}",
            "has format \"ringmq-loadgen-9\", this program reads \"ringmq-loadgen-1\"",
        ),
        ("{\"format\":\"ringmq-loadgen-1\"}", "is damaged: missing field `loadgen`"),
        (&good.replace("\"cpus\":2", "\"cpus\":-2"), "is damaged: invalid value: integer `-2`"),
    ] {
        let path = folder.file("x.json", text);
        let found = write(&[path], None, None).unwrap_err().to_string();
        assert!(found.contains("x.json") && found.contains(error), "{text}: {found}");
    }
    let missing = write(&[folder.0.join("none.json")], None, None).unwrap_err().to_string();
    assert!(missing.contains("none.json"), "{missing}");
    assert!(matches!(
        write(std::slice::from_ref(&folder.0), None, None),
        Err(ReportError::Read { .. })
    ));
    let deep = folder.file("deep.json", &"[".repeat(100_000));
    assert!(write(&[deep], None, None).is_err());
}

#[test]
fn a_file_beyond_the_bound_is_refused() {
    let folder = Folder::new("large");
    let path = folder.file("large.json", "");
    File::options().write(true).open(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
    let error = write(&[path], None, None).unwrap_err();
    assert!(matches!(error, ReportError::TooLarge { .. }), "{error}");
}

#[test]
fn results_are_not_overwritten() {
    let folder = Folder::new("overwrite");
    let path = folder.result("a.json", samples::comparison());
    let before = fs::read(&path).unwrap();
    let error = write(std::slice::from_ref(&path), Some(&path), None).unwrap_err();
    assert!(matches!(error, ReportError::Overwrites { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// Every element that is opened is closed in its turn.
fn assert_balanced(page: &str) {
    let mut open = Vec::new();
    for tag in page.split('<').skip(1).map(|rest| rest.split('>').next().unwrap_or_default()) {
        let name = tag.split([' ', '\n', '/']).next().unwrap_or_default();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "</{closed}>");
        } else if !tag.ends_with('/') && !["!DOCTYPE", "meta"].contains(&name) {
            open.push(name);
        }
    }
    assert_eq!(open, [""; 0]);
}
