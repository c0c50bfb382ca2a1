//! Dates in log lines: local time, computed once per second and thread.

use std::cell::RefCell;
use std::io::Write as _;
use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Reads the time zone while the file system is still the full one (before `chroot`).
pub(crate) fn load_time_zone() {
    zone();
}

/// Appends `23/Nov/2026:03:05:12.917`, the date of HAProxy's traffic lines.
pub(super) fn traffic(wall_us: u64, out: &mut Vec<u8>) {
    with_cache(wall_us, |c| out.extend_from_slice(&c.traffic));
    let _ = write!(out, ".{:03}", wall_us / 1000 % 1000);
}

/// Appends `Nov 23 03:05:12` (RFC 3164).
pub(super) fn bsd(wall_us: u64, out: &mut Vec<u8>) {
    with_cache(wall_us, |c| out.extend_from_slice(&c.bsd));
}

/// Appends `2026-11-23T03:05:12.917699+00:00` (RFC 5424 / ISO 8601).
pub(super) fn iso(wall_us: u64, out: &mut Vec<u8>) {
    with_cache(wall_us, |c| {
        out.extend_from_slice(&c.iso);
        let _ = write!(out, ".{:06}", wall_us % 1_000_000);
        out.extend_from_slice(&c.offset);
    });
}

/// The texts of one second.
#[derive(Default)]
struct Cache {
    second: Option<u64>,
    traffic: Vec<u8>,
    bsd: Vec<u8>,
    iso: Vec<u8>,
    offset: Vec<u8>,
}

fn with_cache(wall_us: u64, f: impl FnOnce(&Cache)) {
    thread_local! {
        static CACHE: RefCell<Cache> = RefCell::default();
    }
    CACHE.with_borrow_mut(|cache| {
        let second = wall_us / 1_000_000;
        if cache.second != Some(second) {
            cache.fill(second);
        }
        f(cache);
    });
}

impl Cache {
    fn fill(&mut self, second: u64) {
        self.second = Some(second);
        for text in [
            &mut self.traffic,
            &mut self.bsd,
            &mut self.iso,
            &mut self.offset,
        ] {
            text.clear();
        }
        let t = Timestamp::from_second(i64::try_from(second).unwrap_or(0)).unwrap_or_default();
        let z = t.to_zoned(zone().clone());
        let month = usize::try_from(z.month())
            .ok()
            .and_then(|m| MONTHS.get(m.wrapping_sub(1)))
            .unwrap_or(&"???");
        let (y, d, h, m, s) = (z.year(), z.day(), z.hour(), z.minute(), z.second());
        let offset_min = z.offset().seconds() / 60;
        let sign = if offset_min < 0 { '-' } else { '+' };
        let offset_min = offset_min.unsigned_abs();
        let _ = write!(self.traffic, "{d:02}/{month}/{y:04}:{h:02}:{m:02}:{s:02}");
        let _ = write!(self.bsd, "{month} {d:2} {h:02}:{m:02}:{s:02}");
        let _ = write!(
            self.iso,
            "{y:04}-{:02}-{d:02}T{h:02}:{m:02}:{s:02}",
            z.month()
        );
        let _ = write!(
            self.offset,
            "{sign}{:02}:{:02}",
            offset_min / 60,
            offset_min % 60
        );
    }
}

fn zone() -> &'static TimeZone {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    ZONE.get_or_init(|| TimeZone::try_system().unwrap_or(TimeZone::UTC))
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
