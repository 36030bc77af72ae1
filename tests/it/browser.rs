//! The dashboard in a real browser, on the demo's data: sign in, find the phone that is behind, read why, send a test event and see it
//! arrive. Chromium and its driver are Debian's; `./test` installs them.
//!
//! What it saw is kept as pictures in the temporary folder, to be looked at: `UPDATE_SCREENSHOTS=1` puts those of the documentation into
//! docs/images.

mod live;

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use fantoccini::{Client, ClientBuilder, Locator, elements::Element, key::Key};
use serde_json::{Value, json};

const UPDATE: &str = "UPDATE_SCREENSHOTS";
/// A page says what it has to say within this.
const PATIENCE: Duration = Duration::from_secs(20);
/// The demo has its story to tell first.
const STARTING: Duration = Duration::from_secs(90);
/// The pictures that the documentation shows.
const SHOWN: [&str; 4] = ["overview", "device", "test-event", "live"];
const DESKTOP: (u32, u32) = (1440, 900);
/// For pictures of pages that have more to show.
const TALL: (u32, u32) = (1440, 1300);
const PHONE: (u32, u32) = (390, 844);

/// A process that ends with the test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a command and reads what it prints until `wanted` finds something in a line.
fn start(mut command: Command, wanted: impl Fn(&str) -> Option<String>) -> (Started, String) {
    let shown = format!("{command:?}");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{shown}: {error}; `./test` installs what is missing"));
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (started, (said, hear)) = (Started(child), mpsc::channel());
    // Whoever prints must not find its reader gone, so it reads to the end.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(said.send(line))));
    let (deadline, mut printed) = (Instant::now() + STARTING, String::new());
    while let Ok(line) = hear.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if let Some(found) = wanted(&line) {
            return (started, found);
        }
        printed.push_str(&line);
        printed.push('\n');
    }
    panic!("{shown} did not say within {STARTING:?} what was waited for, but:\n{printed}");
}

fn demo() -> (Started, String) {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_reveille"));
    demo.args(["demo", "--keep"]);
    start(demo, |line| {
        line.trim().starts_with("http").then(|| line.trim().to_owned()).filter(|url| url.contains("/#key="))
    })
}

/// A browser, seen through its driver.
struct Browser {
    client: Client,
    axe: String,
    _driver: Started,
}

impl Browser {
    async fn start() -> Self {
        let mut driver = Command::new("chromedriver");
        driver.arg("--port=0");
        let port = |line: &str| {
            Some(line.strip_prefix("ChromeDriver was started successfully on port ")?.trim_end_matches('.').to_owned())
        };
        let (driver, port) = start(driver, port);
        let options = json!({"args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--force-prefers-reduced-motion"]});
        let capabilities = serde_json::from_value(json!({"goog:chromeOptions": options})).unwrap();
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        let axe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/axe/node_modules/axe-core/axe.min.js");
        let axe =
            fs::read_to_string(&axe).unwrap_or_else(|_| panic!("{} is missing: ./test installs it", axe.display()));
        let browser = Self { client, axe, _driver: driver };
        browser.size(DESKTOP).await;
        browser
    }

    async fn size(&self, (width, height): (u32, u32)) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Light or dark, as the system would ask for.
    async fn theme(&self, theme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": theme}]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    async fn devtools(&self, command: &str, parameters: Value) {
        self.client.issue_cmd(DevTools(json!({"cmd": command, "params": parameters}))).await.unwrap();
    }

    /// The first element that an XPath leads to, as soon as it is there.
    async fn find(&self, xpath: &str) -> Element {
        match self.client.wait().at_most(PATIENCE).for_element(Locator::XPath(xpath)).await {
            Ok(element) => element,
            Err(error) => {
                self.picture("failed").await;
                panic!("{xpath}: {error}\n{}", self.text().await);
            }
        }
    }

    async fn text(&self) -> String {
        self.client.find(Locator::Css("body")).await.unwrap().text().await.unwrap()
    }

    /// Waits until the page says something.
    async fn says(&self, words: &str) -> String {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let text = self.text().await;
            if text.contains(words) {
                return text;
            }
            if tokio::time::Instant::now() > deadline {
                self.picture("failed").await;
                panic!("the page does not say {words:?}, but:\n{text}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn go(&self, hash: &str) {
        self.client.execute("location.hash = arguments[0]", vec![json!(hash)]).await.unwrap();
    }

    /// Keeps a picture of what is to be seen.
    async fn picture(&self, name: &str) {
        let folder = env::temp_dir().join("reveille-screenshots");
        fs::create_dir_all(&folder).unwrap();
        let picture = self.client.screenshot().await.unwrap();
        fs::write(folder.join(format!("{name}.png")), &picture).unwrap();
        if env::var_os(UPDATE).is_some() && SHOWN.contains(&name) {
            fs::write(images().join(format!("{name}.png")), &picture).unwrap();
        }
    }

    /// Nobody is kept out, by axe-core's rules for WCAG 2 A and AA, in either theme; and on a phone nothing lies beside the page.
    async fn is_open_to_all(&self, page: &str) {
        for theme in ["light", "dark"] {
            self.theme(theme).await;
            self.client.execute(&self.axe, Vec::new()).await.unwrap();
            let run = "const done = arguments[arguments.length - 1];
                axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']}).then(found => done(found.violations.map(
                    rule => `${rule.id}: ${rule.help}: ${rule.nodes.map(node => node.html + ' ' + node.failureSummary).join(' | ')}`)))";
            let violations = self.client.execute_async(run, Vec::new()).await.unwrap();
            assert_eq!(violations, json!([]), "{page}, {theme}");
        }
        self.theme("light").await;
        self.size(PHONE).await;
        let beside = "return document.documentElement.scrollWidth - window.innerWidth";
        let beside = self.client.execute(beside, Vec::new()).await.unwrap().as_i64().unwrap();
        self.picture(&format!("{page}-on-a-phone")).await;
        assert!(beside <= 0, "{page} is {beside} px wider than a phone");
        self.size(DESKTOP).await;
    }
}

