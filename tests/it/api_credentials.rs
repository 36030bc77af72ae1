//! Provider credentials: put, proven, never shown, replaced without dropping traffic (contract §5).

use reqwest::Method;
use reveille::{
    config::{Config, Flags},
    domain::time::Clock,
    relay::{Background, Relay},
    store::StoreOptions,
};
use serde_json::{Value, json};

use crate::support::world::{OPERATOR_KEY, World};

fn with(mut credential: Value, field: &str, value: impl Into<Value>) -> Value {
    credential[field] = value.into();
    credential
}

fn without(mut credential: Value, field: &str) -> Value {
    credential.as_object_mut().unwrap().remove(field);
    credential
}

#[tokio::test]
async fn a_credential_is_put_shown_without_its_key_and_removed() {
    let world = World::start().await;
    let sandbox = with(world.sim.apns_credential(), "topics", json!(["com.example.other"]));
    let made = world.put("/v1/credentials/apns/other", sandbox.clone()).await.expect(201);
    let shown = world.get("/v1/credentials/apns/other").await.expect(200);
    assert_eq!(made, shown);
    assert_eq!(shown["key_id"], sandbox["key_id"]);
    assert_eq!(shown["topics"], json!(["com.example.other"]));
    assert!(shown["fingerprint"].is_string() && shown["created_at"].is_string());
    let list = world.get("/v1/credentials").await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
    let fcm = world.get("/v1/credentials/fcm").await.expect(200);
    assert_eq!(fcm, world.get("/v1/credentials/fcm/default").await.expect(200));
    for answer in [&made, &shown, &list, &fcm] {
        assert!(!answer.to_string().contains("PRIVATE KEY") && !answer.to_string().contains("private_key\""));
    }
    world.clock.advance(std::time::Duration::from_secs(1));
    let again = world.put("/v1/credentials/apns/other", sandbox).await.expect(200);
    assert_eq!(again["created_at"], made["created_at"]);
    world.delete("/v1/credentials/apns/other").await.expect(204);
    assert_eq!(world.delete("/v1/credentials/apns/other").await.problem(404), "not-found");
    assert_eq!(world.get("/v1/credentials/apns/other").await.problem(404), "not-found");
    for path in ["/v1/credentials/fcn", "/v1/credentials/fcn/default"] {
        let answer = world.get(path).await;
        assert_eq!(answer.problem(404), "not-found");
        let detail = answer.body["detail"].as_str().unwrap();
        assert_eq!(detail, "there is no such object: `fcn` should be `fcm` or `apns`", "{path}");
    }
}

#[tokio::test]
async fn no_secret_is_readable_in_the_database() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    world.settle().await;
    phone.sync().await;
    let pem_line = |credential: Value| credential["private_key"].as_str().unwrap().lines().nth(1).unwrap().to_owned();
    let mut secrets = vec![world.key.clone(), phone.device_token.clone(), "PRIVATE KEY".to_owned()];
    secrets.extend([pem_line(world.sim.apns_credential()), pem_line(world.sim.fcm_credential())]);
    let found = world.database().traces(&secrets).await;
    assert!(found.is_empty(), "{found:?}");
    assert!(!world.database().traces(&["order:42".to_owned()]).await.is_empty(), "the database was looked at");
}

#[tokio::test]
async fn a_broken_apns_key_is_refused_by_field() {
    let world = World::start().await;
    let good = with(world.sim.apns_credential(), "topics", json!(["com.example.other"]));
    let ec_key = good["private_key"].as_str().unwrap().to_owned();
    let rsa_key = world.sim.fcm_credential()["private_key"].as_str().unwrap().to_owned();
    for (credential, pointer) in [
        (with(good.clone(), "private_key", "not a key"), "/private_key"),
        (with(good.clone(), "private_key", ec_key.replace('M', "N")), "/private_key"),
        (with(good.clone(), "private_key", rsa_key), "/private_key"),
        (without(good.clone(), "private_key"), "/private_key"),
        (with(good.clone(), "team_id", "short"), "/team_id"),
        (with(good.clone(), "key_id", 5), "/key_id"),
        (with(good.clone(), "passphrase", "x"), "/passphrase"),
        (with(good.clone(), "topic", "com.example.other"), "/topic"),
        (with(good.clone(), "topics", json!([])), "/topic"),
        (with(good.clone(), "environments", json!(["staging"])), "/environments/0"),
    ] {
        let answer = world.put("/v1/credentials/apns/other", credential.clone()).await;
        assert_eq!(answer.pointers(422), [pointer], "{credential}");
        assert!(!answer.body.to_string().contains("PRIVATE KEY"));
    }
    assert_eq!(world.get("/v1/credentials/apns/other").await.problem(404), "not-found");
    for text in ["{\"team_id\":".to_owned(), format!("{good} and more")] {
        let request = world.http.put(world.url("/v1/credentials/apns/other")).bearer_auth(&world.key).body(text);
        assert_eq!(world.send(request).await.problem(400), "malformed-json");
    }
}

