//! `reveille apps` and `reveille keys`: what the operator does before a backend can begin.

use serde_json::{Value, json};

use crate::support::{
    cli::Cli,
    world::{OPERATOR_KEY, World},
};

#[tokio::test]
async fn an_app_is_made_shown_changed_and_deleted() {
    let world = World::start().await;
    let cli = Cli::operator(&world);
    let settings = r#"{"wake": {"ios": {"background": {"gap_s": 7}}}}"#;
    let text = cli.shown(&["apps", "create", "my chat", "--settings", settings]).await;
    assert!(text.starts_with("Made my chat (app_") && text.contains("--app 'my chat'"), "{text}");

    let table = cli.shown(&["apps"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("app   ") && lines.len() == 3, "{table}");
    assert!(table.contains(&world.app) && table.contains("my chat"), "{table}");
    let list = cli.json(&["apps", "list"]).await;
    assert_eq!(list, world.operator(reqwest::Method::GET, "/v1/apps", None).await.expect(200));

    let shown = cli.json(&["apps", "show", "my chat"]).await;
    assert_eq!(shown["settings"]["wake"]["ios"]["background"]["gap_s"], 7);
    let people = cli.shown(&["apps", "show", "my chat"]).await;
    assert!(people.contains("\"gap_s\": 7"), "{people}");

    cli.shown(&["apps", "update", "my chat", "--name", "chat", "--settings", r#"{"wake": {"ios": null}}"#]).await;
    assert_eq!(cli.json(&["apps", "show", "chat"]).await["settings"]["wake"]["ios"]["background"]["gap_s"], 60);

    let error = cli.refused(2, &["apps", "delete", "chat", "--confirm", "shop"]).await;
    assert!(error.contains("nothing was deleted"), "{error}");
    cli.shown(&["apps", "delete", "chat", "--confirm", "chat"]).await;
    let error = cli.refused(3, &["apps", "show", "chat"]).await;
    assert!(error.contains("there is no app \"chat\""), "{error}");
}

#[tokio::test]
async fn a_key_is_printed_once_and_alone_and_can_be_revoked() {
    let world = World::start().await;
    let cli = Cli::operator(&world);
    let said = cli.run(&["keys", "create", "ci", "--scope", "events:write,events:read"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let secret = said.out.trim_end();
    assert!(secret.starts_with("rk_") && !secret.contains(char::is_whitespace), "only the secret: {said:?}");
    assert!(said.err.contains("ci, for shop") && !said.err.contains(secret), "{said:?}");
    let backend = Cli::stranger(&world).with("REVEILLE_APP_KEY", secret);
    backend.shown(&["send", "order:42"]).await;

    let table = cli.shown(&["keys"]).await;
    assert!(table.contains("events:write events:read") && !table.contains(secret), "{table}");
    let revoked = cli.shown(&["keys", "revoke", "ci"]).await;
    assert!(revoked.starts_with("Revoked key_") && revoked.contains("ci, of shop"), "{revoked}");
    assert!(backend.refused(4, &["send", "order:42"]).await.contains("does not know this app key"));
    assert!(cli.refused(3, &["keys", "revoke", "ci"]).await.contains("no key \"ci\""));

    let made =
        cli.json(&["keys", "create", "till-then", "--scope", "admin", "--expires-at", "2027-01-01T00:00:00Z"]).await;
    assert_eq!((&made["scopes"], &made["expires_at"]), (&json!(["admin"]), &json!("2027-01-01T00:00:00.000Z")));
    assert!(made["secret"].as_str().unwrap().starts_with("rk_"));
}

#[tokio::test]
async fn who_has_several_apps_says_which() {
    let world = World::start().await;
    let (other, _) = world.new_app("chat").await;
    let cli = Cli::operator(&world);
    let error = cli.refused(2, &["keys"]).await;
    assert!(error.contains("say which with --app") && error.contains(&format!("  {other}  chat")), "{error}");
    assert_eq!(cli.json(&["keys", "--app", "chat"]).await["items"].as_array().map(Vec::len), Some(1));
    world.new_app("chat").await;
    let error = cli.refused(2, &["keys", "--app", "chat"]).await;
    assert!(error.contains("several apps are called \"chat\""), "{error}");
    assert_eq!(cli.json(&["keys", "--app", &other]).await["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn these_commands_take_the_operator_key_and_the_others_take_it_with_an_app() {
    let world = World::start().await;
    assert!(Cli::backend(&world).refused(2, &["apps"]).await.contains("REVEILLE_OPERATOR_KEY"));
    let cli = Cli::backend(&world);
    std::fs::write(cli.folder.path().join("app.key"), &world.key).unwrap();
    assert!(cli.refused(2, &["apps", "--key-file", "app.key"]).await.contains("takes the operator key"));
    assert!(
        Cli::operator(&world)
            .with("REVEILLE_OPERATOR_KEY", "ro_another-one-than-theirs")
            .refused(4, &["apps"])
            .await
            .contains("does not know this operator key (environment REVEILLE_OPERATOR_KEY)")
    );
    let odd = Cli::stranger(&world).with("REVEILLE_APP_KEY", "hello").refused(4, &["devices"]).await;
    assert!(odd.contains("does not know this app key (environment REVEILLE_APP_KEY)"), "{odd}");

    world.phone("pixel").registers().await;
    let (_, _) = world.new_app("chat").await;
    let both = Cli::backend(&world).with("REVEILLE_OPERATOR_KEY", OPERATOR_KEY);
    let devices = |page: Value| page["items"].as_array().map(Vec::len);
    assert_eq!(devices(both.json(&["devices"]).await), Some(1), "the app key says which app");
    assert_eq!(devices(both.json(&["devices", "--app", "chat"]).await), Some(0), "the operator says so");
    assert_eq!(devices(Cli::operator(&world).json(&["devices", "--app", &world.app]).await), Some(1));
    let error = cli.refused(2, &["devices", "--app", "shop", "--key-file", "app.key"]).await;
    assert!(error.contains("an app key has its app already"), "{error}");
}

#[tokio::test]
async fn shells_can_complete_it_and_help_says_how_it_ends() {
    let cli = Cli::nowhere();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = cli.shown(&["completions", shell]).await;
        assert!(script.contains("migrate-store") && script.contains("idempotency-key"), "{shell}");
    }
    let help = cli.shown(&["--help"]).await;
    assert!(help.contains("Exit codes: 0 done") && help.contains("check"), "{help}");
}