/// A command of the browser's own protocol, which themes and sizes need.
#[derive(Debug)]
struct DevTools(Value);

impl fantoccini::wd::WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (reqwest::Method, Option<String>) {
        (reqwest::Method::POST, Some(self.0.to_string()))
    }
}

fn images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images")
}

#[tokio::test]
async fn somebody_asks_why_a_phone_is_behind_and_sees_a_test_event_arrive() {
    let ((_demo, link), browser) = (demo(), Browser::start().await);
    let (url, key) = link.split_once("/#key=").unwrap();

    // Sign in: a wrong key is refused in words, the right one opens the overview.
    browser.client.goto(&format!("{url}/")).await.unwrap();
    let field = browser.find("//input[@id='key']").await;
    browser.is_open_to_all("sign-in").await;
    field.send_keys("rk_nobody-has-this-one").await.unwrap();
    browser.find("//button[@type='submit']").await.click().await.unwrap();
    browser.says("not valid").await;
    field.clear().await.unwrap();
    field.send_keys(key).await.unwrap();
    browser.find("//button[@type='submit']").await.click().await.unwrap();
    browser.find("//h1[text()='Overview']").await;
    browser.says("Wake rate").await;
    browser.find("//canvas").await;
    browser.picture("overview").await;
    browser.is_open_to_all("overview").await;

    // From anywhere, with the keyboard: find the phone, and read why.
    let page = browser.find("//body").await;
    page.send_keys("/").await.unwrap();
    let search = browser.find("//input[@id='q']").await;
    search.send_keys(&format!("phone-07{}", char::from(Key::Enter))).await.unwrap();
    browser.find("//h1[text()='phone-07']").await;
    // Back is the list of what was found, which stays; from there it is a link as any other.
    browser.client.back().await.unwrap();
    browser.find("//h1[text()='Devices']").await;
    browser.find("//td//a[contains(., 'phone-07')]").await.click().await.unwrap();
    browser.find("//h1[text()='phone-07']").await;
    let told = browser.says("not fetched").await;
    assert!(told.contains("The push was lost, the phone is offline, or the app was closed"), "{told}");
    browser.find("//*[local-name()='svg']//*[@tabindex]").await;
    browser.size(TALL).await;
    browser.picture("device").await;
    browser.size(DESKTOP).await;
    browser.is_open_to_all("device").await;

    // Another one is fine; a test event travels step by step.
    browser.go("#/devices?q=phone-03").await;
    browser.find("//a[contains(., 'phone-03')]").await.click().await.unwrap();
    browser.find("//h1[text()='phone-03']").await;
    browser.find("//button[contains(., 'Send background')]").await.click().await.unwrap();
    browser.says("after the accept").await;
    browser.says("Up to date").await;
    browser.picture("test-event").await;

    for (page, words) in [
        ("live", "was given everything"),
        ("events", "courier.moved"),
        ("devices", "phone-20"),
        ("credentials", "default"),
    ] {
        browser.go(&format!("#/{page}")).await;
        browser.says(words).await;
        browser.picture(page).await;
        browser.is_open_to_all(page).await;
    }
    browser.client.close().await.unwrap();
}

#[tokio::test]
async fn the_demos_link_opens_the_dashboard_and_leaves_no_key_behind() {
    let ((_demo, link), browser) = (demo(), Browser::start().await);
    browser.client.goto(&link).await.unwrap();
    browser.find("//h1[text()='Overview']").await;
    let address = browser.client.current_url().await.unwrap();
    assert!(!address.as_str().contains("rk_"), "{address}");
    let kept =
        "return [localStorage.length, sessionStorage.length, document.cookie.length, history.state === null ? 0 : 1]";
    assert_eq!(browser.client.execute(kept, Vec::new()).await.unwrap(), json!([0, 0, 0, 0]));
    // A reload forgets it.
    browser.client.refresh().await.unwrap();
    browser.find("//input[@id='key']").await;
    browser.client.close().await.unwrap();
}
