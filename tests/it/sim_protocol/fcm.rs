//! Google's side.

use super::*;

fn assertion(sim: &Sim, change: impl FnOnce(&mut Value)) -> String {
    let account = sim.fcm_credential();
    let mut claims = json!({
        "iss": account["client_email"], "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "aud": account["token_uri"], "iat": now_s(), "exp": now_s() + 3600,
    });
    change(&mut claims);
    let key = EncodingKey::from_rsa_pem(text(&account, "private_key").as_bytes()).unwrap();
    jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key).unwrap()
}

async fn grant(sim: &Sim, assertion: &str) -> (u16, Value) {
    let form = [("grant_type", GRANT), ("assertion", assertion)];
    let url = text(&sim.fcm_credential(), "token_uri");
    let answer = client(sim).post(url).form(&form).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

pub(super) async fn access(sim: &Sim) -> String {
    let (status, body) = grant(sim, &assertion(sim, |_| {})).await;
    assert_eq!(status, 200, "{body}");
    text(&body, "access_token")
}

async fn send(sim: &Sim, client: &Client, bearer: &str, body: &Value) -> (u16, Value) {
    let url = format!("{}/v1/projects/reveille-sim/messages:send", sim.fcm_url());
    let answer = client.post(url).bearer_auth(bearer).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn trigger(token: &str) -> Value {
    json!({"message": {"token": token, "data": {"v": "1", "head": "9"}, "android": {"priority": "NORMAL", "ttl": "60s"}}})
}

#[tokio::test]
async fn google_gives_tokens_for_good_assertions_only() {
    let sim =
        Sim::start(SimConfig { google_token_life: Duration::from_secs(90), ..SimConfig::default() }).await.unwrap();
    let (status, body) = grant(&sim, &assertion(&sim, |_| {})).await;
    assert_eq!((status, &body["expires_in"], &body["token_type"]), (200, &json!(90), &json!("Bearer")));
    let google = assertion(&sim, |claims| claims["aud"] = json!("https://oauth2.googleapis.com/token"));
    assert_eq!(grant(&sim, &google).await.0, 200);
    let wrong: [fn(&mut Value); 4] = [
        |claims| claims["aud"] = json!("https://example.com/token"),
        |claims| claims["iss"] = json!("someone@example.com"),
        |claims| claims["exp"] = json!(now_s() - 10),
        |claims| claims["exp"] = json!(now_s() + 7200),
    ];
    for change in wrong {
        let (status, body) = grant(&sim, &assertion(&sim, change)).await;
        assert_eq!((status, &body["error"]), (400, &json!("invalid_grant")));
    }
    let scope = assertion(&sim, |claims| claims["scope"] = json!("https://www.googleapis.com/auth/drive"));
    assert_eq!(grant(&sim, &scope).await.1["error"], "invalid_scope");
    assert_eq!(grant(&sim, "abc").await.1["error"], "invalid_grant");
    assert_eq!(sim.google_tokens_issued(), 2);
}

#[tokio::test]
async fn fcm_takes_both_spellings_over_both_protocols() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let bearer = access(&sim).await;
    let mut phone = sim.subscribe("phone");
    let ca = reqwest::Certificate::from_pem(sim.ca_pem().as_bytes()).unwrap();
    let old = Client::builder().tls_certs_only([ca]).http1_only().build().unwrap();
    let snake = json!({"message": {"token": "phone", "data": {"head": "1"}, "android": {"collapse_key": "sync"}}});
    let camel = json!({"message": {"fid": "phone", "data": {"head": "2"}, "android": {"collapseKey": "sync"}}});
    for (client, body) in [(client(&sim), snake), (old, camel)] {
        let (status, answer) = send(&sim, &client, &bearer, &body).await;
        assert_eq!(status, 200, "{answer}");
        assert!(text(&answer, "name").starts_with("projects/reveille-sim/messages/0:"));
    }
    assert_eq!(phone.recv().await.unwrap().trigger().unwrap()["head"], "1");
    assert_eq!(phone.recv().await.unwrap().trigger().unwrap()["head"], "2");
    let dry = json!({"validateOnly": true, "message": {"token": "phone"}});
    let (_, answer) = send(&sim, &client(&sim), &bearer, &dry).await;
    assert_eq!(answer, json!({"name": "projects/reveille-sim/messages/fake_message_id"}));
    assert!(phone.try_recv().is_err());
}

#[tokio::test]
async fn fcm_answers_errors_as_google_words_them() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let (client, bearer) = (client(&sim), access(&sim).await);
    let (status, body) = send(&sim, &client, "stale", &trigger("phone")).await;
    assert_eq!((status, &body["error"]["status"]), (401, &json!("UNAUTHENTICATED")));

    sim.fcm().dead_token("phone", None);
    let (status, body) = send(&sim, &client, &bearer, &trigger("phone")).await;
    assert_eq!((status, &body["error"]["status"]), (404, &json!("NOT_FOUND")));
    assert_eq!(body["error"]["details"][0]["errorCode"], "UNREGISTERED");
    assert_eq!(body["error"]["details"][0]["@type"], "type.googleapis.com/google.firebase.fcm.v1.FcmError");

    let (status, body) = send(&sim, &client, &bearer, &trigger("invalid")).await;
    assert_eq!((status, &body["error"]["details"][1]["fieldViolations"][0]["field"]), (400, &json!("message.token")));

    let large = json!({"message": {"token": "phone", "data": {"x": "x".repeat(4096)}}});
    let (status, body) = send(&sim, &client, &bearer, &large).await;
    assert_eq!((status, &body["error"]["status"]), (400, &json!("INVALID_ARGUMENT")));
    assert_eq!(body["error"].get("details"), None);

    let wrong = [
        json!({"message": {"token": "phone", "topic": "news"}}),
        json!({"message": {"data": {}}}),
        json!({"message": {"token": "phone", "data": {"head": 9}}}),
        json!({"message": {"token": "phone", "data": {"from": "me"}}}),
        json!({"message": {"token": "phone", "data": {"google.x": "me"}}}),
        json!({"message": {"token": "phone", "time_to_live": 5}}),
        json!({"message": {"token": "phone", "android": {"ttl": 60}}}),
        json!({"message": {"token": "phone", "android": {"priority": "URGENT"}}}),
    ];
    for message in wrong {
        let (status, body) = send(&sim, &client, &bearer, &message).await;
        assert_eq!((status, &body["error"]["status"]), (400, &json!("INVALID_ARGUMENT")), "{message}");
        assert!(body["error"]["details"][0]["fieldViolations"][0]["field"].is_string(), "{body}");
    }

    sim.google_expire_tokens();
    assert_eq!(send(&sim, &client, &bearer, &trigger("phone")).await.0, 401);
}

