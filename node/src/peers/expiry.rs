//! When certificates run out. Nodes whose certificates have expired part, so this is said in time: at the start, when a
//! file is renewed, and then every day.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use remora_config::plan::{PeersSection, PeersTls};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::time::sleep;

use super::section::Section;
use crate::observe::log::Severity;

/// The files of a section that hold certificates, and what is known of them.
pub(super) struct Files(Vec<File>);

struct File {
    path: String,
    /// When the first of its certificates runs out, seconds since 1970; `None`: the file holds none.
    at: Option<i64>,
    /// When that was last said, and how bad it was.
    said: Option<(i64, Severity)>,
}

impl Files {
    /// Reads them, while the process still may.
    pub(super) fn of(section: &PeersSection) -> Files {
        let file = |path: &str| File {
            path: path.to_owned(),
            at: expiry(path),
            said: None,
        };
        Files(paths(section).into_iter().map(file).collect())
    }

    /// Looks at them for ever.
    pub(super) async fn watch(mut self, section: Arc<Section>) {
        loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.map_or(0, |since| since.as_secs() as i64);
            for file in &mut self.0 {
                // A file that cannot be read now is what it was.
                let at = expiry(&file.path).or(file.at);
                if at != file.at {
                    (file.at, file.said) = (at, None);
                }
                if let Some((severity, text)) = file.news(now) {
                    section.log(severity, format_args!("{text}"));
                }
            }
            sleep(LOOK).await;
        }
    }
}

impl File {
    /// What there is to say, if anything.
    fn news(&mut self, now: i64) -> Option<(Severity, String)> {
        let at = self.at?;
        let severity = match at - now {
            ..=0 => Severity::Err,
            left if left <= SOON => Severity::Warning,
            _ => return None,
        };
        let known =
            |(when, how): (i64, Severity)| how == severity && (when..when + DAY).contains(&now);
        if self.said.is_some_and(known) {
            return None;
        }
        self.said = Some((now, severity));
        let date = Timestamp::from_second(at).map_or_else(
            |_| at.to_string(),
            |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        );
        let path = &self.path;
        let text = if severity == Severity::Err {
            format!(
                "certificate '{path}' expired on {date}: other nodes refuse it, and open no new session; replace the file, it is read again"
            )
        } else {
            let days = (at - now) / DAY;
            let s = if days == 1 { "" } else { "s" };
            format!(
                "certificate '{path}' expires on {date}, in {days} day{s}; replace the file, it is read again"
            )
        };
        Some((severity, text))
    }
}

/// Who expires within this time (seconds) is reported.
const SOON: i64 = 14 * DAY;
const DAY: i64 = 86_400;
/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// The files of a section that hold certificates.
pub(crate) fn paths(section: &PeersSection) -> BTreeSet<&str> {
    let lines = section.binds.iter().map(|b| &b.tls);
    let lines = lines.chain(section.servers.iter().map(|s| &s.tls));
    let lines = lines.chain(section.discover.iter().map(|d| &d.tls));
    lines
        .flatten()
        .flat_map(|tls: &PeersTls| [&tls.crt, &tls.ca_file])
        .flatten()
        .map(String::as_str)
        .collect()
}

/// When the first certificate of a file runs out: seconds since 1970.
pub(crate) fn expiry(path: &str) -> Option<i64> {
    let certificates = CertificateDer::pem_file_iter(path).ok()?;
    certificates.filter_map(|c| not_after(&c.ok()?)).min()
}