#[tokio::test]
async fn a_broken_service_account_is_refused_by_field() {
    let world = World::start().await;
    let good = with(world.sim.fcm_credential(), "project_id", "another");
    let ec_key = world.sim.apns_credential()["private_key"].as_str().unwrap().to_owned();
    for (credential, pointer) in [
        (with(good.clone(), "type", "authorized_user"), "/type"),
        (with(good.clone(), "private_key", "not a key"), "/private_key"),
        (with(good.clone(), "private_key", ec_key), "/private_key"),
        (with(good.clone(), "token_uri", "nowhere"), "/token_uri"),
        (without(good.clone(), "client_email"), "/client_email"),
        (without(good.clone(), "project_id"), "/project_id"),
    ] {
        let answer = world.put("/v1/credentials/fcm/other", credential.clone()).await;
        assert_eq!(answer.pointers(422), [pointer], "{}", answer.body);
    }
    world.put("/v1/credentials/fcm/other", good).await.expect(201);
}

#[tokio::test]
async fn two_credentials_for_the_same_devices_are_refused() {
    let world = World::start().await;
    let narrow = with(without(world.sim.apns_credential(), "environments"), "environment", "sandbox");
    let answer = world.put("/v1/credentials/apns/second", narrow).await;
    assert_eq!(answer.problem(422), "credential-overlap");
    assert!(answer.body["detail"].as_str().unwrap().contains("default"), "{}", answer.body);
    let answer = world.put("/v1/credentials/fcm/second", world.sim.fcm_credential()).await;
    assert_eq!(answer.problem(422), "credential-overlap");
}

#[tokio::test]
async fn another_master_key_is_refused_at_the_start() {
    let world = World::start().await;
    let (url, folder) = (world.database().url(), world.folder().to_owned());
    let kept = world.stopped().await;
    let variables = [
        ("REVEILLE_LISTEN", "127.0.0.1:0"),
        ("REVEILLE_DATABASE_URL", &url),
        ("REVEILLE_MASTER_KEY", "HhwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgEAHx4="),
    ];
    let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let config = Config::load(&Flags::default(), env, &folder).unwrap();
    let started = Relay::start(&config, Clock::default(), StoreOptions::default(), Background::Stepped).await;
    let error = format!("{:#}", started.err().expect("another master key is refused"));
    assert!(error.contains("another master key") && error.contains("REVEILLE_MASTER_KEY"), "{error}");
    assert!(!error.contains("HhwbGhkY"));
    drop(kept);
}

#[tokio::test]
async fn replacing_a_credential_drops_nothing() {
    let world = World::start().await;
    let phones =
        [world.phone("pixel").follows(&["order:42"]).await, world.phone("iphone").ios().follows(&["order:42"]).await];
    world.sim.fcm().pause();
    world.sim.apns().pause();
    world.publish("order:42").await;
    world.relay().dispatcher().step().await.unwrap();
    while world.sim.fcm().received() + world.sim.apns().received() < 2 {
        tokio::task::yield_now().await;
    }
    world.put("/v1/credentials/fcm", world.sim.fcm_credential()).await.expect(200);
    world.put("/v1/credentials/apns", world.sim.apns_credential()).await.expect(200);
    world.sim.fcm().resume();
    world.sim.apns().resume();
    world.settle().await;
    world.alert("order:42", "next").await;
    world.settle().await;
    assert_eq!(world.outcomes().await, ["accepted"; 4]);
    assert_eq!(phones.each_ref().map(|phone| phone.received()), [2, 2]);
}

#[tokio::test]
async fn topic_and_environment_pick_the_credential() {
    let world = World::start().await;
    let served = world.phone("iphone").ios().with("environment", "sandbox").follows(&["order:42"]).await;
    let unserved = world.phone("ipad").ios().with("topic", "com.example.unknown").follows(&["order:42"]).await;
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!([served.received(), unserved.received()], [1, 0]);
    assert_eq!(unserved.seen().await["status"], "active", "the device is kept");
    assert_eq!(world.attempts().await.len(), 1);
    let key = world.new_key(&world.app, &["devices:write"]).await;
    assert_eq!(world.call(Method::GET, "/v1/credentials", &key, None).await.problem(403), "missing-scope");
}

#[tokio::test]
async fn without_an_override_the_token_endpoint_is_googles() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let variables = [
        ("REVEILLE_LISTEN", "127.0.0.1:0"),
        ("REVEILLE_MASTER_KEY", "HhwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgEAHx4="),
        ("REVEILLE_OPERATOR_KEY", OPERATOR_KEY),
    ];
    let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let config = Config::load(&Flags::default(), env, folder.path()).unwrap();
    let options = StoreOptions::default();
    let relay = Relay::start(&config, Clock::default(), options, Background::Stepped).await.unwrap();
    let call = async |method: Method, path: &str, bearer: &str, body: Value| {
        let request = world.http.request(method, format!("http://{}{path}", relay.address().unwrap()));
        world.send(request.bearer_auth(bearer).json(&body)).await
    };
    let app = call(Method::POST, "/v1/apps", OPERATOR_KEY, json!({"name": "shop"})).await.expect(201);
    let keys = format!("/v1/apps/{}/keys", app["id"].as_str().unwrap());
    let key = call(Method::POST, &keys, OPERATOR_KEY, json!({"name": "k", "scopes": ["admin"]})).await.expect(201);
    let put = async |token_uri: &str| {
        let file = with(world.sim.fcm_credential(), "token_uri", token_uri);
        call(Method::PUT, "/v1/credentials/fcm", key["secret"].as_str().unwrap(), file).await
    };
    for elsewhere in
        ["https://example.com/token", "http://oauth2.googleapis.com/token", "https://oauth2.googleapis.com/"]
    {
        assert_eq!(put(elsewhere).await.pointers(422), ["/token_uri"], "{elsewhere}");
    }
    put("https://oauth2.googleapis.com/token").await.expect(201);
    relay.stop().await;
}