#[tokio::test]
async fn fcm_faults_carry_googles_words() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let (client, bearer) = (client(&sim), access(&sim).await);
    let cases = [
        (429, "QUOTA_EXCEEDED", "RESOURCE_EXHAUSTED"),
        (503, "UNAVAILABLE", "UNAVAILABLE"),
        (500, "INTERNAL", "INTERNAL"),
        (403, "SENDER_ID_MISMATCH", "PERMISSION_DENIED"),
        (401, "THIRD_PARTY_AUTH_ERROR", "UNAUTHENTICATED"),
    ];
    for (status, reason, canonical) in cases {
        let fault = FaultKind::Status { status, reason: Some(reason.to_owned()), retry_after: None };
        sim.fcm().answer(Fault::new(fault).times(1));
        let (answered, body) = send(&sim, &client, &bearer, &trigger("phone")).await;
        assert_eq!((answered, &body["error"]["status"]), (status, &json!(canonical)));
        assert_eq!(body["error"]["details"][0]["errorCode"], reason);
    }
    sim.fcm().answer(Fault::new(FaultKind::Reset).times(1));
    let url = format!("{}/v1/projects/reveille-sim/messages:send?alt=json", sim.fcm_url());
    assert!(client.post(&url).bearer_auth(&bearer).json(&trigger("phone")).send().await.is_err());
    assert_eq!(client.post(&url).bearer_auth(&bearer).json(&trigger("phone")).send().await.unwrap().status(), 200);
}
