//! Provider credentials: what they say, and which one serves a device.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;

use super::{
    Invalid,
    device::{Environment, Transport},
    limits,
};

/// Google's OAuth 2.0 token endpoint, the `token_uri` of every service-account file.
pub const GOOGLE_TOKEN_URI: &str = "https://oauth2.googleapis.com/token";

/// A provider credential, opened.
#[derive(Debug, Clone)]
pub enum Credential {
    /// An APNs authentication token signing key.
    Apns(ApnsCredential),
    /// A Google service account.
    Fcm(FcmCredential),
}

/// An APNs key: "Establishing a token-based connection to APNs".
#[derive(Debug, Clone)]
pub struct ApnsCredential {
    /// The ten characters of the developer team; JWT `iss`.
    pub team_id: String,
    /// The ten characters of the key; JWT `kid`.
    pub key_id: String,
    /// The PEM text of the `.p8` file.
    pub private_key: SecretString,
    /// The app's bundle ids it may push to.
    pub topics: Vec<String>,
    /// The worlds it may push in.
    pub environments: Vec<Environment>,
}

/// A service-account JSON file as Google gives it; fields we do not need are passed over.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct FcmCredential {
    /// Always `service_account`.
    #[serde(rename = "type")]
    #[schema(pattern = "^service_account$")]
    pub kind: String,
    /// The Firebase project.
    pub project_id: String,
    /// JWT `kid`.
    pub private_key_id: String,
    /// The PEM text of the RSA key.
    #[schema(value_type = String)]
    pub private_key: SecretString,
    /// JWT `iss`.
    pub client_email: String,
    /// Where assertions are exchanged for access tokens: Google's endpoint, unless the operator has set another.
    #[schema(value_type = String, format = "uri")]
    pub token_uri: Url,
}

/// `PUT /v1/credentials/apns` as it comes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ApnsCredential)]
pub struct ApnsDraft {
    /// The ten characters of the developer team.
    #[schema(pattern = "^[A-Za-z0-9]{10}$")]
    team_id: String,
    /// The ten characters of the key.
    #[schema(pattern = "^[A-Za-z0-9]{10}$")]
    key_id: String,
    /// The PEM text of the `.p8` file.
    #[schema(value_type = String)]
    private_key: SecretString,
    /// The bundle id it may push to; or give `topics`.
    topic: Option<String>,
    /// The bundle ids it may push to; or give `topic`.
    topics: Option<Vec<String>>,
    /// Where it may push; or give `environments`.
    environment: Option<Environment>,
    /// Where it may push; or give `environment`.
    environments: Option<Vec<Environment>>,
}

impl ApnsDraft {
    fn check(self) -> Result<ApnsCredential, Vec<Invalid>> {
        let mut errors = Vec::new();
        for (pointer, value) in [("/team_id", &self.team_id), ("/key_id", &self.key_id)] {
            if value.len() != 10 || !value.bytes().all(|b| b.is_ascii_alphanumeric()) {
                errors.push(Invalid::new(
                    pointer,
                    format!("must be Apple's 10 letters and digits, has {} characters", value.chars().count()),
                ));
            }
        }
        let topics = one_or_many("topic", self.topic, self.topics, &mut errors);
        for topic in &topics {
            super::check_text("/topics", topic, limits::SHORT_TEXT_CHARS, &mut errors);
        }
        let environments = one_or_many("environment", self.environment, self.environments, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(ApnsCredential {
            team_id: self.team_id,
            key_id: self.key_id,
            private_key: self.private_key,
            topics,
            environments,
        })
    }
}

fn one_or_many<T: Clone + PartialEq>(
    name: &str,
    one: Option<T>,
    many: Option<Vec<T>>,
    errors: &mut Vec<Invalid>,
) -> Vec<T> {
    match (one, many) {
        (Some(one), None) => vec![one],
        (None, Some(many)) if !many.is_empty() => many,
        _ => {
            errors.push(Invalid::new(format!("/{name}"), format!("give either \"{name}\" or a non-empty \"{name}s\"")));
            Vec::new()
        }
    }
}

impl Credential {
    /// Reads a credential from the JSON that `PUT` takes.
    pub fn parse(transport: Transport, json: &[u8], any_token_uri: AnyTokenUri) -> Result<Self, CredentialError> {
        match transport {
            Transport::Apns => {
                let draft: ApnsDraft = read(json)?;
                draft.check().map(Self::Apns).map_err(CredentialError::Values)
            }
            Transport::Fcm => {
                let file: FcmCredential = read(json)?;
                let mut errors = Vec::new();
                if file.kind != "service_account" {
                    errors.push(Invalid::new("/type", format!("must be \"service_account\", is {:?}", file.kind)));
                }
                if any_token_uri == AnyTokenUri::No && file.token_uri.as_str() != GOOGLE_TOKEN_URI {
                    errors
                        .push(Invalid::new("/token_uri", format!("must be {GOOGLE_TOKEN_URI}, is {}", file.token_uri)));
                }
                if errors.is_empty() { Ok(Self::Fcm(file)) } else { Err(CredentialError::Values(errors)) }
            }
        }
    }