/// `notAfter` of a certificate (RFC 5280, 4.1): the fifth field of `tbsCertificate`, or the fourth in version 1, holds it.
fn not_after(certificate: &[u8]) -> Option<i64> {
    let (_, whole, _) = element(certificate)?;
    let (_, mut fields, _) = element(whole)?;
    let (tag, _, rest) = element(fields)?;
    if tag == VERSION {
        fields = rest;
    }
    for _serial_algorithm_issuer in 0..3 {
        (_, _, fields) = element(fields)?;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, rest) = element(validity)?;
    let (tag, time, _) = element(rest)?;
    let digits = std::str::from_utf8(time).ok()?.strip_suffix('Z')?;
    let text = match tag {
        // Two digits of the year: 50 to 99 are of the last century (4.1.2.5.1).
        UTC_TIME if *digits.as_bytes().first()? >= b'5' => format!("19{digits}"),
        UTC_TIME => format!("20{digits}"),
        GENERALIZED_TIME => digits.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%S", text).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

/// Tag, contents and rest of a DER element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if bytes.len() > 4 {
            return None;
        }
        let length = bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b));
        (length, rest)
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((*tag, contents, rest))
}

/// `[0]`, which only the version has.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

#[cfg(test)]
mod tests {
    use super::*;

    fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        if contents.len() < 0x80 {
            out.push(contents.len() as u8);
        } else {
            out.push(0x82);
            out.extend_from_slice(&(contents.len() as u16).to_be_bytes());
        }
        out.extend_from_slice(contents);
        out
    }

    fn certificate(versioned: bool, tag: u8, time: &[u8]) -> Vec<u8> {
        let validity = [tlv(UTC_TIME, b"200101000000Z"), tlv(tag, time)].concat();
        let mut fields = if versioned {
            tlv(VERSION, &tlv(2, &[2]))
        } else {
            Vec::new()
        };
        fields.extend(tlv(2, &[1, 2, 3]));
        fields.extend(tlv(0x30, &[0; 13]));
        fields.extend(tlv(0x30, &[0; 200]));
        fields.extend(tlv(0x30, &validity));
        fields.extend(tlv(0x30, &[0; 300]));
        tlv(0x30, &[tlv(0x30, &fields), tlv(0x30, &[])].concat())
    }

    #[test]
    fn the_time_is_found() {
        for (versioned, tag, time, expected) in [
            (true, UTC_TIME, &b"260102030405Z"[..], Some(1_767_323_045)),
            (false, UTC_TIME, b"700101000000Z", Some(0)),
            (
                true,
                GENERALIZED_TIME,
                b"20500101000000Z",
                Some(2_524_608_000),
            ),
            (true, UTC_TIME, b"260102030405+0100", None),
            (true, UTC_TIME, b"261302030405Z", None),
            (true, UTC_TIME, b"Z", None),
            (true, 4, b"260102030405Z", None),
        ] {
            assert_eq!(
                not_after(&certificate(versioned, tag, time)),
                expected,
                "{time:?}"
            );
        }
    }

    #[test]
    fn what_is_said_and_how_often() {
        let mut file = File {
            path: "/tls/a.pem".into(),
            at: Some(100 * DAY),
            said: None,
        };
        let mut said = |now: i64| file.news(now);
        assert_eq!(said(85 * DAY), None);
        let (severity, text) = said(86 * DAY + 5).unwrap();
        assert_eq!(severity, Severity::Warning);
        assert!(
            text.contains("'/tls/a.pem' expires on 1970-04-11 00:00:00 UTC, in 13 days"),
            "{text}"
        );
        assert_eq!(said(86 * DAY + 15), None);
        assert_eq!(said(87 * DAY + 4), None);
        assert!(said(87 * DAY + 5).is_some());
        let (severity, text) = said(100 * DAY).unwrap();
        assert_eq!(severity, Severity::Err);
        assert!(text.contains("expired on 1970-04-11"), "{text}");
        assert_eq!(said(100 * DAY + 10), None);
        assert!(said(102 * DAY).is_some());
    }

    #[test]
    fn rubbish_has_no_time() {
        let good = certificate(true, UTC_TIME, b"260102030405Z");
        for cut in 0..good.len() {
            assert_eq!(not_after(&good[..cut]), None);
        }
        for at in 0..good.len() {
            for bits in [0x01, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= bits;
                let _ = not_after(&bad);
            }
        }
        assert_eq!(not_after(&[0x30, 0x88, 1, 1, 1, 1, 1, 1, 1, 1]), None);
    }
}
