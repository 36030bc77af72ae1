//! The example for web pages, examples/live.ts, in a real Chromium on the demo: a stream while the page is seen, push and poll while it is not.

use std::{path::Path, process::Command};

use axum::{Router, http::header, response::Html, routing::get};
use serde_json::{Value, json};

use super::{Browser, demo};

/// A page that shows what it is told. It is of another origin than the relay.
const PAGE: &str = r##"<!doctype html><title>Live</title><pre id="seen"></pre><script type="module">
import { Live } from "/live.js";
const { base, token, cursor } = JSON.parse(decodeURIComponent(location.hash.slice(1)));
window.seen = [];
window.live = new Live(base, token, cursor, (entries) => {
  seen.push(...entries.map((entry) => entry.type));
  document.querySelector("#seen").textContent = seen.join(" ");
});
window.ended = live.run();
</script>"##;

/// Makes JavaScript of the example, if its types are right.
fn compiled() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiler = root.join("tests/foreign/typescript/node_modules/.bin/tsc");
    assert!(compiler.exists(), "{} is missing: ./test installs it", compiler.display());
    let folder = tempfile::tempdir().unwrap();
    let mut run = Command::new(compiler);
    run.arg(root.join("examples/live.ts")).arg("--outDir").arg(folder.path());
    run.args(["--strict", "--target", "es2022", "--module", "es2022", "--lib", "es2022,dom,dom.iterable"]);
    let run = run.output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    std::fs::read_to_string(folder.path().join("live.js")).unwrap()
}

/// Serves the page; answers where.
async fn page() -> String {
    let script = compiled();
    let script = get(async move || ([(header::CONTENT_TYPE, "text/javascript")], script));
    let router = Router::new().route("/", get(async || Html(PAGE))).route("/live.js", script);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}/")
}

#[tokio::test]
async fn the_example_streams_in_the_foreground_and_polls_when_a_push_comes() {
    let ((_demo, link), page) = (demo(), page().await);
    let (base, key) = link.split_once("/#key=").unwrap();
    let http = reqwest::Client::new();
    let post = async |path: &str, body: Value| -> Value {
        let answer = http.post(format!("{base}{path}")).bearer_auth(key).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.unwrap()
    };
    let publish = async |kind: &str| post("/v1/events", json!({"feed": "page:1", "type": kind})).await;
    let device = json!({
        "installation_id": "page-1", "transport": "fcm", "platform": "web", "token": "token-of-page-1", "feeds": ["page:1"],
    });
    let device = post("/v1/devices", device).await;
    let begin = json!({"base": base, "token": device["device_token"], "cursor": device["poll"]["cursor"]}).to_string();
    let begin: String = url::form_urlencoded::byte_serialize(begin.as_bytes()).collect();

    let browser = Browser::start().await;
    publish("before").await;
    browser.client.goto(&format!("{page}#{}", begin.replace('+', "%20"))).await.unwrap();
    browser.says("before").await;
    publish("seen").await;
    browser.says("seen").await;

    let visibility = "Object.defineProperty(document, 'visibilityState', {value: arguments[0], configurable: true});
                      document.dispatchEvent(new Event('visibilitychange'));";
    browser.client.execute(visibility, vec![json!("hidden")]).await.unwrap();
    publish("hidden").await;
    browser.client.execute("live.onPush('')", Vec::new()).await.unwrap();
    browser.says("hidden").await;

    browser.client.execute(visibility, vec![json!("visible")]).await.unwrap();
    publish("again").await;
    let text = browser.says("again").await;
    assert_eq!(text, "before seen hidden again", "each once");
    let asked = "return performance.getEntriesByType('resource').map(entry => new URL(entry.name).pathname)";
    let asked = browser.client.execute(asked, Vec::new()).await.unwrap();
    let asked = asked.as_array().unwrap();
    assert!(asked.contains(&json!("/v1/sync/stream")) && asked.contains(&json!("/v1/sync")), "{asked:?}");

    // Who is no longer good is told so, and stops.
    let id = device["id"].as_str().unwrap();
    http.delete(format!("{base}/v1/devices/{id}")).bearer_auth(key).send().await.unwrap();
    let ended = browser.client.execute_async("ended.then(arguments[0])", Vec::new()).await.unwrap();
    assert_eq!(ended, json!(401));
    browser.client.close().await.unwrap();
}
