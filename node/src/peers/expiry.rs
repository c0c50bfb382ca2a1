//! When certificates run out. Nodes whose certificates have expired part, so this is said in time: at the start, when a
//! file is renewed, and then every day.

use std::collections::BTreeMap;
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
    holds: Holds,
    /// When it runs out, seconds since 1970 (see [`expiry`]); `None`: it holds no certificate.
    at: Option<i64>,
    /// When that was last said, and whether it was over then.
    said: Option<(i64, bool)>,
}

impl Files {
    /// Reads them, while the process still may.
    pub(super) fn of(section: &PeersSection) -> Files {
        let file = |(path, holds): (&str, Holds)| File {
            path: path.to_owned(),
            holds,
            at: expiry(path, holds),
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
                let at = expiry(&file.path, file.holds).or(file.at);
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
        let severity = match (at - now, self.holds) {
            (..=0, Holds::Chain) => Severity::Err,
            (left, _) if left <= SOON => Severity::Warning,
            _ => return None,
        };
        let is_over = at <= now;
        let known =
            |(when, over): (i64, bool)| over == is_over && (when..when + DAY).contains(&now);
        if self.said.is_some_and(known) {
            return None;
        }
        self.said = Some((now, is_over));
        let date = date(at);
        let path = &self.path;
        let what = match self.holds {
            Holds::Chain => format!("certificate '{path}'"),
            Holds::Authorities => format!("the last authority of ca-file '{path}'"),
        };
        let text = match (is_over, self.holds) {
            (true, Holds::Chain) => format!(
                "{what} expired on {date}: other nodes refuse it, and open no new session; replace the file, it is read again"
            ),
            // Anchors of trust have no dates of their own (RFC 5280, 6.1.1 d).
            (true, Holds::Authorities) => format!(
                "{what} expired on {date}: what it signed is accepted as long as it is valid itself; replace the file, it is read again"
            ),
            (false, _) => {
                let days = (at - now) / DAY;
                let s = if days == 1 { "" } else { "s" };
                format!(
                    "{what} expires on {date}, in {days} day{s}; replace the file, it is read again"
                )
            }
        };
        Some((severity, text))
    }
}

/// Who expires within this time (seconds) is reported.
const SOON: i64 = 14 * DAY;
const DAY: i64 = 86_400;
/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// What the certificates of a file are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holds {
    /// One that is shown (`crt`), and those that lead from it to its authority: all are needed.
    Chain,
    /// Authorities (`ca-file`): one that is valid will do, as while an old one is being replaced.
    Authorities,
}

/// The files of a section that hold certificates. One that is named as both counts as what runs out first.
pub(crate) fn paths(section: &PeersSection) -> BTreeMap<&str, Holds> {
    let lines = section.binds.iter().map(|b| &b.tls);
    let lines = lines.chain(section.servers.iter().map(|s| &s.tls));
    let lines = lines.chain(section.discover.iter().map(|d| &d.tls));
    let mut paths = BTreeMap::new();
    for tls in lines.flatten() {
        let tls: &PeersTls = tls;
        if let Some(path) = &tls.ca_file {
            paths.entry(path.as_str()).or_insert(Holds::Authorities);
        }
        if let Some(path) = &tls.crt {
            paths.insert(path.as_str(), Holds::Chain);
        }
    }
    paths
}

impl Holds {
    /// When a file whose certificates run out at these times is of no use any more.
    fn until(self, times: impl Iterator<Item = i64>) -> Option<i64> {
        match self {
            Holds::Chain => times.min(),
            Holds::Authorities => times.max(),
        }
    }
}

/// When a file is of no use any more, seconds since 1970: with the first of a chain, the last of authorities.
pub(crate) fn expiry(path: &str, holds: Holds) -> Option<i64> {
    let certificates = CertificateDer::pem_file_iter(path).ok()?;
    holds.until(certificates.filter_map(|c| not_after(&c.ok()?)))
}

/// Seconds since 1970, for people.
pub(super) fn date(at: i64) -> String {
    Timestamp::from_second(at).map_or_else(
        |_| at.to_string(),
        |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}

/// Whether issuer and subject are one.
pub(super) fn is_self_issued(certificate: &[u8]) -> Option<bool> {
    let (_, whole, _) = element(certificate)?;
    let (_, mut fields, _) = element(whole)?;
    let (tag, _, rest) = element(fields)?;
    if tag == VERSION {
        fields = rest;
    }
    for _serial_algorithm in 0..2 {
        (_, _, fields) = element(fields)?;
    }
    let (_, issuer, rest) = element(fields)?;
    let (_, _validity, rest) = element(rest)?;
    let (_, subject, _) = element(rest)?;
    Some(issuer == subject)
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
            holds: Holds::Chain,
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
    fn authorities_are_good_as_long_as_one_of_them_is() {
        let over = |holds: Holds| holds.until([120, 60, 90].into_iter());
        assert_eq!(over(Holds::Chain), Some(60));
        assert_eq!(over(Holds::Authorities), Some(120));
        let mut file = File {
            path: "/tls/ca.pem".into(),
            holds: Holds::Authorities,
            at: Some(120),
            said: None,
        };
        let (severity, text) = file.news(120).unwrap();
        assert_eq!(severity, Severity::Warning);
        assert!(
            text.contains("the last authority of ca-file '/tls/ca.pem' expired on 1970-01-01"),
            "{text}"
        );
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