    /// The provider it is for.
    pub fn transport(&self) -> Transport {
        match self {
            Self::Apns(_) => Transport::Apns,
            Self::Fcm(_) => Transport::Fcm,
        }
    }

    /// What may be shown of it.
    pub fn scope(&self) -> CredentialScope {
        match self {
            Self::Apns(c) => CredentialScope::Apns {
                team_id: c.team_id.clone(),
                key_id: c.key_id.clone(),
                topics: c.topics.clone(),
                environments: c.environments.clone(),
            },
            Self::Fcm(c) => {
                CredentialScope::Fcm { project_id: c.project_id.clone(), client_email: c.client_email.clone() }
            }
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, CredentialError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    serde_path_to_error::deserialize(&mut deserializer).map_err(CredentialError::Json)
}

/// Whether a service account may name another token endpoint than Google's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnyTokenUri {
    /// Yes: the operator has set `REVEILLE_FCM_URL`.
    Yes,
    /// No.
    No,
}

/// Why a credential was refused.
#[derive(Debug)]
pub enum CredentialError {
    /// It is not the JSON we expect.
    Json(serde_path_to_error::Error<serde_json::Error>),
    /// A value is wrong.
    Values(Vec<Invalid>),
}

/// The public half of a credential: whose it is and what it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the same fields as in the credentials above")]
pub enum CredentialScope {
    Apns { team_id: String, key_id: String, topics: Vec<String>, environments: Vec<Environment> },
    Fcm { project_id: String, client_email: String },
}

impl CredentialScope {
    /// What both this and `other` would serve, in words, if anything.
    pub fn overlap(&self, other: &Self) -> Option<String> {
        match (self, other) {
            (
                Self::Apns { topics, environments, .. },
                Self::Apns { topics: topics2, environments: environments2, .. },
            ) => {
                let topic = topics.iter().find(|topic| topics2.contains(topic))?;
                let environment = environments.iter().find(|environment| environments2.contains(environment))?;
                Some(format!("topic {topic:?} in {environment:?}").to_lowercase())
            }
            (Self::Fcm { project_id, .. }, Self::Fcm { project_id: project_id2, .. }) => {
                (project_id == project_id2).then(|| format!("project {project_id:?}"))
            }
            _ => None,
        }
    }
}

/// Picks the credential that serves a device by its (topic, environment), or its Firebase project; answers its index and the topic to use.
///
/// A device that names no topic is served if only one answer is possible; among several Firebase projects the credential named `default` is.
pub fn pick<'a>(
    candidates: impl IntoIterator<Item = (&'a str, &'a CredentialScope)>,
    topic: Option<&str>,
    environment: Environment,
) -> Option<(usize, String)> {
    let mut fits: Vec<(usize, &str, String)> = Vec::new();
    for (index, (name, scope)) in candidates.into_iter().enumerate() {
        match scope {
            CredentialScope::Apns { topics, environments, .. } if environments.contains(&environment) => {
                let serves = topics.iter().filter(|served| topic.is_none_or(|wanted| wanted == *served));
                fits.extend(serves.map(|served| (index, name, served.clone())));
            }
            CredentialScope::Fcm { project_id, .. } if topic.is_none_or(|wanted| wanted == project_id) => {
                fits.push((index, name, project_id.clone()));
            }
            _ => {}
        }
    }
    if let [_, _, ..] = fits.as_slice() {
        fits.retain(|(_, name, _)| *name == "default");
    }
    match fits.as_slice() {
        [(index, _, topic)] => Some((*index, topic.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apns(topics: &[&str], environments: &[Environment]) -> CredentialScope {
        CredentialScope::Apns {
            team_id: "TEAM000001".into(),
            key_id: "KEY0000001".into(),
            topics: topics.iter().map(|&t| t.to_owned()).collect(),
            environments: environments.to_vec(),
        }
    }

    #[test]
    fn topic_and_environment_pick_the_credential() {
        let shop = apns(&["com.example.shop"], &[Environment::Production]);
        let shop_dev = apns(&["com.example.shop"], &[Environment::Sandbox]);
        let news = apns(&["com.example.news"], &[Environment::Production, Environment::Sandbox]);
        let all = [("default", &shop), ("dev", &shop_dev), ("news", &news)];
        let index = |topic, environment| pick(all, topic, environment).map(|(index, _)| index);
        assert_eq!(index(Some("com.example.shop"), Environment::Production), Some(0));
        assert_eq!(index(Some("com.example.shop"), Environment::Sandbox), Some(1));
        assert_eq!(index(Some("com.example.news"), Environment::Sandbox), Some(2));
        assert_eq!(index(Some("com.example.other"), Environment::Production), None);
        assert_eq!(index(None, Environment::Production), Some(0));
        assert_eq!(index(None, Environment::Sandbox), None);
        assert!(shop.overlap(&shop_dev).is_none());
        assert!(news.overlap(&apns(&["com.example.news"], &[Environment::Sandbox])).is_some());
    }
}
