//! What only the world outside can tell: whether the providers can be reached, what time they have, and how long certificates last.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Response, header};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use url::Url;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::report::Report;
use crate::{
    cli::{ask::cause, text::span},
    config::{Config, Role},
    domain::time::{Clock, Timestamp},
    fault, transport,
};

/// How long a provider may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A clock this wrong is noticed; a `Date` has whole seconds, and the way takes its time.
const NOTICED: Duration = Duration::from_secs(30);
/// Google takes no assertion from so far in the future.
const REFUSED: Duration = Duration::from_secs(300);
/// A server's certificate should have been renewed by then; Let's Encrypt's last 90 days, and are renewed after 60.
const SERVER_LEFT: Duration = Duration::from_hours(14 * 24);
/// An authority's, which somebody has to bring.
const AUTHORITY_LEFT: Duration = Duration::from_hours(60 * 24);

/// What time others have.
#[derive(Debug, Default)]
pub struct Clocks(Vec<Sample>);

#[derive(Debug)]
struct Sample {
    whose: String,
    /// This machine's time less theirs.
    ahead_ms: i64,
}

/// The providers as a relay of this configuration reaches them.
pub async fn providers(report: &mut Report, config: &Config, clocks: &mut Clocks) {
    report.area("providers");
    if !config.roles.contains(&Role::Dispatch) {
        report.not_checked("providers", "this process does not push: its roles lack dispatch", "check where it runs");
        return;
    }
    let http = match client(config) {
        Ok(http) => http,
        Err(error) => {
            report.failed("certificates", format!("{error:#}"), "correct REVEILLE_EXTRA_CA");
            return;
        }
    };
    let url = |given: &Option<Url>, own: &str| given.as_ref().map_or_else(|| own.to_owned(), Url::to_string);
    let mut places = vec![
        ("APNs", url(&config.apns_url, "https://api.push.apple.com")),
        ("FCM", url(&config.fcm_url, "https://fcm.googleapis.com")),
    ];
    if config.fcm_url.is_none() {
        places.push(("Google OAuth", "https://oauth2.googleapis.com".to_owned()));
    }
    let clock = fault::clock();
    let asked = places.into_iter().map(|(name, url)| {
        let (http, clock) = (http.clone(), clock.clone());
        async move {
            let began = clock.now();
            let answer = http.get(&url).send().await;
            (name, url, began, clock.now(), answer)
        }
    });
    let answers = futures_util::future::join_all(asked).await;
    let reached = answers.iter().any(|(.., answer)| answer.is_ok());
    for (name, url, began, ended, answer) in answers {
        match answer {
            // Whatever it says: nobody was asked anything.
            Ok(response) => {
                report.ok(name, format!("{url} answers after {} ms", ended.since(began).as_millis()));
                clocks.hear(name, began, ended, &response);
            }
            Err(error) => {
                let says = format!("{url} cannot be reached: {}", cause(&error));
                let todo = "let this machine connect to it (DNS, firewall, proxy, certificates)";
                if reached {
                    report.warning(name, says, format!("{todo}, if this relay pushes over it"));
                } else {
                    report.failed(name, says, todo);
                }
            }
        }
    }
}

/// A client that trusts whom the relay's own connections to the providers trust, and like them speaks HTTP/2 only.
fn client(config: &Config) -> anyhow::Result<reqwest::Client> {
    let mut tls = transport::client_config(config.extra_ca_pem.as_ref().map(String::as_bytes))?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .http2_prior_knowledge()
        .tls_backend_preconfigured(tls)
        .build()
        .context("the HTTP client cannot be set up")
}

impl Clocks {
    /// Notes what time a server has that answered between these two of ours.
    pub fn hear(&mut self, whose: &str, began: Timestamp, ended: Timestamp, response: &Response) {
        let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
        let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else { return };
        let Ok(since_epoch) = date.duration_since(std::time::UNIX_EPOCH) else { return };
        let ours = began.as_ms().midpoint(ended.as_ms());
        // The second that it names has been going on for half a second, on average.
        let theirs = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX).saturating_add(500);
        self.0.push(Sample { whose: whose.to_owned(), ahead_ms: ours.saturating_sub(theirs) });
    }
}

/// How wrong this machine's clock is.
pub fn clocks(report: &mut Report, clocks: &Clocks) {
    report.area("clock");
    if clocks.0.is_empty() {
        report.not_checked("clock", "nobody was reached who could tell the time", "see above");
    }
    for Sample { whose, ahead_ms } in &clocks.0 {
        let wrong = Duration::from_millis(ahead_ms.unsigned_abs());
        let way = if *ahead_ms > 0 { "ahead of" } else { "behind" };
        let says = format!("this machine is {} {way} {whose}", span(wrong.as_secs()));
        let todo = "let both machines keep the time (NTP)";
        if wrong >= REFUSED {
            report.failed("clock", format!("{says}: Apple and Google refuse what is signed by a wrong clock"), todo);
        } else if wrong >= NOTICED {
            report.warning("clock", says, todo);
        } else {
            report.ok("clock", format!("within {} s of {whose}", wrong.as_secs() + 1));
        }
    }
}

/// The certificates that are trusted in addition.
pub fn extra_ca(report: &mut Report, config: &Config, now: Timestamp) {
    let Some(pem) = &config.extra_ca_pem else { return };
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        match certificate {
            Ok(der) => certificate_ends(report, "extra CA", &der, AUTHORITY_LEFT, now),
            Err(error) => report.failed("extra CA", format!("it is not PEM: {error}"), "correct REVEILLE_EXTRA_CA"),
        }
    }
}

/// The certificate that a server has shown.
pub fn server_certificate(report: &mut Report, response: &Response) {
    let der = response.extensions().get::<reqwest::tls::TlsInfo>().and_then(reqwest::tls::TlsInfo::peer_certificate);
    if let Some(der) = der {
        certificate_ends(report, "certificate", der, SERVER_LEFT, Clock::System.now());
    }
}

fn certificate_ends(report: &mut Report, about: &str, der: &[u8], enough: Duration, now: Timestamp) {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        report.failed(about, "a certificate cannot be read", "give one in X.509, as PEM");
        return;
    };
    let name = certificate.subject().to_string();
    let ends = Timestamp::from_ms(certificate.validity().not_after.timestamp().saturating_mul(1000));
    let begins = Timestamp::from_ms(certificate.validity().not_before.timestamp().saturating_mul(1000));
    let day = ends.to_string();
    let day = day.split('T').next().unwrap_or_default();
    let left = ends.since(now);
    if ends <= now {
        report.failed(about, format!("{name} has ended on {day}"), "renew it");
    } else if begins > now {
        report.failed(
            about,
            format!("{name} is not valid yet, or this machine's clock is wrong"),
            "see when it begins",
        );
    } else if left < enough {
        report.warning(about, format!("{name} ends in {}, on {day}", span(left.as_secs())), "renew it");
    } else {
        report.ok(about, format!("{name} is good until {day}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{check::report::Form, exit::Exit};

    fn verdict(find: impl FnOnce(&mut Report)) -> (Exit, String) {
        let mut report = Report::new(Form::Json);
        find(&mut report);
        (report.exit(), report.findings[0]["verdict"].as_str().unwrap().to_owned())
    }

    #[test]
    fn a_clock_is_wrong_from_some_point_on() {
        for (ahead_ms, exit, found) in [
            (900, Exit::Done, "ok"),
            (-29_000, Exit::Done, "ok"),
            (31_000, Exit::Done, "warning"),
            (-301_000, Exit::Found, "failed"),
        ] {
            let samples = Clocks(vec![Sample { whose: "FCM".to_owned(), ahead_ms }]);
            assert_eq!(verdict(|report| clocks(report, &samples)), (exit, found.to_owned()), "{ahead_ms}");
        }
        assert_eq!(verdict(|report| clocks(report, &Clocks::default())), (Exit::Done, "not_checked".to_owned()));
    }

    #[test]
    fn a_certificate_is_renewed_in_time() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut wanted = rcgen::CertificateParams::new(vec!["push.example.com".to_owned()]).unwrap();
        wanted.not_before = rcgen::date_time_ymd(2026, 1, 1);
        wanted.not_after = rcgen::date_time_ymd(2026, 6, 30);
        let certificate = wanted.self_signed(&key).unwrap();
        for (now, found) in [
            ("2025-12-31T00:00:00Z", "failed"),
            ("2026-06-01T00:00:00Z", "ok"),
            ("2026-06-20T00:00:00Z", "warning"),
            ("2026-06-30T00:00:01Z", "failed"),
        ] {
            let now = now.parse().unwrap();
            let (_, verdict) = verdict(|report| certificate_ends(report, "c", certificate.der(), SERVER_LEFT, now));
            assert_eq!(verdict, found, "{now}");
        }
    }
}
